"""What the tests run in worker processes, and how they drive it. No worker knows of the session: it emits.

    start(...)  ->  work(worker, how)  in 4 processes  ->  250 marks each, then the end that `how` names

Importable by spawned children, by `python workers.py WORKER HOW` and by a dispatcher process.
"""

import atexit
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from typing import Any

from relay_mp import ScopeType, pools, scope
from relay_mp.events import Event

WORKERS = 4
MARKS = 250

RETURNS, EXIT, KILL, CRASH = "returns", "os._exit", "SIGKILL", "SIGSEGV"
EXIT_CODES = {RETURNS: 0, EXIT: 0, KILL: -signal.SIGKILL, CRASH: -signal.SIGSEGV}

TIMEOUT_SECONDS = 60.0


def emit_marks(worker: int, count: int = MARKS) -> None:
    for n in range(count):
        scope.event("m", data={"worker": worker, "n": n})


def end(how: str) -> None:
    """Ends this process at once, or does not."""
    if how == EXIT:
        os._exit(0)
    if how == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == CRASH:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # faulthandler's, if forked from pytest
        ctypes.string_at(0)


def work(worker: int, how: str) -> None:
    """The whole of a process."""
    emit_marks(worker)
    end(how)


def leave(worker: int) -> None:
    """Ends by sys.exit, inside a scope."""
    emit_marks(worker)
    with scope.scope("left", ScopeType.Agent):
        sys.exit(3)


def leave_with_a_message(worker: int) -> None:
    """Ends by sys.exit, which prints it."""
    emit_marks(worker)
    sys.exit("the user's own words")


def raise_at_exit(worker: int) -> None:
    """Ends with an exception in atexit, after which it emits again."""

    def at_exit() -> None:
        scope.event("m", data={"worker": worker, "n": MARKS})
        raise RuntimeError("the user's own")

    atexit.register(at_exit)
    emit_marks(worker)


class Barrier:
    """Where tasks of a pool say that they have emitted, and wait to be told to end.

    Two things that the standard library's pools need: that each task has a worker of its own, and that
    none dies while another still emits (an executor terminates all workers when one dies).
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self.address = f"\0relay_mp-tests-{os.getpid()}-{id(self):x}"
        self._socket.bind(self.address)
        self._socket.listen(WORKERS)
        self._tasks: list[socket.socket] = []

    def await_emitted(self, tasks: int = WORKERS) -> set[int]:
        """The pids of the workers in which so many tasks have emitted."""
        self._tasks = [self._socket.accept()[0] for _ in range(tasks)]
        for task in self._tasks:
            task.settimeout(TIMEOUT_SECONDS)
        return {int(task.recv(16)) for task in self._tasks}

    def release(self) -> None:
        for task in self._tasks:
            with contextlib.suppress(BrokenPipeError):  # an executor has ended it with its neighbour
                task.sendall(b".")

    def await_ended(self) -> None:
        """Returns when all tasks have closed their end, as their death does."""
        for task in self._tasks:
            with contextlib.suppress(ConnectionResetError):
                assert task.recv(1) == b""

    def close(self) -> None:
        for task in (*self._tasks, self._socket):
            task.close()

    def __enter__(self) -> "Barrier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def work_and_wait(worker: int, how: str, address: str) -> int:
    """A task of a pool."""
    emit_marks(worker)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as barrier:
        barrier.settimeout(TIMEOUT_SECONDS)
        barrier.connect(address)
        barrier.sendall(str(os.getpid()).encode())
        barrier.recv(1)
        end(how)
    return worker


def subprocess_command(worker: int, how: str) -> list[str]:
    return [sys.executable, __file__, str(worker), how]


def run_subprocess(worker: int, how: str, instrumented: bool = False) -> None:
    """A process whose work is to run another."""
    environment = None if instrumented else pools.environ()
    done = subprocess.run(subprocess_command(worker, how), env=environment, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != EXIT_CODES[how]:
        sys.exit(f"the subprocess ended with {done.returncode}")


def run_processes(method: str, workers: list[int], how: str) -> None:
    """A process whose work is to start others, of the same start method."""
    context = pools.get_context(method)
    processes = [context.Process(target=work, args=(worker, how)) for worker in workers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    if any(process.exitcode != EXIT_CODES[how] for process in processes):
        sys.exit(f"processes ended with {[process.exitcode for process in processes]}")


# ------------------------------------------------------------------------------- what was seen of them


def seen_of(event: Event) -> dict[str, Any]:
    """What the tests want to know of an event."""
    return {
        "seq": event.seq,
        "pid": event.pid,
        "name": event.name,
        "parent": event.parent_uuid,
        "data": event.data,
        "redelivered": event.redelivered,
    }


class FileSubscriber:
    """A named subscriber: writes what it sees to a file, a line an event. Flushed, so that no close is needed."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - closed by the dispatcher

    def __call__(self, event: Event) -> None:
        self._file.write(json.dumps(seen_of(event)) + "\n")

    def close(self) -> None:
        self._file.close()


def read_seen(path: os.PathLike[str] | str) -> list[dict[str, Any]]:
    with open(path) as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
