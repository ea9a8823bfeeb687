"""OpenTelemetry logs where the dispatcher runs: a log record for each mark.

    scope ──▶ its trace is remembered (places.pyx)
    mark  ──▶ LogWriter (otlp.pyx): severity, body, attributes, its parent's span ──▶ queue ──▶ ExportLogsServiceRequest

Source of the layout: OpenTelemetry's logs data model, and nemo-relay 0.8.4, as observed.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from relay_mp._deliver.dispatcher import LOSS_MARK
from relay_mp._emit.metrics import METRIC_SCHEMA
from relay_mp.events import SEVERITY_KEY, Event, MarkEvent, ScopeEvent
from relay_mp.observability.export.batch_queue import BatchQueue, QueuedSink
from relay_mp.observability.otel.environment import attempt_limits, is_disabled, limit_of
from relay_mp.observability.otel.limits import make_limits
from relay_mp.observability.otel.otlp import LogWriter
from relay_mp.observability.otel.places import Traces
from relay_mp.observability.otel.transport import connect, make_envelope
from relay_mp.types import LogSeverity

__all__ = ["MAX_BODY_DEPTH", "LogsSink"]

MAX_BODY_DEPTH = 24
"""Levels of a body or of metadata that are told as such; what is further in is JSON text. A level is up to three
messages, and parsers of protobuf go no deeper than 100."""

MAX_BATCH_BYTES = 3 << 20
"""Receivers of gRPC mostly take no more than 4 MiB."""

DROP_REJECTED = "rejected"

_NUMBERS: dict[LogSeverity, int] = {severity: 1 + 4 * severity.code for severity in LogSeverity}
"""OpenTelemetry's severity numbers: TRACE is 1, DEBUG 5, INFO 9, WARN 13, ERROR 17."""

_UNLIMITED = 1 << 40


class LogsSink(QueuedSink):
    """Sends marks as log records.

    Args:
        connection: see OtlpConfig.connection.
        default_limits: of the queue, where neither the connection nor the environment says otherwise.
        minimum_severity: the value of a LogSeverity; marks below it are ignored.
        completed_span_context_ttl_millis, max_open_scopes: see OpenTelemetryLogConfig.
        attribute_value_length_limit, attribute_count_limit: see there.

    Raises:
        ValueError: the endpoint is not an address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be read.
    """

    def __init__(
        self,
        *,
        connection: dict[str, Any],
        default_limits: dict[str, Any],
        minimum_severity: str,
        completed_span_context_ttl_millis: int,
        max_open_scopes: int,
        attribute_value_length_limit: int | None,
        attribute_count_limit: int | None,
    ) -> None:
        super().__init__()
        self._is_disabled = is_disabled()
        self._minimum = LogSeverity(minimum_severity).code
        self._traces = Traces(max_open_scopes, completed_span_context_ttl_millis)
        self._envelope = make_envelope(connection)
        length = limit_of(attribute_value_length_limit, *_variables("VALUE_LENGTH"))
        count = limit_of(attribute_count_limit, *_variables("COUNT"))
        self._writer = LogWriter(_UNLIMITED, MAX_BODY_DEPTH, make_limits(count, length))
        self._transport = connect("logs", connection)
        limits = attempt_limits("logs", connection, max_batch_bytes=MAX_BATCH_BYTES, **default_limits)
        self._queue = BatchQueue(self, self._send, limits, ended=self._transport.close, name="relay_mp-otel-logs")

    def _export(self, event: Event) -> None:
        if self._is_disabled:
            self.count_ignored()
        elif isinstance(event, ScopeEvent):
            self._follow(event)
            self.count_ignored()
        else:
            severity = _severity(event)
            if severity.code < self._minimum or event.data_schema == METRIC_SCHEMA:
                self.count_ignored()
                return
            record = self._write(event, severity)
            self._queue.put(record, len(record))

    def _follow(self, event: ScopeEvent) -> None:
        if event.scope_category == "start":
            self._traces.begin(event)
        else:
            self._traces.end(event.packed_uuid, event.timestamp_us)

    def _write(self, mark: MarkEvent, severity: LogSeverity) -> bytes:
        number, text = _NUMBERS[severity], severity.value.upper()
        attributes, place = _attributes(mark), self._traces.place(mark)
        now_ns = time.time_ns()
        return self._writer.record(mark.timestamp_us, now_ns, number, text, mark.data, attributes, place, mark.name)

    def _send(self, records: Sequence[bytes], timeout_seconds: float) -> None:
        request = self._envelope.request(b"".join(records))
        rejected = min(self._transport.send(request, timeout_seconds), len(records))
        if rejected:
            self.count_failure(f"the receiver rejected {rejected} of {len(records)} records")
            self.count_dropped(DROP_REJECTED, rejected)
            self.count_exported(-rejected)


def _variables(limit: str) -> tuple[str, str]:
    return f"OTEL_LOGRECORD_ATTRIBUTE_{limit}_LIMIT", f"OTEL_ATTRIBUTE_{limit}_LIMIT"


def _severity(mark: MarkEvent) -> LogSeverity:
    return mark.severity or (LogSeverity.Warn if mark.name == LOSS_MARK else LogSeverity.Info)


def _attributes(mark: MarkEvent) -> dict[str, Any]:
    """What a record says beside its body; those that are None are left out."""
    schema: Mapping[str, Any] = mark.data_schema or {}
    metadata = mark.metadata
    if isinstance(metadata, dict) and SEVERITY_KEY in metadata:
        metadata = {key: value for key, value in metadata.items() if key != SEVERITY_KEY} or None
    return {
        "relay_mp.atof.version": "0.1",
        "relay_mp.mark.name": mark.name,
        "relay_mp.mark.uuid": mark.uuid,
        "relay_mp.mark.parent_uuid": mark.parent_uuid,
        "relay_mp.mark.seq": mark.seq,
        "relay_mp.mark.data_schema.name": schema.get("name"),
        "relay_mp.mark.data_schema.version": schema.get("version"),
        "relay_mp.mark.metadata": metadata,
        "process.pid": mark.pid,
        "thread.id": mark.thread_id or None,
    }
