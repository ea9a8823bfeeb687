"""Which files a recorded run is in, and their lines.

A file that was put aside by rotation (`events-<session id>.0001.jsonl`, ...) belongs to the file that is written now
(`events.jsonl`) and comes before it. Files may be compressed with gzip, as logrotate leaves them: their first bytes
tell, whatever they are called.
"""

import gzip
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence

STANDARD_INPUT = "-"
"""The name that stands for what is piped in."""

GZIP = b"\x1f\x8b"
"""What a compressed file begins with."""


def rotated_before(path: str) -> list[str]:
    """The files that were put aside before this one, the oldest first; those of one session stand together."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    pattern = re.compile(rf"{re.escape(stem)}(?P<session>(-[0-9a-f-]+)?)\.(?P<number>\d{{4,}}){re.escape(suffix)}")
    directory = os.path.dirname(path) or "."
    sessions: dict[str, list[tuple[int, str]]] = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if found := pattern.fullmatch(name):
            full = os.path.join(directory, name) if os.path.dirname(path) else name
            sessions.setdefault(found["session"], []).append((int(found["number"]), full))
    ordered = [sorted(files) for files in sessions.values()]
    ordered.sort(key=lambda files: os.stat(files[0][1]).st_mtime_ns)
    return [file for files in ordered for _, file in files]


def whole_set(paths: Sequence[str]) -> list[str]:
    """The files with what was put aside before each; a file that is named twice is there once."""
    found: dict[str, str] = {}
    for path in paths:
        for each in [path] if path == STANDARD_INPUT else [*rotated_before(path), path]:
            found.setdefault(os.path.realpath(each), each)
    return list(found.values())


def size_bytes(paths: Sequence[str]) -> int | None:
    """How much there is to read; None where something is piped in."""
    if STANDARD_INPUT in paths:
        return None
    return sum(os.stat(path).st_size for path in paths)


class Lines:
    """The lines of a file, as bytes.

    Args:
        path: the file, or "-".

    Raises:
        OSError: it cannot be opened or read; one that is cut off in mid-gzip gives the lines before that, see
            `is_cut_off`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_cut_off = False
        self._file: io.BufferedReader | None = None

    def __iter__(self) -> Iterator[bytes]:
        with open(sys.stdin.fileno() if self.path == STANDARD_INPUT else self.path, "rb") as file:
            self._file = file
            is_packed = file.peek(2)[:2] == GZIP
            try:
                yield from gzip.GzipFile(fileobj=file) if is_packed else file
            except EOFError:
                self.is_cut_off = True

    def bytes_read(self) -> int:
        """How much of the file was read so far, of one that is compressed as it is on the disk."""
        try:
            return self._file.tell() if self._file is not None else 0
        except (OSError, ValueError):  # a pipe; closed
            return 0
