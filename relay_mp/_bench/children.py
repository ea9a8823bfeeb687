"""The child processes of a side, and what goes wrong with a side."""

import ctypes
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

TURN_TIMEOUT_SECONDS = 120.0
END_TIMEOUT_SECONDS = 20.0

# It has one thread when it forks them, or its only other one is the dispatcher.
forked = multiprocessing.get_context("fork")


class Unavailable(Exception):
    """A side cannot run here; the reason is printed and kept, and the others go on."""


class BenchmarkError(Exception):
    """A side failed: a defect, not a result."""


PR_SET_PDEATHSIG = 1


@contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Forks a child that runs `target(its end of a pipe, *arguments)`; at the end of the block it is sent a None.

    It is killed if its parent dies or is interrupted, and is not interrupted itself: nothing outlives a benchmark.
    """
    pipe, its_end = forked.Pipe()
    process = forked.Process(target=_as_child, args=(target, its_end, *arguments))
    interrupts = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the child inherits it
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, interrupts)
    its_end.close()
    try:
        yield pipe
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        with suppress(OSError):
            pipe.send(None)
        process.join(END_TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        pipe.close()


def _as_child(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    target(pipe, *arguments)


def received(pipe: Connection) -> Any:
    """What a child sends next.

    Raises:
        BenchmarkError: nothing within `TURN_TIMEOUT_SECONDS`, or it has died.
    """
    if not pipe.poll(TURN_TIMEOUT_SECONDS):
        raise BenchmarkError(f"a child did not answer within {TURN_TIMEOUT_SECONDS} s")
    try:
        return pipe.recv()
    except EOFError:
        raise BenchmarkError("a child ended without an answer") from None


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
    """Polls, asleep in between.

    Raises:
        BenchmarkError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {timeout_seconds} s")
        time.sleep(0.0005)
