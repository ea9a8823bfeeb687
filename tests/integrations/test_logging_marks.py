"""Log records become marks, and what the program writes stays as it is."""

import io
import logging

import pytest

import relay_mp
from relay_mp import ScopeType, scope, subscribers
from relay_mp.integrations import logging as integration
from relay_mp.types import LogSeverity


@pytest.fixture
def marks():
    found = []
    with relay_mp.session():
        subscribers.register("list", lambda event: found.append(event) if event.kind == "mark" else None)
        integration.instrument()
        yield lambda: (subscribers.flush(), found)[1]
        integration.uninstrument()


@pytest.fixture
def log():
    """A logger with a handler of its own, at WARNING."""
    logger = logging.getLogger("tests.logging_marks")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    yield logger, written
    logger.removeHandler(handler)


def test_a_record_is_a_mark_under_the_current_scope(marks, log):
    with scope.scope("work", ScopeType.Tool) as handle:
        log[0].error("found %d", 3, extra={"user": "u1"})
    (mark,) = marks()
    assert (mark.name, mark.parent_uuid, mark.severity) == ("tests.logging_marks", handle.uuid, LogSeverity.Error)
    assert (mark.data["message"], mark.data["level"], mark.data["extra"]) == ("found 3", "ERROR", {"user": "u1"})
    assert mark.data["function"] == "test_a_record_is_a_mark_under_the_current_scope"


def test_the_program_s_levels_and_handlers_hold(marks, log):
    logger, written = log
    logger.debug("debug")
    logger.info("info")
    logger.warning("warning")
    assert written.getvalue() == "warning\n"
    assert [mark.data["message"] for mark in marks()] == ["info", "warning"]
    logging.disable(logging.INFO)
    try:
        logger.info("disabled")
    finally:
        logging.disable(logging.NOTSET)
    assert len(marks()) == 2


def test_what_the_library_logs_is_left_out(marks):
    logging.getLogger("relay_mp").error("own")
    logging.getLogger("relay_mp.x").error("own")
    logging.getLogger("relay_mpx").error("another's")
    assert [mark.data["message"] for mark in marks()] == ["another's"]


def test_a_subscriber_that_logs_causes_no_next_event(marks, log):
    subscribers.register("logs", lambda event: log[0].error("seen %s", event.name))
    log[0].error("first")
    assert [mark.data["message"] for mark in marks()] == ["first"]
    assert log[1].getvalue() == "first\nseen tests.logging_marks\n"


def test_a_record_is_bounded(marks, log):
    extra = {f"field_{number}": number for number in range(100)}
    try:
        raise ValueError("y" * 20_000)
    except ValueError:
        log[0].exception("x" * 20_000, extra=extra)
    (mark,) = marks()
    assert mark.data["message"] == "x" * integration.MAX_MESSAGE_CHARACTERS
    assert len(mark.data["exception"]) == integration.MAX_MESSAGE_CHARACTERS
    assert len(mark.data["extra"]) == integration.MAX_FIELDS


def test_a_record_whose_arguments_do_not_fit_is_the_handlers_matter(marks, log, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log[0].error("%d", "no number")
    assert marks() == []


def test_it_is_taken_back(log):
    before = logging.Logger.callHandlers, logging.Logger.isEnabledFor
    integration.instrument()
    integration.instrument(logging.ERROR)
    assert logging.Logger.callHandlers is not before[0]
    integration.uninstrument()
    assert (logging.Logger.callHandlers, logging.Logger.isEnabledFor) == before
