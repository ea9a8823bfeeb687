"""Traces where the dispatcher runs: a span for each scope, made when it ends, sent by the outbox.

    start ──▶ kept, with its place in the trace (otel_ids.py)
    mark  ──▶ an event of its parent's span while that is open, else a span of no length
    end   ──▶ span, its attributes by the projection, encoded by _otlp.pyx ──▶ Outbox ──▶ ExportTraceServiceRequest

All state is kept by uuid, so that agents of many processes may interleave in any way. A scope that never
ends is sent when the exporter is, as it stands, with `relay_mp.unfinished`; an end without a start at
once, with `relay_mp.orphan`, as a span of no length where the end was. A full queue drops spans, and
counts their events.

Each span says which process and thread began it (`process.pid`, `thread.id`), and also where it ended, if
that was elsewhere.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

try:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp._deliver.dispatcher import logger
from relay_mp._deliver.reports import ExporterReport
from relay_mp.events import Event, MarkEvent, ScopeEvent
from relay_mp.observability._otlp import AttributeNames, SpanWriter
from relay_mp.observability.otel_full import INTERNAL, FullProjection
from relay_mp.observability.otel_gen_ai import GenAiProjection
from relay_mp.observability.otel_ids import Place, Traces
from relay_mp.observability.otel_transport import (
    attempt_limits,
    connect,
    encode_origin,
    frame,
    is_disabled,
    make_resource,
)
from relay_mp.observability.otel_values import clean
from relay_mp.observability.outbox import Outbox, QueuedSink
from relay_mp.observability.sink import OpenScopes

__all__ = ["TracesSink"]

MAX_SPAN_EVENTS = 1000
"""Marks that become events of one span; further ones become spans of their own."""

MAX_SPAN_EVENT_BYTES = 1 << 20
"""The same in bytes."""

MAX_RESOURCES = 1000
"""Resources that differ by promoted metadata; further ones lose what is promoted."""

MAX_BATCH_BYTES = 3 << 20
"""Receivers of gRPC mostly take no more than 4 MiB."""

MAX_STATUS_BYTES = 4096

DROP_REJECTED = "rejected"

_STATUSES = {"OK": 1, "ERROR": 2}

_WORKER = AttributeNames({"pid": "process.pid", "thread_id": "thread.id"})
_ELSEWHERE = AttributeNames({"pid": "relay_mp.end.process.pid", "thread_id": "relay_mp.end.thread.id"})
"""Which worker a span began in, and where it ended, if that was elsewhere."""


class _Open:
    """A scope that has begun."""

    __slots__ = ("event_bytes", "events", "place", "resource", "start")

    def __init__(self, start: ScopeEvent, place: Place, resource: int) -> None:
        self.start = start
        self.place = place
        self.resource = resource
        self.events: list[bytes] = []
        self.event_bytes = 0


class TracesSink(QueuedSink):
    """See OpenTelemetryConfig.

    Args:
        connection: see OtlpConfig.connection.
        projection: "full", "gen_ai" or "openinference".
        mark_projection, mark_exclude_names, attribute_mappings, promote_metadata_prefixes: see there.
        promote_resource_metadata_prefixes, completed_span_context_ttl_millis: see there.
        max_open_scopes, max_attribute_bytes: see there.
        max_span_events: marks that become events of one span; further ones become spans.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the endpoint is no address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be read.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        projection: str,
        *,
        mark_projection: str = "inherit",
        mark_exclude_names: Sequence[str] = ("llm.chunk",),
        attribute_mappings: Sequence[dict[str, str]] = (),
        promote_metadata_prefixes: Sequence[str] = (),
        promote_resource_metadata_prefixes: Sequence[str] = (),
        completed_span_context_ttl_millis: int = 60_000,
        max_open_scopes: int = 1_000_000,
        max_attribute_bytes: int = 2 << 20,
        max_span_events: int = MAX_SPAN_EVENTS,
    ) -> None:
        super().__init__()
        self._projection = make_projection(projection)
        self._marks_as_tools = mark_projection == "tool"
        self._never_tools = frozenset(mark_exclude_names)
        self._aliases = [(m["key"], m["alias"]) for m in attribute_mappings if self._projection.takes_mappings]
        self._promoted = tuple(promote_metadata_prefixes)
        self._promoted_to_resource = tuple(promote_resource_metadata_prefixes)
        self._writer = SpanWriter(max_attribute_bytes)
        self._max_span_events = max_span_events
        self._is_disabled = is_disabled()
        self._is_sampled = make_sampler()
        self._connection = connection
        self._heads = [self._make_head({})]
        self._resources: dict[tuple[tuple[str, Any], ...], int] = {(): 0}
        self._traces = Traces(max_open_scopes, completed_span_context_ttl_millis)
        self._open: OpenScopes[_Open] = OpenScopes(max_open_scopes, self._send_unfinished)
        self._newest_us = 0
        self._transport = connect("traces", connection)
        limits = attempt_limits("traces", connection, max_batch_bytes=MAX_BATCH_BYTES)
        self._outbox = Outbox(self, self._send, limits, ended=self._transport.close, name="relay_mp-otel-traces")

    # ---- events ----

    def _export(self, event: Event) -> None:
        if self._is_disabled:
            self.count_ignored()
            return
        at_us = event.timestamp_us
        self._newest_us = max(self._newest_us, at_us)
        if isinstance(event, MarkEvent):
            self._mark(event)
        elif event.scope_category == "start":
            self._begin(event)
        else:
            self._end(event)

    def _begin(self, start: ScopeEvent) -> None:
        place = self._traces.begin(start)
        if self._is_sampled is not None and not self._is_sampled(place.trace):
            self.count_ignored()
            return
        resource = self._resource_of(start) if self._promoted_to_resource else 0
        self._open.begin(start.packed_uuid, _Open(start, place, resource))

    def _end(self, end: ScopeEvent) -> None:
        uuid = end.packed_uuid
        at_us = end.timestamp_us
        trace = self._traces.end(uuid, at_us)
        if self._is_sampled is not None and not self._is_sampled(trace or self._traces.place(end).trace):
            self.count_ignored()
            return
        kept = self._open.end(uuid)
        if kept is not None:
            self._send_scope(kept, end, at_us)
            return
        place = self._traces.place(end)
        span = self._describe(end, None, end, place, at_us, at_us, [], "relay_mp.orphan")
        self._put(span, self._resource_of(end), 1)

    def _mark(self, mark: MarkEvent) -> None:
        place = self._traces.place(mark)
        if not self._projection.shows_marks or self._is_left_out(place.trace):
            self.count_ignored()
            return
        kept = self._open.get(mark.packed_parent)
        as_tool = self._marks_as_tools and mark.name not in self._never_tools
        if kept is None or as_tool or not self._has_room(kept):
            self._put(self._mark_span(mark, place, as_tool=as_tool, is_orphan=kept is None), self._resource_of(mark), 1)
            return
        event = self._mark_event(mark)
        kept.events.append(event)
        kept.event_bytes += len(event)

    def _has_room(self, kept: _Open) -> bool:
        return len(kept.events) < self._max_span_events and kept.event_bytes < MAX_SPAN_EVENT_BYTES

    def _is_left_out(self, trace: bytes) -> bool:
        return self._is_sampled is not None and not self._is_sampled(trace)

    # ---- spans ----

    def _send_scope(self, kept: _Open, end: ScopeEvent | None, end_us: int, note: str | None = None) -> None:
        start = kept.start
        span = self._describe(start, start, end, kept.place, start.timestamp_us, end_us, kept.events, note)
        self._put(span, kept.resource, 1 + len(kept.events) + (end is not None))

    def _send_unfinished(self, kept: _Open) -> None:
        self._traces.end(kept.start.packed_uuid, self._newest_us)
        try:
            self._send_scope(kept, None, max(self._newest_us, kept.start.timestamp_us), "relay_mp.unfinished")
        except Exception as error:  # it is another event that is in hand
            self.count_failure(error)
            self.count_dropped(type(error).__name__, 1 + len(kept.events))

    def _describe(
        self,
        event: ScopeEvent,
        start: ScopeEvent | None,
        end: ScopeEvent | None,
        place: Place,
        start_us: int,
        end_us: int,
        events: list[bytes],
        note: str | None,
    ) -> bytes:
        """A scope's span, from what is known of it: one of the two events, or both."""
        span, projection = self._writer, self._projection
        span.span(event, place, projection.name(event), projection.kind(event), start_us, end_us)
        projection.write(span, start, end)
        if start is not None and end is not None and (start.pid != end.pid or start.thread_id != end.thread_id):
            span.add(_ELSEWHERE, end)
        if note is not None:
            span.update({note: True})
        span.add(_WORKER, event)
        self._complete_attributes(start, end)
        return span.finish(events, _status(end))

    def _mark_event(self, mark: MarkEvent) -> bytes:
        """A mark as an event of a span."""
        self._writer.event(mark.name, mark.timestamp_us)
        self._projection.write_mark(self._writer, mark)
        self._complete_attributes(mark)
        return self._writer.finish()

    def _mark_span(self, mark: MarkEvent, place: Place, *, as_tool: bool, is_orphan: bool) -> bytes:
        """A mark on its own: of no length."""
        span, at_us = self._writer, mark.timestamp_us
        span.span(mark, place, f"mark:{mark.name}", INTERNAL, at_us, at_us)
        self._projection.write_mark(span, mark)
        self._projection.write_mark_span(span, mark, as_tool=as_tool)
        if is_orphan:
            span.update({"relay_mp.mark.orphan": True})
        span.add(_WORKER, mark)
        self._complete_attributes(mark)
        return span.finish()

    def _complete_attributes(self, *events: Event | None) -> None:
        """Adds second names, and what is promoted."""
        for key, alias in self._aliases:
            self._writer.copy(key, alias)
        if self._promoted:
            for event in events:
                for key, value in _promoted(event, self._promoted).items():
                    self._writer.set(key, value)

    # ---- resources and requests ----

    def _resource_of(self, event: Event) -> int:
        """Which of the requests an event's span goes into: that of the outermost scope, by its metadata."""
        if not self._promoted_to_resource:
            return 0
        parent = self._open.get(event.packed_parent)
        if parent is not None:
            return parent.resource
        promoted = tuple(sorted(_promoted(event, self._promoted_to_resource).items()))
        if promoted not in self._resources:
            if len(self._resources) > MAX_RESOURCES:
                return 0
            self._heads.append(self._make_head(dict(promoted)))
            self._resources[promoted] = len(self._heads) - 1
        return self._resources[promoted]

    # A span is encoded once, here, so that the queue holds bytes. Joined behind the encoding of a message without
    # spans they are that message with them: protobuf's fields may come in any order, one by one.

    def _make_head(self, more: dict[str, Any]) -> tuple[bytes, bytes]:
        """What precedes spans in a request, encoded: of the resource, and of the instrumentation scope."""
        resource, scope, schema_url = encode_origin(make_resource(self._connection, more), self._connection)
        of_resource = ResourceSpans(resource=resource, schema_url=schema_url)
        return of_resource.SerializeToString(), ScopeSpans(scope=scope).SerializeToString()

    def _put(self, span: bytes, resource: int, events: int) -> None:
        self._outbox.put((resource, span, events), len(span), events=events)

    def _send(self, payloads: Sequence[tuple[int, bytes, int]], timeout_seconds: float) -> None:
        by_resource: dict[int, list[bytes]] = {}
        for resource, encoded, _ in payloads:
            by_resource.setdefault(resource, []).append(encoded)
        request = b"".join(self._of_resource(resource, spans) for resource, spans in by_resource.items())
        rejected = self._transport.send(request, timeout_seconds)
        if rejected:
            # It does not say which: so many of the batch's events as it rejected of its spans.
            share = min(rejected / len(payloads), 1.0)
            events = round(sum(events for _, _, events in payloads) * share)
            self.count_failure(f"the receiver rejected {rejected} of {len(payloads)} spans")
            self.count_dropped(DROP_REJECTED, events)
            self.count_exported(-events)

    def _of_resource(self, resource: int, spans: list[bytes]) -> bytes:
        of_resource, of_scope = self._heads[resource]
        scope_spans = frame(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER, of_scope + b"".join(spans))
        return frame(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER, of_resource + scope_spans)

    # ---- the sink's life ----

    def _complete(self, report: ExporterReport) -> None:
        self._open.complete(report)
        super()._complete(report)

    def _finish(self, seconds: float | None) -> None:
        try:
            for kept in self._open.drain():
                self._send_unfinished(kept)
        finally:
            super()._finish(seconds)



def make_projection(name: str) -> Any:
    """The projection of that name; `openinference` needs an extra of its own.

    Raises:
        ImportError: which is not installed.
    """
    if name == "openinference":
        from relay_mp.observability.openinference import OpenInferenceProjection

        return OpenInferenceProjection()
    return GenAiProjection() if name == "gen_ai" else FullProjection()


def make_sampler() -> Callable[[bytes], bool] | None:
    """Which traces are exported, by OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; None: all.

    A trace is in or out as a whole, in every process alike: the ratio looks at a hash of the trace's id. The id's own
    last bits, which the SDK's sampler looks at, are not drawn by lot for each: a process that makes many uuids counts
    in some of them. Whether a remote parent was sampled is not known here, and does not count.
    """
    name = os.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    kind = name.removeprefix("parentbased_")
    if kind in ("", "always_on"):
        return None
    if kind == "always_off":
        return lambda trace: False
    asked = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        ratio = float(asked)
    except ValueError:
        ratio = -1.0
    if kind != "traceidratio" or not 0 <= ratio <= 1:
        logger.warning("the sampler %r (%r) of the environment is not known; all traces are exported", name, asked)
        return None
    bound = round(ratio * (1 << 64))
    return lambda trace: int.from_bytes(hashlib.blake2b(trace, digest_size=8).digest(), "big") < bound


def _status(end: ScopeEvent | None) -> tuple[int, str] | None:
    metadata = end.metadata if end is not None else None
    if not isinstance(metadata, dict):
        return None
    code = _STATUSES.get(str(metadata.get("otel.status_code")), 0)
    description = metadata.get("otel.status_description")
    if code == _STATUSES["ERROR"] and isinstance(description, str):
        return code, clean(description, MAX_STATUS_BYTES)
    return code, ""


def _promoted(event: Event | None, prefixes: tuple[str, ...]) -> dict[str, Any]:
    """An event's metadata whose keys begin so, where they are plain values."""
    metadata = event.metadata if event is not None else None
    if not isinstance(metadata, dict):
        return {}
    return {
        key: value
        for key, value in metadata.items()
        if isinstance(key, str) and key.startswith(prefixes) and isinstance(value, (str, int, float))
    }
