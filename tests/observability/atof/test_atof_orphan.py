"""A program that is killed and started again, while the dispatcher process of the killed one still writes its file."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import relay_mp
from relay_mp import scope

pytestmark = pytest.mark.timeout(120)

KILLED = """
import os, sys, time, relay_mp
from relay_mp import scope
relay_mp.session(dispatcher="process")
config = relay_mp.AtofExporterConfig(output_directory=sys.argv[1], filename="events.jsonl")
relay_mp.AtofExporter(config).register("file")
pid = os.fork()
if pid == 0:
    scope.event("worker")
    print("ready", flush=True)
    sys.stdin.read()  # until the test ends it
    scope.event("later")
    os._exit(0)
time.sleep(600)
"""
"""A worker lives on, and with it the dispatcher process."""


class Killed:
    """Such a program, killed once its worker has emitted."""

    def __init__(self, directory):
        self._process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(directory)],
            env={name: value for name, value in os.environ.items() if not name.startswith("RELAY_MP_S")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"
        (self.dispatcher,) = [
            child.pid
            for child in psutil.Process(self._process.pid).children()
            if "marshal" in " ".join(child.cmdline())
        ]
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end_worker(self):
        self._process.stdin.close()

    def await_end(self):
        """Leaves nothing behind."""
        self.end_worker()
        self._process.stdout.close()
        deadline = time.monotonic() + 60
        while psutil.pid_exists(self.dispatcher):
            assert time.monotonic() < deadline, "the dispatcher process goes on"
            time.sleep(0.01)


@pytest.fixture
def killed(tmp_path):
    program = Killed(tmp_path)
    yield program
    program.await_end()


def exporter(directory, **settings):
    return relay_mp.AtofExporter(
        relay_mp.AtofExporterConfig(output_directory=directory, filename="events.jsonl", **settings)
    )


class EndsTheWorker(logging.Handler):
    """Ends the killed program's worker as soon as it is said that its dispatcher is waited for."""

    def __init__(self, killed):
        super().__init__()
        self._killed = killed
        self.said = []

    def emit(self, record):
        if "is still written by process" in record.getMessage():
            self.said.append(record.getMessage())
            self._killed.end_worker()


def test_a_program_that_is_started_again_waits_for_the_dispatcher_of_the_killed_one(session, tmp_path, killed):
    handler = EndsTheWorker(killed)
    logging.getLogger("relay_mp").addHandler(handler)
    try:
        exporter(tmp_path, orphan_wait_seconds=60).register("file")
    finally:
        logging.getLogger("relay_mp").removeHandler(handler)
    scope.event("again")
    session.close()
    lines = [json.loads(line)["name"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert lines == ["worker", "later", "again"]
    (said,) = handler.said
    assert f"{tmp_path / 'events.jsonl'} is still written by process {killed.dispatcher}, the dispatcher of a" in said
    assert "60 s at most" in said


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_a_file_that_is_still_written_at_the_end_of_the_wait_is_an_error_that_names_the_process(
    session, tmp_path, killed, seconds
):
    with pytest.raises(relay_mp.FileTakenError, match=f"the end of process {killed.dispatcher}$") as caught:
        exporter(tmp_path, orphan_wait_seconds=seconds).register("file")
    assert isinstance(caught.value, relay_mp.RelayError)
    assert isinstance(caught.value, FileExistsError)


def test_who_is_no_orphan_is_not_waited_for(session, tmp_path, monkeypatch):
    """Its session's owner lives: the file is taken for as long as that likes."""
    exporter(tmp_path).register("file")
    scope.event("one")
    session.flush()
    waits = []
    monkeypatch.setattr("relay_mp._deliver.file_lock.sleep", waits.append)
    with pytest.raises(relay_mp.FileTakenError):
        exporter(tmp_path, orphan_wait_seconds=600).register("other")
    assert waits == []


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_wait_that_is_not_a_number_of_seconds_is_refused(tmp_path, seconds, error):
    with pytest.raises(error, match="orphan_wait_seconds is"):
        exporter(tmp_path, orphan_wait_seconds=seconds)
