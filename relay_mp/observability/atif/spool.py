"""Events of a dispatcher process for a reader in another: their records, in a file, each as a msgpack bin.

    event ──▶ Spool ──▶ file ──▶ read_records, in the process that asks

A record is with the kernel before its event counts as delivered. Several go with one write: those of a dispatcher that
is killed may be delivered again by its successor, which finds them at the file's end, and does not write them twice.
"""

import os
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver.dispatcher import RUN_EVENTS
from relay_mp.events import Event

__all__ = ["Spool", "read_records"]


class Spool:
    """Appends each event's record to a file.

    Args:
        path: a file that is there already. If it ends in a part of a record, whose writer was killed, that is cut off.

    Raises:
        OSError: the file is gone. When called: there is no room; what was written in part is taken back.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._end = 0
        last: deque[bytes] = deque(maxlen=RUN_EVENTS)
        with open(path, "rb") as file:
            for record, end in _whole_records(file, 0):
                last.append(record)
                self._end = end
        os.ftruncate(self._file, self._end)
        self._written_before = set(last)

    def __call__(self, event: Event) -> None:
        """One event, in the order of the stream."""
        if event._record not in self._written_before:
            self._write([event])

    def take_batch(self, events: list[Event]) -> int:
        """All of them with one write, or none. What a dispatcher that died has written ahead comes by calls first."""
        self._written_before.clear()
        try:
            self._write(events)
        except OSError:
            return 0  # the call says what is wrong
        return len(events)

    def _write(self, events: list[Event]) -> None:
        block = b"".join([msgpack.packb(event._record) for event in events])
        written = os.write(self._file, block)
        if written != len(block):
            os.ftruncate(self._file, self._end)
            raise OSError(f"{self._path}: no room for {len(block)} bytes of {len(events)} events")
        self._end += written

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


def read_records(file: BinaryIO, start: int) -> tuple[list[bytes], int]:
    """The whole records from a place in a spool on, and the place behind them."""
    records, behind = [], start
    for record, end in _whole_records(file, start):
        records.append(record)
        behind = end
    return records, behind


def _whole_records(file: BinaryIO, start: int) -> Iterator[tuple[bytes, int]]:
    """Each with the place behind it. A record that is being written just now, or was cut short, does not count yet."""
    file.seek(start)
    unpacker = msgpack.Unpacker(file, max_buffer_size=0)
    for record in unpacker:
        yield record, start + unpacker.tell()
