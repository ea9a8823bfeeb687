"""Where the line of an event is found again: in its file, or in bounded memory.

A reference is a number: how many bytes of lines came before the line. Any thread.
"""

import os
import tempfile
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO, Protocol

from relay_mp._runs.files import GZIP, STANDARD_INPUT, Lines

__all__ = ["MAX_PAYLOAD_BYTES", "FilePayloads", "KeptPayloads", "Payloads"]

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""Of lines of a living session that are kept; the oldest are given up beyond that."""

CHUNK_BYTES = 1 << 20
LINE_BYTES = 1 << 16


class Payloads(Protocol):
    """Lines by their references."""

    def line(self, reference: int) -> bytes | None:
        """One line; None where it is no longer there."""

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All lines in pieces of about CHUNK_BYTES, whole lines each, with the first one's reference."""

    def close(self) -> None:
        """Gives them up."""


class FilePayloads(Payloads):
    """The lines of files, read when they are asked for. The files stay open: one that is put aside is still read.

    A file that is compressed, or piped in, is written out into a temporary file without a name as it is read.
    """

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._files: list[IO[bytes]] = []

    def add(self, path: str) -> Iterator[bytes]:
        """One more file: its lines, to be read to their end before the next file is added.

        Raises:
            OSError: it cannot be opened or read.
        """
        is_plain = path != STANDARD_INPUT and not _is_packed(path)
        file: IO[bytes] = open(path, "rb") if is_plain else tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
        self._begins.append(self.end)
        self._files.append(file)
        size = os.fstat(file.fileno()).st_size
        return self._plain(file, size) if is_plain else self._copied(Lines(path), file)

    def _plain(self, file: IO[bytes], size: int) -> Iterator[bytes]:
        """What is written into it later is not looked at."""
        with open(os.dup(file.fileno()), "rb") as own:
            for line in own:
                self.end += len(line)
                yield line
                size -= len(line)
                if size <= 0:
                    return

    def _copied(self, lines: Iterable[bytes], file: IO[bytes]) -> Iterator[bytes]:
        for line in lines:
            file.write(line)
            self.end += len(line)
            yield line

    end = 0
    """The reference that the next line gets."""

    def _part(self, reference: int) -> tuple[int, int]:
        part = bisect_right(self._begins, reference) - 1
        return self._files[part].fileno(), reference - self._begins[part]

    def line(self, reference: int) -> bytes | None:
        descriptor, at = self._part(reference)
        pieces = []
        while piece := os.pread(descriptor, LINE_BYTES, at):
            head, newline, _ = piece.partition(b"\n")
            pieces.append(head)
            if newline:
                break
            at += len(piece)
        return b"".join(pieces) or None

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        at, end = 0, self.end
        while at < end:
            descriptor, inside = self._part(at)
            piece = os.pread(descriptor, min(CHUNK_BYTES, end - at), inside)
            if len(piece) == CHUNK_BYTES and not piece.endswith(b"\n"):
                last = piece.rfind(b"\n") + 1
                piece = piece[:last] if last else self.line(at) or b""
            if not piece:
                return
            yield at, piece
            at += len(piece)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _is_packed(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP


class KeptPayloads(Payloads):
    """Lines in memory, the newest `limit_bytes` of them.

    Attributes:
        given_up: how many lines are no longer there.
    """

    def __init__(self, limit_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        if limit_bytes < 1:
            raise ValueError(f"limit_bytes is {limit_bytes}; expected at least 1")
        self._limit = limit_bytes
        self._lines: dict[int, bytes] = {}
        self._order: deque[int] = deque()
        self._lock = threading.Lock()
        self._begun = self._kept = 0
        self.given_up = 0

    def keep(self, line: bytes) -> int:
        """Keeps one line; returns its reference."""
        with self._lock:
            reference = self._begun
            self._begun += len(line)
            self._kept += len(line)
            self._lines[reference] = line
            self._order.append(reference)
            while self._kept > self._limit:
                self._kept -= len(self._lines.pop(self._order.popleft()))
                self.given_up += 1
            return reference

    def line(self, reference: int) -> bytes | None:
        return self._lines.get(reference)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        with self._lock:
            kept = [(reference, self._lines[reference]) for reference in self._order]
        at, size = 0, 0
        piece: list[bytes] = []
        for reference, line in kept:
            at = at if piece else reference
            piece.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                yield at, b"".join(piece)
                piece, size = [], 0
        if piece:
            yield at, b"".join(piece)

    def close(self) -> None:
        with self._lock:
            self._lines.clear()
            self._order.clear()
