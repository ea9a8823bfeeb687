"""ATOF as JSON lines in a file: one event a line, whole or not at all.

Runs where the dispatcher runs. A line goes to the kernel with one write before the next event is
looked at, so that a dispatcher that is killed loses none of what it has passed.
"""

import fcntl
import os
from typing import Protocol


class _HasJson(Protocol):
    def to_json(self) -> str: ...


class JsonlFile:
    """Appends events to a file. Callable, as a subscriber is.

    Args:
        path: the file; made with its directory at the first event if `lazily`, else now.

    Raises:
        OSError: it cannot be opened, another process is writing to it, or a write failed. A line that
            was written in part is taken back.
    """

    def __init__(self, path: str, *, overwrite: bool = False, lazily: bool = False) -> None:
        self.path = path
        self.lines = 0
        self._file = -1
        if not lazily:
            self._open(overwrite)

    def __call__(self, event: _HasJson) -> None:
        if self._file < 0:
            self._open(False)
        line = (event.to_json() + "\n").encode("utf-8", "surrogatepass")
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._end)
            raise OSError(f"{self.path}: no room for a line of {len(line)} bytes; it was not written")
        self._end += written
        self.lines += 1

    def flush(self) -> None:
        """Forces what was written to the disk."""
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self, overwrite: bool) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock(file)
            if overwrite:
                os.ftruncate(file, 0)
            self._end = _whole_lines(file)
            os.ftruncate(file, self._end)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _lock(self, file: int) -> None:
        # A record lock is the process's own: forked workers that inherit the descriptor do not hold it.
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileExistsError(
                f"{self.path} is being written by another process; give each run a file of its own"
            ) from None


def _whole_lines(file: int) -> int:
    """Where the last whole line ends: a writer killed in mid-line left the rest."""
    end = os.fstat(file).st_size
    while end:
        start = max(end - 65536, 0)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
