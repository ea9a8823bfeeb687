# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""From events to spans, compiled: what is kept of a scope, when it becomes a span, and with which attributes.

Runs where the dispatcher runs, for every event; `otel_traces` says what becomes of a scope that never ends, and of an
end without a start, and sends what is made here.

    start ──▶ kept (open_scopes.pyx), with its place in the trace (places.pyx)
    mark  ──▶ an event of its parent's span while that is open, else a span of no length
    exception in an end's metadata ──▶ the event `exception` of its span, as OpenTelemetry has it
    end   ──▶ span, its attributes by the projection, encoded by otlp.pyx ──▶ `made`
"""

from itertools import islice

from relay_mp._deliver.open_scopes cimport OpenScopes, OpenStart
from relay_mp._records.records cimport RecordView
from relay_mp.observability.otel.places cimport Place, Traces

from relay_mp.events import KIND_MARK as _KIND_MARK, KIND_START as _KIND_START
from relay_mp.observability.otel.otlp import AttributeNames, SpanWriter
from relay_mp.observability.otel.values import clean
from relay_mp.types import CATEGORIES as _CATEGORIES

MAX_SPAN_EVENT_BYTES = 1 << 20
"""Of the marks that become events of one span; further ones become spans of their own."""

MAX_STATUS_BYTES = 4096

cdef enum:
    INTERNAL = 1  # Span.SpanKind
    CLIENT = 3
    OK = 1  # Status.StatusCode
    ERROR = 2

cdef int KIND_START = _KIND_START, KIND_MARK = _KIND_MARK
cdef dict _STATUSES = {"OK": OK, "ERROR": ERROR}

# What an exception that left a scope has in its end's metadata; the span's event `exception` has the same.
cdef str _EXCEPTION_TYPE = "exception.type"
cdef tuple _EXCEPTION = (_EXCEPTION_TYPE, "exception.message", "exception.stacktrace")

# The conventions' word where an error has no type.
cdef str _NO_TYPE = "_OTHER"

# Which worker a span began in, and where it ended, if that was elsewhere.
cdef object _WORKER = AttributeNames({"pid": "process.pid", "thread_id": "thread.id"})
cdef object _ELSEWHERE = AttributeNames({"pid": "relay_mp.end.process.pid", "thread_id": "relay_mp.end.thread.id"})


cdef class _Open(OpenStart):
    """A scope that has begun."""

    cdef Place place
    cdef object resource
    cdef list events  # those of its marks, encoded
    cdef Py_ssize_t event_bytes, dropped_events


cdef class Spans:
    """Makes spans. One thread at a time.

    Args:
        projection: see FullProjection.
        note_failure: called as note_failure(error, events) where another span than that of the event in hand could not
            be made; so many events are lost with it.
        max_attribute_bytes, max_open_scopes, max_open_bytes, ttl_millis, max_span_events: bounds, see TracesSink.
        event_count_limit: events of a span; further marks are left out. None: `max_span_events` holds.
        limits, event_limits: AttributeLimits of spans and of their events; None: there are none.
        as_tools: whether marks become spans of tools, but for those whose names are in `never_tools`.
        aliases: pairs of an attribute's key and a second one.
        promoted: what keys of metadata begin with that become attributes.
        is_sampled: called with a trace's id, whether it is exported; None: all are.
        resource_of: called with a scope's start, or a mark, that is in no open scope: its resource; None: all have 0.

    Attributes:
        made: what is ready, as items of a queue, whose payloads are (span, resource, how many events are in it). The
            caller empties it.
        ignored: events that nothing is made of, so far.
        over_limit: marks that `event_count_limit` has left out, so far.
        traces: which trace each scope is of.
    """

    cdef object _projection, _note_failure, _is_sampled, _resource_of, _newest_us, _writer
    cdef readonly Traces traces
    cdef OpenScopes _open
    cdef bint _shows_marks, _as_tools
    cdef frozenset _never_tools, _calls
    cdef list _aliases
    cdef tuple _promoted
    cdef Py_ssize_t _max_span_events, _event_count_limit
    cdef readonly list made
    cdef readonly Py_ssize_t ignored, over_limit
    cdef Py_ssize_t _come

    def __init__(
        self, projection, note_failure, *, max_attribute_bytes, max_open_scopes, max_open_bytes, ttl_millis, max_span_events,
        event_count_limit=None, limits=None, event_limits=None, as_tools=False, never_tools=(), aliases=(), promoted=(), is_sampled=None, resource_of=None,
    ) -> None:
        self._projection, self._note_failure = projection, note_failure
        self._is_sampled, self._resource_of = is_sampled, resource_of
        self._writer = SpanWriter(max_attribute_bytes, limits, event_limits)
        self.traces = Traces(max_open_scopes, ttl_millis)
        self._open = OpenScopes(max_open_scopes, self._make_unfinished, max_open_bytes)
        self._shows_marks, self._as_tools = projection.shows_marks, as_tools
        self._never_tools, self._calls = frozenset(never_tools), projection.calls
        self._aliases, self._promoted = list(aliases), tuple(promoted)
        self._max_span_events = max_span_events
        self._event_count_limit = -1 if event_count_limit is None else event_count_limit
        self._newest_us = 0
        self.made = []

    # ---- events ----

    def take(self, list events not None, Py_ssize_t before) -> tuple:
        """Events in the order of the stream, before which so many have come.

        Returns:
            How many were taken, and what the next one failed with, if it did: that is not to be given again.
        """
        for self._come, event in enumerate(events, before + 1):
            try:
                self._take(event)
            except Exception as error:
                return self._come - before - 1, error
        return len(events), None

    cdef int _take(self, RecordView event) except -1:
        at_us, kind = event._read_field(3), event._read_field(0)
        if at_us > self._newest_us:
            self._newest_us = at_us
        if kind == KIND_START:
            return self._begin(event)
        return self._mark(event, at_us) if kind == KIND_MARK else self._end(event, at_us)

    def finish(self, Py_ssize_t limit) -> bool:
        """No more come: makes of up to so many scopes that are open what they are, inner before outer. False: there is
        none left."""
        for kept in islice(self._open.drain(), limit):
            self._make_unfinished(kept)
        return len(self._open) > 0

    def complete(self, report) -> None:
        """Adds its counts to a report."""
        self._open.complete(report)

    cdef int _begin(self, RecordView start) except -1:
        cdef _Open kept
        cdef Place place = self.traces.begin(start)
        if self._is_left_out(place.trace):
            return 0
        kept = _Open.__new__(_Open)
        kept._hold(start)
        kept.place, kept.resource = place, self._resource(start)
        self._open.begin(kept)
        return 0

    cdef int _end(self, RecordView end, at_us) except -1:
        cdef bytes uuid = end._read_field(1)
        trace = self.traces.end(uuid, at_us)
        if self._is_sampled is not None and self._is_left_out(trace or self.traces.place(end).trace):
            return 0
        cdef _Open kept = self._open.end(uuid)
        if kept is not None:
            return self._end_open(kept, end, at_us)
        cdef Place place = self.traces.place(end)
        span = self._describe(end, None, end, place, at_us, at_us, None, 0, "relay_mp.orphan")
        return self._add(span, self._resource(end), 1)

    cdef int _end_open(self, _Open kept, RecordView end, at_us) except -1:
        try:
            return self._make_scope(kept, end, at_us, None)
        except Exception as error:
            # The end is in hand; what was kept is not given to anybody again.
            self._note_failure(error, 1 + _count(kept.events))
            raise

    cdef int _mark(self, RecordView mark, at_us) except -1:
        cdef Place place = self.traces.place(mark)
        if not self._shows_marks:
            self.ignored += 1
            return 0
        if self._is_left_out(place.trace):
            return 0
        cdef _Open kept = self._open.get(mark._read_field(2))
        cdef bint as_tool = self._as_tools and mark.name not in self._never_tools
        if kept is not None and not as_tool and self._is_over_limit(_count(kept.events)):
            kept.dropped_events += 1
            self.over_limit += 1
            return 0
        if kept is None or as_tool or not self._has_room(kept):
            return self._add(self._mark_span(mark, place, at_us, as_tool, kept is None), self._resource(mark), 1)
        event = self._mark_event(mark, at_us)
        if kept.events is None:
            kept.events = []
        kept.events.append(event)
        kept.event_bytes += len(event)
        self._open.grow(kept, len(event))
        return 0

    cdef bint _is_over_limit(self, Py_ssize_t events) noexcept:
        return 0 <= self._event_count_limit <= events

    cdef bint _has_room(self, _Open kept) except -1:
        if self._event_count_limit < 0 and _count(kept.events) >= self._max_span_events:
            return False
        return kept.event_bytes < MAX_SPAN_EVENT_BYTES

    cdef bint _is_left_out(self, trace) except -1:
        """Whether that trace is not exported; then the event is counted."""
        if self._is_sampled is None or self._is_sampled(trace):
            return False
        self.ignored += 1
        return True

    cdef object _resource(self, RecordView event):
        """That of the outermost scope."""
        if self._resource_of is None:
            return 0
        cdef _Open parent = self._open.get(event._read_field(2))
        return self._resource_of(event) if parent is None else parent.resource

    # ---- spans ----

    cdef int _add(self, bytes span, resource, Py_ssize_t events) except -1:
        self.made.append(((span, resource, events), events, len(span), self._come - events))
        return 0

    cdef int _make_scope(self, _Open kept, RecordView end, end_us, str note) except -1:
        start = kept.start
        at_us, dropped = start._read_field(3), kept.dropped_events
        span = self._describe(start, start, end, kept.place, at_us, end_us, kept.events, dropped, note)
        return self._add(span, kept.resource, 1 + _count(kept.events) + (end is not None))

    def _make_unfinished(self, _Open kept not None) -> None:
        start_us = kept.start._read_field(3)
        self.traces.end(kept.uuid, self._newest_us)
        try:
            self._make_scope(kept, None, max(self._newest_us, start_us), "relay_mp.unfinished")
        except Exception as error:  # it is another event that is in hand
            self._note_failure(error, 1 + _count(kept.events))

    cdef bytes _describe(
        self, RecordView event, RecordView start, RecordView end, Place place, start_us, end_us, list events,
        Py_ssize_t dropped_events, str note,
    ):
        """A scope's span, from what is known of it: one of the two events, or both."""
        span, projection = self._writer, self._projection
        cdef dict metadata = _metadata(end)
        cdef dict exception = _exception(metadata)
        cdef tuple status = _status(metadata)
        if exception is not None:
            if self._is_over_limit(_count(events)):
                dropped_events += 1
            else:
                span.event("exception", end_us)
                span.update(exception)
                events = [*(events or ()), span.finish()]
        span.span(event, place, projection.name(event), self._kind(event), start_us, end_us)
        projection.write(span, start, end)
        if status is not None and status[0] == ERROR and projection.names_errors:
            span.update({"error.type": _NO_TYPE if exception is None else exception[_EXCEPTION_TYPE]})
        if start is not None and end is not None:
            if start.pid != end.pid or start._read_field(7) != end._read_field(7):
                span.add(_ELSEWHERE, end)
        if note is not None:
            span.update({note: True})
        span.add(_WORKER, event)
        self._complete(start, end)
        return span.finish(events, status, dropped_events)

    cdef int _kind(self, RecordView event) except -1:
        category = event._read_field(5)
        if type(category) is int:
            category = _CATEGORIES[category] if 0 <= category < len(_CATEGORIES) else None
        return CLIENT if category in self._calls else INTERNAL

    cdef bytes _mark_event(self, RecordView mark, at_us):
        """A mark as an event of a span."""
        self._writer.event(mark.name, at_us)
        self._projection.write_mark(self._writer, mark)
        self._complete(mark, None)
        return self._writer.finish()

    cdef bytes _mark_span(self, RecordView mark, Place place, at_us, bint as_tool, bint is_orphan):
        """A mark on its own: of no length."""
        span = self._writer
        span.span(mark, place, f"mark:{mark.name}", INTERNAL, at_us, at_us)
        self._projection.write_mark(span, mark)
        self._projection.write_mark_span(span, mark, as_tool=as_tool)
        if is_orphan:
            span.update({"relay_mp.mark.orphan": True})
        span.add(_WORKER, mark)
        self._complete(mark, None)
        return span.finish()

    cdef int _complete(self, RecordView first, RecordView second) except -1:
        """Adds second names, and what is promoted."""
        for key, alias in self._aliases:
            self._writer.copy(key, alias)
        if self._promoted:
            for event in (first, second):
                for key, value in promoted_of(event, self._promoted).items():
                    self._writer.set(key, value)
        return 0


cdef Py_ssize_t _count(list events):
    return 0 if events is None else len(events)


cdef dict _metadata(RecordView end):
    """That of an end, if it is an object."""
    metadata = end.metadata if end is not None else None
    return metadata if isinstance(metadata, dict) else None


cdef dict _exception(dict metadata):
    """What an end says of the exception that left the scope; None: there was none."""
    if metadata is None or not isinstance(metadata.get(_EXCEPTION_TYPE), str):
        return None
    return {key: metadata[key] for key in _EXCEPTION if isinstance(metadata.get(key), str)}


cdef tuple _status(dict metadata):
    if metadata is None:
        return None
    code = _STATUSES.get(str(metadata.get("otel.status_code")), 0)
    description = metadata.get("otel.status_description")
    if code == ERROR and isinstance(description, str):
        return code, clean(description, MAX_STATUS_BYTES)
    return code, ""


def promoted_of(RecordView event, tuple prefixes) -> dict:
    """An event's metadata whose keys begin so, where they are plain values; empty where there is no event."""
    metadata = event.metadata if event is not None else None
    if not isinstance(metadata, dict):
        return {}
    return {
        key: value
        for key, value in metadata.items()
        if isinstance(key, str) and key.startswith(prefixes) and isinstance(value, (str, int, float))
    }
