"""ATOF as JSON lines in a file: one event a line, whole or not at all.

Runs where the dispatcher runs. A line is with the kernel before its event counts as delivered, so that a dispatcher
that is killed loses none of what it has passed. Several lines may go with one write. Then the file of a dispatcher
that is killed ends with lines of events that its successor delivers: those are found there, and not written again.
Also if somebody has moved the file meanwhile, within its directory: the lock's file says which one it was.
"""

import json
import os

from relay_mp._deliver.locked_file import LockedFile
from relay_mp._log import logger

_LINE_START = b'{"atof_version"'


MAX_WRITE_BYTES = 256 * 1024
"""Of the lines that go with one write, if they are more than one. So much of what was written last is looked at."""

LOOKED_FOR_LINES = 256
"""So many of the first lines are looked for at the file's end: more than a dispatcher writes ahead."""


class JsonlFile(LockedFile):
    """Appends events' lines to a file.

    Args:
        path: the file; made with its directory.
        overwrite: empties a file that is there.

    Raises:
        OSError: it cannot be opened, somebody else is writing to it, it ends in what is not an event, or a
            write failed. A line that was written in part is taken back.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        super().__init__(path)
        self.lines = 0
        self._tail: bytes | None = None  # of what was written last, before this writer; None: not read
        self._found_bytes = 0
        self._looks_left = LOOKED_FOR_LINES
        self._begin(overwrite)

    def append(self, line: bytes, *other_forms: bytes) -> None:
        """Appends an event's line, unless it is there, in this form or in another."""
        if not self.has(line, *other_forms):
            self.write(line, 1)

    def has(self, *forms: bytes) -> bool:
        """Whether the next line is in the file, written by a dispatcher that died before it could say so; it counts.

        Args:
            forms: the line, and others of the same event that the file may have in its place.

        No two events have the same line. What such a dispatcher has not seen, such as the mark of a loss that it is
        itself the cause of, is not among its last lines, and comes behind them.
        """
        if self._file < 0:
            self._begin()
        if not self._looks_left:
            return False
        if self._tail is None:
            self._tail = self._written_last(max(MAX_WRITE_BYTES, *map(len, forms)))
        is_there = any(self._find(line, self._tail) for line in forms)
        self._looks_left -= 1
        if not self._looks_left:
            self.settle()
        return is_there

    def _written_last(self, size_bytes: int) -> bytes:
        """The end of the file, and before it of those that had its name before, of which the lock's file tells."""
        start = max(self._end - size_bytes, 0)
        found = os.pread(self._file, self._end - start, start)
        earlier = () if self._lock is None else self._lock.noted[:-1]
        for inode in reversed(earlier):
            if len(found) >= size_bytes:
                break
            found = end_of_moved(self.path, inode, size_bytes - len(found)) + found
        return found

    def _find(self, line: bytes, tail: bytes) -> bool:
        at = tail.find(line, self._found_bytes)
        if at < 0:
            return False
        self._found_bytes = at + len(line)
        self.lines += 1
        return True

    def settle(self) -> None:
        """No line that is still to come is in the file."""
        self._looks_left, self._tail = 0, b""

    def write(self, block: bytes, lines: int) -> None:
        """Appends so many lines with one write: all of them or none."""
        if self._file < 0:
            self._begin()
        self._append(block, f"{len(block)} bytes in {lines} lines")
        self.lines += lines

    @property
    def size_bytes(self) -> int:
        """How long the file is."""
        return self._end if self._file >= 0 else 0

    @property
    def is_moved(self) -> bool:
        """Whether the open file has another name by now, as after `mv`: it keeps its lines."""
        if self._file < 0:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return True

    def flush(self) -> None:
        """Forces what was written to the disk."""
        if self._file >= 0:
            os.fsync(self._file)

    def begin_anew(self, *, is_removed: bool = False) -> None:
        """Closes the file, of whose name another is made by the next line, with its mode.

        What it has is looked for in it, see `has`, unless it `is_removed`.
        """
        self._close_to_open_anew()
        if is_removed:
            self._tail = b""

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._close()

    def _begin(self, overwrite: bool = False) -> None:
        def begin() -> None:
            if overwrite:
                os.ftruncate(self._file, 0)
            self._end = _end_at_whole_line(self._file, self.path)

        self._open(begin)


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
        raise OSError(f"{path} ends in a line that is not an event: {rest[:40]!r}; give each run a file of its own")
    logger.warning("%s ended in the first %d bytes of an event; they are cut off", path, len(rest))
    os.ftruncate(file, whole)
    return whole


def end_of_moved(path: str, inode: int, size_bytes: int) -> bytes:
    """The last lines of a file that had a path before, and has another name in the same directory; empty: none has.

    It is made to end with a whole line, as the file at the path is.
    """
    directory = os.path.dirname(os.path.realpath(path))
    for entry in os.scandir(directory):
        if entry.inode() == inode and entry.is_file(follow_symlinks=False):
            return _end_of(entry.path, inode, size_bytes)
    return b""


def _end_of(path: str, inode: int, size_bytes: int) -> bytes:
    try:
        # Not blocking: it may have become a pipe since.
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        status = os.fstat(file)
        if status.st_ino != inode or status.st_uid != os.geteuid():
            return b""
        end = _end_at_whole_line(file, path)
        start = max(end - size_bytes, 0)
        return os.pread(file, end - start, start)
    except OSError:
        return b""  # it ends in what is not ours: nothing of ours is looked for
    finally:
        os.close(file)


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
