"""Processes of the tests of this folder: forked, reaped, awaited. Every wait has a deadline."""

import os
import select
import time
import traceback
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 60.0


def run_alone(run_script, function, *arguments, timeout_seconds=TIMEOUT_SECONDS):
    """Calls a module's function in a fresh interpreter: to fork that takes a tenth of the time it takes pytest's."""
    module = function.__module__
    call = f"{module}.{function.__name__}(*{arguments!r})"
    path = f"sys.path.insert(0, {str(Path(__file__).parent)!r})"
    return run_script(f"import sys; {path}; import {module}; {call}", timeout_seconds=timeout_seconds)


def long(*values, timeout=3600):
    """A parameter of the long profile."""
    return pytest.param(*values, marks=[pytest.mark.long, pytest.mark.timeout(timeout)])


def fork(target, *arguments):
    """A child that runs the target and ends without going back into pytest."""
    pid = os.fork()
    if pid == 0:
        try:
            target(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def await_that(is_so, what):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.001)


def await_end(pid):
    """Of a process that is no child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_SECONDS)[0], f"process {pid} did not end"
    finally:
        os.close(descriptor)
