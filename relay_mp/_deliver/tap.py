"""The subscriber of who watches from outside: it hands each event on, as it is in the ring, and never waits.

    dispatcher ─▶ Tap.take_batch ─▶ a frame of records (batches.pyx) ─▶ Outflow ─▶ Unix socket ─▶ relay_mp.watch
                               └ does not fit: counted, and told once there is room again

A named subscriber that ships with the package; `relay_mp.watch` registers it by a request, as a worker registers one. A
batch costs the dispatcher one copy and one send, whoever reads it, and a count where it does not fit. Runs where the
dispatcher runs.
"""

from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._deliver.frames import END, EVENTS, HELLO, MISSED, SNAPSHOT, Missed, Opened
from relay_mp._deliver.local_socket import connect
from relay_mp._deliver.outflow import Outflow
from relay_mp._records import batches

__all__ = ["CLOSE_SECONDS", "SNAPSHOT_EVENTS", "TARGET", "Tap"]

TARGET = f"{__name__}:Tap"

CLOSE_SECONDS = 0.5
"""How long a session that closes waits for a viewer that has not read all."""

SNAPSHOT_EVENTS = 256
"""Of a snapshot in one frame."""


class Tap:
    """Hands events on to one viewer.

    Args:
        path: the socket on which it listens.
        buffer_bytes: how much may wait for it, beyond what the system has room for. The snapshot does not count.

    Raises:
        OSError: it does not listen, or is not this user's.
    """

    def __init__(self, path: str, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._missed, self._last_missed = 0, (0, 0)
        self._close_seconds = 0.0
        self._out = Outflow(connect(path))

    def begin(self, opened: Opened) -> None:
        """The first that it sends: what was open before the events that follow."""
        hello = [opened.since_us, opened.given_up, opened.delivered]
        self._out.send(batches.frame(HELLO, msgpack.packb(hello)), is_counted=False)
        for start in range(0, len(opened.starts) + SNAPSHOT_EVENTS, SNAPSHOT_EVENTS):
            starts = opened.starts[start : start + SNAPSHOT_EVENTS]
            if starts or start >= len(opened.starts):
                self._out.send(batches.pack(SNAPSHOT, starts), is_counted=False)

    def take_batch(self, events: list[Any]) -> int:
        """Sends them, or counts them as missed. Always takes all."""
        if self._out.is_gone:
            pass
        elif self._has_room(events):
            self._tell_missed()
            self._out.send(batches.pack(EVENTS, events))
        else:
            self._missed += len(events)
            self._last_missed = events[-1].seq, events[-1].timestamp_us
        return len(events)

    def __call__(self, event: Any) -> None:
        """One event, where they are not delivered in batches."""
        self.take_batch([event])

    def _has_room(self, events: list[Any]) -> bool:
        waiting = self._out.waiting_bytes
        if self._missed and waiting > self._buffer_bytes // 2:
            return False  # so that a slow viewer has few gaps rather than many
        return not waiting or waiting + batches.size_of(events) <= self._buffer_bytes

    def _tell_missed(self) -> None:
        if self._missed:
            missed, self._missed = Missed(self._missed, *self._last_missed), 0
            self._out.send(batches.frame(MISSED, msgpack.packb(missed)), is_counted=False)

    def check(self) -> bool:
        """Between events: tells what was missed if there is room by now. Whether the viewer is still there."""
        if not self._out.has_reader():
            return False
        if self._missed and self._out.waiting_bytes <= self._buffer_bytes // 2:
            self._tell_missed()
        return True

    def end_stream(self) -> None:
        """The session has ended, and with it the stream."""
        self._close_seconds = CLOSE_SECONDS
        self._tell_missed()
        self._out.send(batches.frame(END, b""), is_counted=False)

    def close(self) -> None:
        """The end of the connection. Waits only where the session has ended, and no longer than CLOSE_SECONDS."""
        self._out.close(self._close_seconds)
