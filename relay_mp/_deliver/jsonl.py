"""ATOF as JSON lines in a file: one event a line, whole or not at all.

Runs where the dispatcher runs. A line is with the kernel before its event counts as delivered, so that a dispatcher
that is killed loses none of what it has passed. Several lines may go with one write. Then the file of a dispatcher
that is killed ends with lines of events that are delivered again: those are found there, and not written twice.
"""

import fcntl
import json
import logging
import os
import weakref
from typing import Protocol

logger = logging.getLogger("relay_mp")

_LINE_START = b'{"atof_version"'


MAX_WRITE_BYTES = 256 * 1024
"""Of the lines that go with one write, if they are more than one; so much of a file's end is looked at."""


class _Event(Protocol):
    def to_json_line(self) -> bytes: ...


class JsonlFile:
    """Appends events to a file. Callable, as a subscriber is.

    Args:
        path: the file; made with its directory at the first event if `lazily`, else now.
        overwrite: empties a file that is there.

    Raises:
        OSError: it cannot be opened, somebody else is writing to it, it ends in what is no event, or a
            write failed. A line that was written in part is taken back.
    """

    def __init__(self, path: str, *, overwrite: bool = False, lazily: bool = False) -> None:
        self.path = path
        self.lines = 0
        self._file = -1
        self._unclaimed: bytes | None = None  # the file's last lines, whose events are still to come; None: not known
        if not lazily:
            self._open(overwrite)

    def __call__(self, event: _Event) -> None:
        """Appends an event, unless it is there."""
        line = event.to_json_line()
        if not self.has(line):
            self.write([line])

    def has(self, line: bytes) -> bool:
        """Whether the next line is in the file: written by a dispatcher that died before it could say so.

        Such lines are the file's last ones, in the order of the stream. If what is behind the one before this is
        not this, as after a loss that was found since, it is cut off: its events are delivered again.
        """
        if self._file < 0:
            self._open(False)
        if self._unclaimed is None:
            self._unclaimed = self._from(line)
        if not self._unclaimed:
            return False
        if self._unclaimed.startswith(line):
            self._unclaimed = self._unclaimed[len(line) :]
            return True
        self._end -= len(self._unclaimed)
        self._unclaimed = b""
        os.ftruncate(self._file, self._end)
        return False

    def write(self, lines: list[bytes]) -> None:
        """Appends lines that the file does not have, with one write: all of them or none."""
        if self._file < 0:
            self._open(False)
        self._unclaimed = b""
        block = b"".join(lines)
        written = os.write(self._file, block)
        if written != len(block):
            os.ftruncate(self._file, self._end)
            raise OSError(f"{self.path}: no room for {len(block)} bytes, {len(lines)} lines; they were not written")
        self._end += written
        self.lines += len(lines)

    @property
    def is_settled(self) -> bool:
        """Whether the next line is certainly not in the file."""
        return self._unclaimed == b""

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._end if self._file >= 0 else 0

    @property
    def is_removed(self) -> bool:
        """Whether the open file has no name any more: what is written to it is gone when it is closed."""
        return self._file >= 0 and os.fstat(self._file).st_nlink == 0

    def flush(self) -> None:
        """Forces what was written to the disk."""
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file >= 0:
            # By name, not by the close: a child forked without Python's hooks may still have it open.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._abandon()

    def _abandon(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _from(self, line: bytes) -> bytes:
        """The end of the file from a line on; empty if that is not there. No two events have the same line."""
        start = max(self._end - max(MAX_WRITE_BYTES, len(line)), 0)
        found = os.pread(self._file, self._end - start, start)
        at = found.rfind(line)
        return found[at:] if at >= 0 else b""

    def _open(self, overwrite: bool) -> None:
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock(file)
            if overwrite:
                os.ftruncate(file, 0)
            self._end = _end_at_whole_line(file, self.path)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        _open_files.add(self)

    def _lock(self, file: int) -> None:
        # Not a record lock (lockf): the process would lose it as soon as anything in it, such as a reader
        # of the very file, closes another descriptor of the file.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"{self.path} is being written by another process or exporter; give each run a file of its own"
            ) from None


_open_files: "weakref.WeakSet[JsonlFile]" = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child writes no file of its parent's, and does not hold its lock either."""
    for file in list(_open_files):
        file._abandon()


os.register_at_fork(after_in_child=_close_in_child)


def _end_at_whole_line(file: int, path: str) -> int:
    """Makes the file end with a whole line, and returns where that is.

    A writer that was killed in mid-line left a part of an event, which is cut off. A whole event that
    lacks only its line break gets it. Anything else is not ours to touch.
    """
    end = os.fstat(file).st_size
    whole = last_line_break(file, end)
    rest = os.pread(file, end - whole, whole)
    if not rest:
        return end
    if _is_json(rest):
        os.write(file, b"\n")
        return end + 1
    if rest[: len(_LINE_START)] != _LINE_START[: len(rest)]:
        raise OSError(f"{path} ends in a line that is no event: {rest[:40]!r}; give each run a file of its own")
    logger.warning("%s ended in the first %d bytes of an event; they are cut off", path, len(rest))
    os.ftruncate(file, whole)
    return whole


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def last_line_break(file: int, end: int) -> int:
    """Where the last whole line of the first `end` bytes ends."""
    while end:
        start = max(end - 65536, 0)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
