"""Who is dead where the kernel has no pidfd, and whose processes cannot be looked at."""

import subprocess
import sys

import pytest
from processes import await_that

from relay_mp._deliver import liveness
from relay_mp._native import core

WAITS = "print('here', flush=True); import sys; sys.stdin.read()"
FIRST_THREAD_ENDS = """
import ctypes, sys, threading
def run():
    while open(f"/proc/self/task/{threading.main_thread().native_id}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    print("here", flush=True)
    sys.stdin.read()
threading.Thread(target=run).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def without_pidfd(monkeypatch):
    """Only what has no process at all, or a reused pid, is known for certain: as in platform_linux.c."""
    ask = core.process_liveness

    def answer(*process):
        return core.UNKNOWN if ask(*process) == core.ALIVE or _is_zombie(process[0]) else ask(*process)

    monkeypatch.setattr(core, "process_liveness", answer)


def _is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


class Process:
    """Another process, and what it is known by."""

    def __init__(self, code):
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "here\n"
        with open(f"/proc/{self._process.pid}/stat") as file:
            start_time = int(file.read().rpartition(")")[2].split()[19])
        self.known_by = self._process.pid, start_time, core.process_self()[2]

    def kill(self):
        self._process.kill()
        await_that(lambda: _is_zombie(self._process.pid), "the process's end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()


def test_a_process_is_alive_until_it_ends_a_zombie_is_dead_and_so_is_one_that_is_gone(without_pidfd):
    with Process(WAITS) as process:
        assert not liveness.is_dead(*process.known_by)
        process.kill()
        assert liveness.is_dead(*process.known_by)
    assert liveness.is_dead(*process.known_by)


def test_a_reused_pid_is_dead(without_pidfd):
    with Process(WAITS) as process:
        pid, start_time, namespace = process.known_by
        for rounded in (-1, 0, 1):  # a tick apart: read in another time namespace
            assert not liveness.is_dead(pid, start_time + rounded, namespace)
        assert liveness.is_dead(pid, start_time - 2, namespace)
        assert liveness.is_dead(pid, start_time + 2, namespace)


def test_a_process_whose_first_thread_has_ended_is_alive(without_pidfd):
    with Process(FIRST_THREAD_ENDS) as process:
        assert _is_zombie(process.known_by[0])
        assert not liveness.is_dead(*process.known_by)
