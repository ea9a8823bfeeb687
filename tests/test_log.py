"""The library's own log lines: bounded, written past handlers that raise, and by a forked child as by its parent."""

import logging
import os
import threading

import pytest

from relay_mp import _log
from relay_mp._log import logger

WAIT_SECONDS = 30.0


class Collector(logging.Handler):
    """Keeps lines; may stand still, or raise, at the first."""

    def __init__(self, first=None):
        super().__init__()
        self.lines = []
        self.first = first
        self.arrived = threading.Event()

    def emit(self, record):
        first, self.first = self.first, None
        if first is not None:
            first()
        self.lines.append(record.getMessage())
        self.arrived.set()


@pytest.fixture
def collect():
    handlers = []

    def add(first=None):
        handlers.append(Collector(first))
        logging.getLogger("relay_mp").addHandler(handlers[-1])
        return handlers[-1]

    yield add
    for handler in handlers:
        logging.getLogger("relay_mp").removeHandler(handler)


def in_background(*texts):
    """Logs from a thread of the library's, which waits for no line longer than it should."""

    def run():
        _log.work_in_background()
        for text in texts:
            logger.error(text)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_of_a_kind_one_line_is_written_and_the_next_one_says_how_many_were_not(collect, monkeypatch):
    found = collect()
    for number in range(5):
        logger.error("%s failed for the %d. time", "it", number)
    monkeypatch.setattr(_log, "WINDOW_SECONDS", 0.0)
    logger.error("%s failed for the %d. time", "it", 5)
    logger.error("%s failed for the %d. time", "another", 0)
    told = "it failed for the 5. time (and 4 more of this kind, which were not logged)"
    assert found.lines == ["it failed for the 0. time", told, "another failed for the 0. time"]


def test_kinds_are_bounded(collect, monkeypatch):
    monkeypatch.setattr(_log, "MAX_KINDS", 2)
    found = collect()
    for text in ("a", "b", "c", "a"):
        logger.error(text)
    assert found.lines == ["a", "b", "c", "a"]


@pytest.mark.parametrize("error", [RuntimeError("down"), SystemExit(3)], ids=lambda error: type(error).__name__)
def test_a_handler_that_raises_costs_its_line_and_no_other(collect, error):
    def fail():
        raise error

    found = collect(fail)
    in_background("first", "second")
    assert found.arrived.wait(WAIT_SECONDS)
    assert found.lines == ["second"]


def test_a_child_that_is_forked_while_a_line_is_written_writes_its_own_and_not_its_parents(collect):
    standing, go_on = threading.Event(), threading.Event()

    def stand():
        standing.set()
        assert go_on.wait(WAIT_SECONDS)

    found = collect(stand)
    in_background("first", "the parent's")
    assert standing.wait(WAIT_SECONDS)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(write_end, "w") as pipe:
            found.lines.clear()
            found.lock = threading.RLock()  # as logging makes it anew in a child, for handlers that it knows
            in_background("the child's")
            found.arrived.wait(WAIT_SECONDS)
            pipe.write(",".join(found.lines))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert pipe.read() == "the child's"
    os.waitpid(pid, 0)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == _log.WRITER_NAME:
            thread.join(WAIT_SECONDS)
    assert found.lines == ["first", "the parent's"]
