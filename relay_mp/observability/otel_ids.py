"""Which trace an event is of, and where in it: OpenTelemetry's ids, from Relay's uuids alone.

    span id    the last 8 bytes of a scope's uuid, which are random in a UUIDv7
    trace id   the uuid of the outermost scope around it, or, where that came under a `traceparent` or a
               propagation context that names its root, that trace's id

Nothing is drawn by lot, so that every exporter in every process says the same of an event, and the same
as `capture_traceparent()` says where it was emitted.

What an event's parent is to its trace is remembered while the parent is open, and for a while after it
has ended, for what comes late. A parent that is not known, and is not said to be another program's, is
no parent: a root has no events, and one that began before the exporter was there, or ended too long ago,
would be a span that nobody ever sends. The event then begins a trace of its own. Source of the scheme:
observed in nemo-relay 0.8.4.
"""

from collections import OrderedDict
from typing import NamedTuple

from relay_mp.events import Event

__all__ = ["MAX_ENDED_SCOPES", "Place", "Traces"]

MAX_ENDED_SCOPES = 100_000
"""How many ended scopes are remembered, whatever their age."""


class Place(NamedTuple):
    """Where an event is."""

    trace: bytes
    """16 bytes."""
    parent_span: bytes | None
    """8 bytes; None: it is the outermost of its trace."""
    is_remote: bool
    """Whether the parent is another program's."""


class Traces:
    """The traces of scopes that are open, and of those that ended not long ago. One thread at a time.

    Args:
        max_open_scopes: the oldest is forgotten beyond that.
        ttl_millis: how long an ended one is remembered, by the events' clocks.
    """

    def __init__(self, max_open_scopes: int, ttl_millis: int) -> None:
        self._open: dict[bytes, bytes] = {}
        self._ended: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        self._max_open = max_open_scopes
        self._ttl_us = ttl_millis * 1000

    def place(self, event: Event) -> Place:
        """Where a scope's start, or a mark, is; also an end whose start was not seen."""
        parent = event.packed_parent
        if parent is not None:
            trace = self._open.get(parent) or self._of_ended(parent, event.timestamp_us)
            if trace is not None:
                return Place(trace, parent[8:], False)
            trace = event.remote_trace
            if trace is not None:
                return Place(trace, parent[8:], True)
        return Place(event.packed_uuid, None, False)

    def _of_ended(self, uuid: bytes, now_us: int) -> bytes | None:
        found = self._ended.get(uuid)
        return found[0] if found is not None and now_us - found[1] <= self._ttl_us else None

    def begin(self, event: Event) -> Place:
        """A scope begins: where it is, which is remembered."""
        place = self.place(event)
        self._open[event.packed_uuid] = place.trace
        if len(self._open) > self._max_open:
            self.end(next(iter(self._open)), event.timestamp_us)
        return place

    def end(self, uuid: bytes, now_us: int) -> bytes | None:
        """A scope has ended, or is given up: its trace, None if it was not open."""
        trace = self._open.pop(uuid, None)
        if trace is None or not self._ttl_us:
            return trace
        self._ended[uuid] = (trace, now_us)
        while self._ended:
            oldest = next(iter(self._ended))
            if len(self._ended) <= MAX_ENDED_SCOPES and now_us - self._ended[oldest][1] <= self._ttl_us:
                break
            del self._ended[oldest]
        return trace
