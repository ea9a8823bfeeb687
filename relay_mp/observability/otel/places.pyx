# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Which trace an event is of, compiled: where each scope is that is open, or ended not long ago.

Runs where the dispatcher runs, for every event. All is kept by uuid, so that agents of many processes may interleave in
any way, and all has a bound. One thread at a time.

OpenTelemetry's ids come from Relay's uuids alone:

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

from relay_mp._records.records cimport RecordView

MAX_ENDED_SCOPES = 100_000
"""How many ended scopes are remembered, whatever their age."""


cdef class Place:
    """Where an event is.

    Attributes:
        trace: 16 bytes.
        parent_span: 8 bytes; None: it is the outermost of its trace.
        is_remote: whether the parent is another program's.
    """

    def __init__(self, bytes trace not None, bytes parent_span=None, bint is_remote=False) -> None:
        self.trace, self.parent_span, self.is_remote = trace, parent_span, is_remote


cdef Place _place(bytes trace, bytes parent, bint is_remote):
    cdef Place made = Place.__new__(Place)
    made.trace, made.parent_span, made.is_remote = trace, None if parent is None else parent[8:], is_remote
    return made


cdef class Traces:
    """The traces of scopes that are open, and of those that ended not long ago.

    Args:
        max_open_scopes: the oldest is forgotten beyond that.
        ttl_millis: how long an ended one is remembered, by the events' clocks.
    """

    def __init__(self, Py_ssize_t max_open_scopes, ttl_millis) -> None:
        self._open = {}
        self._ended = OrderedDict()
        self._max_open = max_open_scopes
        self._ttl_us = ttl_millis * 1000
        self._oldest_us = 0

    cpdef Place place(self, RecordView event):
        """Where a scope's start, or a mark, is; also an end whose start was not seen."""
        cdef bytes parent = event._read_field(2), trace
        if parent is not None:
            trace = self._open.get(parent)
            if trace is None:
                trace = self._of_ended(parent, event._read_field(3))
            if trace is not None:
                return _place(trace, parent, False)
            trace = event.remote_trace
            if trace is not None:
                return _place(trace, parent, True)
        return _place(event._read_field(1), None, False)

    cdef object _of_ended(self, bytes uuid, now_us):
        found = self._ended.get(uuid)
        return found[0] if found is not None and now_us - found[1] <= self._ttl_us else None

    cpdef Place begin(self, RecordView event):
        """A scope begins: where it is, which is remembered."""
        cdef Place place = self.place(event)
        self._open[event._read_field(1)] = place.trace
        if len(self._open) > self._max_open:
            self.end(next(iter(self._open)), event._read_field(3))
        return place

    cpdef object end(self, bytes uuid, now_us):
        """A scope has ended, or is given up: its trace, None if it was not open."""
        trace = self._open.pop(uuid, None)
        if trace is None or not self._ttl_us:
            return trace
        self._ended[uuid] = (trace, now_us)
        if len(self._ended) > MAX_ENDED_SCOPES or now_us - self._oldest_us > self._ttl_us:
            self._forget(now_us)
        return trace

    cdef int _forget(self, now_us) except -1:
        """Those that ended too long ago, or are too many."""
        while self._ended:
            oldest = next(iter(self._ended))
            self._oldest_us = self._ended[oldest][1]
            if len(self._ended) <= MAX_ENDED_SCOPES and now_us - self._oldest_us <= self._ttl_us:
                break
            del self._ended[oldest]
        return 0
