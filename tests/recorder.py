"""A ring of its own for a test of the emitting half: what was emitted, without a dispatcher.

    def test_x(recorder):
        scope.event("m")
        (mark,) = recorder.events()

Needs nothing above `_emit`: the segment is made current in this process, and read by hand.
"""

import os
import tempfile
from collections.abc import Iterator

import pytest

from relay_mp._native import core
from relay_mp._native.reader import Reader
from relay_mp._native.segments import Segment
from relay_mp.events import Event, decode


class Recorder:
    """The events emitted since the last look. `listen` says who listens; nobody: `listen(0)`."""

    def __init__(self, path: str) -> None:
        self.segment = Segment.create(
            path,
            session_id="recorder",
            ring_bytes=1 << 20,
            max_producers=16,
            max_event_bytes=1 << 17,
            subscriptions_bytes=4096,
            configuration_bytes=4096,
            block_timeout_ns=1_000_000_000,
            stall_timeout_ns=0,
            drop_when_full=False,
            dispatcher_is_process=False,
        )
        self.segment.set_state(core.STATE_OPEN)
        self.listen(1)
        self.segment.make_current()
        self.reader = Reader(self.segment)

    def listen(self, subscribers: int, scope_locals: int = 0) -> None:
        self.segment.set_subscribers(subscribers, scope_locals)

    def events(self) -> list[Event]:
        found: list[Event] = []
        while batch := self.reader.next_batch(256, 0.0):
            for payload, seq, next_position, *_ in batch:
                found.append(decode(payload, seq, os.getpid()))
                self.reader.done(next_position)
            self.reader.end_batch()
        return found

    def close(self) -> None:
        self.segment.unlink()
        self.segment.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(os.path.join(folder, "segment"))
        try:
            yield recorder
        finally:
            recorder.close()
