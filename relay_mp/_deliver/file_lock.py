"""That a file has one writer: a lock in a private file beside it, for who may read a file may also lock it.

    /data/events.jsonl        the file: of any mode, so that others may read it
    /data/.events.jsonl.lock  mode 0600: only this user can open it, and so lock it; there while somebody writes
        12345                 the pid of the writer
        918 922               the inodes of the files that it has written under this name, the newest last

Where no file can be made beside it, in a directory of somebody else's, the file itself is locked.

A writer that is killed leaves the lock's file: its successor takes the lock, and finds what was written last though
the file may have been moved. A file in which others may write, or of another user, is refused. Any process.
"""

import contextlib
import fcntl
import os
import stat

from relay_mp._deliver.private_files import open_file

__all__ = ["FileLock"]

_ATTEMPTS = 8
"""The lock's file may go, with the writer that has it, between its opening and its locking."""

NOTED_FILES = 8
"""So many of the files that were written under one name are noted: each writer that is killed adds one at most, if
others move it."""


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
        FileExistsError: somebody else writes the file.
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
            raise FileExistsError(
                f"{self._path} is being written by another process or exporter; give each run a file of its own"
                f"{self._or_wait()}"
            ) from None
        if self._is_apart:
            self.noted = self._read()[1]
            self._write()

    def _read(self) -> tuple[int, tuple[int, ...]]:
        """The writer, 0 if it is not known, and its files."""
        pid, files, *_ = *os.pread(self._file, 4096, 0).split(b"\n"), b"", b""
        inodes = [int(inode) for inode in files.split() if inode.isdigit()]
        return int(pid) if pid.isdigit() else 0, tuple(inodes[-NOTED_FILES:])

    def _write(self) -> None:
        said = f"{os.getpid()}\n{' '.join(map(str, self.noted))}\n".encode()
        # In this order: a kill in between loses nothing of what was noted.
        os.pwrite(self._file, said, 0)
        os.ftruncate(self._file, len(said))

    def note(self, inode: int) -> None:
        """The file that is written from now on; kept in the lock's file, so that a successor knows it."""
        if self._is_apart:
            self.noted = (*(other for other in self.noted if other != inode), inode)[-NOTED_FILES:]
            self._write()

    def _or_wait(self) -> str:
        pid = self._read()[0] if self._is_apart else 0
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
