"""That a file has one writer: a lock in a private file beside it, for who may read a file may also lock it.

    /data/events.jsonl        the file: of any mode, so that others may read it
    /data/.events.jsonl.lock  mode 0600: only this user can open it, and so lock it; there while somebody writes
        12345                 the pid of the writer
        918 922               the inodes of the files that it has written under this name, the newest last
        12345 8 1 12300 7 1   of a dispatcher process: its pid, start time and pid namespace, and those of its owner

Where no file can be made beside it, in a directory of somebody else's, the file itself is locked.

A writer that is killed leaves the lock's file: its successor takes the lock, and finds what was written last though
the file may have been moved. A file in which others may write, or of another user, is refused. Any process.

A program that is started again at once finds that the dispatcher process of the one that was killed still writes:

    await_orphan(path, seconds)    until that has ended; it delivers what the killed program's workers have emitted
"""

import contextlib
import fcntl
import os
import stat
import time
from typing import NamedTuple

from relay_mp._deliver.liveness import is_dead
from relay_mp._deliver.private_files import is_own_file, open_file
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._threads import nap, sleep
from relay_mp.errors import FileTakenError

__all__ = ["FileLock", "await_orphan", "write_for"]

_ATTEMPTS = 8
"""The lock's file may go, with the writer that has it, between its opening and its locking."""

NOTED_FILES = 8
"""So many of the files that were written under one name are noted: each writer that is killed adds one at most, if
others move it."""


_POLL_SECONDS = 0.05

_Process = tuple[int, int, int]


class _Said(NamedTuple):
    """What a lock's file says."""

    pid: int = 0
    files: tuple[int, ...] = ()
    writer: _Process | None = None
    owner: _Process | None = None

    @classmethod
    def read(cls, file: int) -> "_Said":
        """What can be read of it; it may have been written only in part, or by another version."""
        lines = [line.split() for line in os.pread(file, 4096, 0).split(b"\n")]
        pid, files, processes = ([int(n) for n in line if n.isdigit()] for line in (*lines, [], [], [])[:3])
        said = cls(pid[0] if pid else 0, tuple(files[-NOTED_FILES:]))
        if len(processes) != 6:
            return said
        return said._replace(writer=tuple(processes[:3]), owner=tuple(processes[3:]))  # type: ignore[arg-type]

    def write(self, file: int) -> None:
        processes = (*self.writer, *self.owner) if self.writer and self.owner else ()
        lines = [(self.pid,), self.files, processes]
        text = "".join(f"{' '.join(map(str, line))}\n" for line in lines).encode()
        # In this order: a kill in between loses nothing of what was noted.
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))


_owner: _Process | None = None


def write_for(owner: _Process) -> None:
    """This process is a dispatcher process: what it writes, it writes for the owner of its session."""
    global _owner
    _owner = owner


def await_orphan(path: str, seconds: float) -> None:
    """Waits until no dispatcher process writes the file whose session's owner has died, `seconds` at most.

    Says once that it waits. Returns at once where anybody else writes it, or nobody.
    """
    deadline = time.monotonic() + seconds
    has_said = False
    while time.monotonic() < deadline and (orphan := _orphan(path)):
        if not has_said:
            logger.warning(
                "%s is still written by process %d, the dispatcher of a program that has been killed; waiting for its "
                "end, %g s at most",
                *(path, orphan, seconds),
            )
            has_said = True
        if not nap(_POLL_SECONDS):
            sleep(_POLL_SECONDS)


def _orphan(path: str) -> int:
    """The pid of the dispatcher process that writes the file though its session's owner has died; else 0."""
    path_of_lock, is_apart = _place_of(path)
    try:
        if not is_apart or not is_own_file(path_of_lock):
            return 0
        file = os.open(path_of_lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            said = _Said.read(file)
        finally:
            os.close(file)
    except OSError:
        return 0
    if said.writer is None or said.owner is None or is_dead(*said.writer) or not is_dead(*said.owner):
        return 0
    return said.writer[0]


def _place_of(path: str) -> tuple[str, bool]:
    """Which file is locked, and whether it is one beside the path."""
    directory, name = os.path.split(os.path.realpath(path))
    is_apart = os.access(directory, os.W_OK)
    return os.path.join(directory, f".{name}.lock" if is_apart else name), is_apart


class FileLock:
    """The only writer of a file, until `release`.

    Args:
        path: of the file, which need not be there. A link stands for what it leads to.

    Raises:
        FileTakenError: somebody else writes the file.
        PermissionError: others may have a hand in the lock's file.
        OSError: it cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.noted: tuple[int, ...] = ()
        self._path = path
        self._path_of_lock, self._is_apart = _place_of(path)
        for _ in range(_ATTEMPTS):
            self._file = open_file(self._path_of_lock, os.O_RDWR)
            try:
                self._check_it_is_private()
                self._lock()
                if self._is_there():
                    return
            except BaseException:
                self.abandon()
                raise
            self.abandon()
        raise FileExistsError(f"{self._path_of_lock} comes and goes: {_ATTEMPTS} attempts to lock it have failed")

    def _check_it_is_private(self) -> None:
        status = os.fstat(self._file)
        if not self._is_apart:
            return
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(
                f"{self._path_of_lock} is another user's, or of another mode than 0600; expected no such file, or one "
                f"that relay_mp has made: remove it if nobody writes {self._path}"
            )

    def _lock(self) -> None:
        # Not a record lock (lockf): the process would lose it as soon as anything in it closes another descriptor of
        # the lock's file.
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileTakenError(
                f"{self._path} is being written by another process or exporter; give each run a file of its own"
                f"{self._or_wait()}"
            ) from None
        if self._is_apart:
            self.noted = _Said.read(self._file).files
            self._write()

    def _write(self) -> None:
        _Said(os.getpid(), self.noted, core.process_self() if _owner else None, _owner).write(self._file)

    def note(self, inode: int) -> None:
        """The file that is written from now on; kept in the lock's file, so that a successor knows it."""
        if self._is_apart:
            self.noted = (*(other for other in self.noted if other != inode), inode)[-NOTED_FILES:]
            self._write()

    def _or_wait(self) -> str:
        pid = _Said.read(self._file).pid if self._is_apart else 0
        return f", or wait for the end of process {pid}" if pid else ""

    def is_of(self, path: str) -> bool:
        """Whether it is the lock of what has the path now, and others find it."""
        return _place_of(path) == (self._path_of_lock, self._is_apart) and self._is_there()

    def _is_there(self) -> bool:
        """Whether the locked file still has its name: else the writer before has removed it."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path_of_lock))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Gives the lock up, and removes its file. Idempotent."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if self._is_apart and self._is_there():
                    os.unlink(self._path_of_lock)
            # By name, not by the close: a child forked without Python's hooks may still have it open.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self.abandon()

    def abandon(self) -> None:
        """Closes it in this process only, such as a forked child: the lock stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
