"""Traces where the dispatcher runs: a span for each scope, made when it ends, sent by the queue.

    a run of events ──▶ Spans (spans.pyx) ──▶ spans, encoded ──▶ BatchQueue ──▶ ExportTraceServiceRequest

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

from relay_mp._deliver.dispatcher import RUN_EVENTS
from relay_mp._deliver.reports import ExporterReport
from relay_mp._log import logger
from relay_mp.events import Event
from relay_mp.observability.export.batch_queue import BatchQueue, QueuedSink
from relay_mp.observability.otel.environment import attempt_limits, is_disabled, limit_of
from relay_mp.observability.otel.full import FullProjection
from relay_mp.observability.otel.gen_ai import GenAiProjection
from relay_mp.observability.otel.limits import make_limits
from relay_mp.observability.otel.spans import Spans, promoted_of
from relay_mp.observability.otel.transport import connect, make_envelope

__all__ = ["TracesSink"]

MAX_RESOURCES = 1000
"""Resources that differ by promoted metadata; further ones lose what is promoted."""

MAX_BATCH_BYTES = 3 << 20
"""Receivers of gRPC mostly take no more than 4 MiB."""

DROP_REJECTED, DROP_EVENT_LIMIT = "rejected", "event_limit"

_LENGTH, _COUNT = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"


class TracesSink(QueuedSink):
    """See OpenTelemetryConfig.

    Args:
        connection: see OtlpConfig.connection.
        projection: "full", "gen_ai" or "openinference".
        mark_projection, mark_exclude_names, attribute_mappings, promote_metadata_prefixes: see there.
        promote_resource_metadata_prefixes, completed_span_context_ttl_millis: see there.
        max_open_scopes, max_open_bytes, max_attribute_bytes, max_span_events: see there.
        attribute_value_length_limit, attribute_count_limit, event_attribute_count_limit, event_count_limit: see there.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the endpoint is not an address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be read.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        projection: str,
        *,
        mark_projection: str,
        mark_exclude_names: Sequence[str],
        attribute_mappings: Sequence[dict[str, str]],
        promote_metadata_prefixes: Sequence[str],
        promote_resource_metadata_prefixes: Sequence[str],
        completed_span_context_ttl_millis: int,
        max_open_scopes: int,
        max_open_bytes: int,
        max_attribute_bytes: int,
        max_span_events: int,
        attribute_value_length_limit: int | None,
        attribute_count_limit: int | None,
        event_attribute_count_limit: int | None,
        event_count_limit: int | None,
    ) -> None:
        super().__init__()
        self._promoted_to_resource = tuple(promote_resource_metadata_prefixes)
        self._connection = connection
        self._envelopes = [make_envelope(connection)]
        self._resources: dict[tuple[tuple[str, Any], ...], int] = {(): 0}
        self._is_disabled = is_disabled()
        self._failed: tuple[int, Exception] | None = None
        made = make_projection(projection)
        length = limit_of(attribute_value_length_limit, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", _LENGTH)
        of_span = limit_of(attribute_count_limit, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", _COUNT)
        of_event = limit_of(event_attribute_count_limit, "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", _COUNT)
        self._spans = Spans(
            made,
            self._note_failure,
            max_attribute_bytes=max_attribute_bytes,
            max_open_scopes=max_open_scopes,
            max_open_bytes=max_open_bytes,
            ttl_millis=completed_span_context_ttl_millis,
            max_span_events=max_span_events,
            event_count_limit=limit_of(event_count_limit, "OTEL_SPAN_EVENT_COUNT_LIMIT"),
            limits=make_limits(of_span, length),
            event_limits=make_limits(of_event, length),
            as_tools=mark_projection == "tool",
            never_tools=mark_exclude_names,
            aliases=[(m["key"], m["alias"]) for m in attribute_mappings if made.takes_mappings],
            promoted=promote_metadata_prefixes,
            is_sampled=make_sampler(),
            resource_of=self._resource_of if self._promoted_to_resource else None,
        )
        self._transport = connect("traces", connection)
        limits = attempt_limits("traces", connection, max_batch_bytes=MAX_BATCH_BYTES)
        self._queue = BatchQueue(self, self._send, limits, ended=self._transport.close, name="relay_mp-otel-traces")

    # ---- events ----

    def take_batch(self, events: list[Event]) -> int:
        """A run of events at once. One that fails is handed back, and the call with it raises what it failed with."""
        if self._failed is not None:
            return 0
        taken, error = self._take(events, self.taken)
        self._counts.taken += taken
        if error is not None:
            self._failed = events[taken].seq, error
        return taken

    def _export(self, event: Event) -> None:
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] == event.seq:
            raise failed[1]
        _, error = self._take([event], self.taken - 1)
        if error is not None:
            raise error

    def _take(self, events: list[Event], before: int) -> tuple[int, Exception | None]:
        if self._is_disabled:
            self.count_ignored(len(events))
            return len(events), None
        ignored, over_limit = self._spans.ignored, self._spans.over_limit
        taken, error = self._spans.take(events, before)
        if self._spans.ignored > ignored:
            self.count_ignored(self._spans.ignored - ignored)
        self.count_dropped(DROP_EVENT_LIMIT, self._spans.over_limit - over_limit)
        self._put_made()
        return taken, error

    def _put_made(self) -> None:
        """Sends what is ready."""
        made = self._spans.made
        if made:
            self._queue.put_all(made)
            made.clear()

    def _note_failure(self, error: Exception, events: int) -> None:
        self.count_failure(error)
        self.count_dropped(type(error).__name__, events)

    # ---- resources and requests ----

    def _resource_of(self, event: Event) -> int:
        """Which of the requests a span goes into whose event is in no other scope: by its metadata."""
        promoted = tuple(sorted(promoted_of(event, self._promoted_to_resource).items()))
        if promoted not in self._resources:
            if len(self._resources) > MAX_RESOURCES:
                return 0
            self._envelopes.append(make_envelope(self._connection, dict(promoted)))
            self._resources[promoted] = len(self._envelopes) - 1
        return self._resources[promoted]

    def _send(self, payloads: Sequence[tuple[bytes, int, int]], timeout_seconds: float) -> None:
        by_resource: dict[int, list[bytes]] = {}
        for span, resource, _ in payloads:
            by_resource.setdefault(resource, []).append(span)
        request = b"".join(self._envelopes[which].request(b"".join(spans)) for which, spans in by_resource.items())
        rejected = self._transport.send(request, timeout_seconds)
        if rejected:
            # It does not say which: so many of the batch's events as it rejected of its spans.
            share = min(rejected / len(payloads), 1.0)
            events = round(sum(events for _, _, events in payloads) * share)
            self.count_failure(f"the receiver rejected {rejected} of {len(payloads)} spans")
            self.count_dropped(DROP_REJECTED, events)
            self.count_exported(-events)

    # ---- the sink's life ----

    def _complete(self, report: ExporterReport) -> None:
        self._spans.complete(report)
        super()._complete(report)

    def _finish(self, seconds: float | None) -> None:
        try:
            while self._spans.finish(RUN_EVENTS):
                self._put_made()
            self._put_made()
        finally:
            super()._finish(seconds)


def make_projection(name: str) -> Any:
    """The projection of that name; `openinference` needs an extra of its own.

    Raises:
        ImportError: which is not installed.
    """
    if name == "openinference":
        from relay_mp.observability.otel.openinference import OpenInferenceProjection

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
