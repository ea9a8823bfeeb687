"""OpenTelemetry logs where the dispatcher runs: a log record for each mark.

    scope ──▶ its trace is remembered (scopes.pyx)
    mark  ──▶ LogRecord message: severity, body, attributes, its parent's span ──▶ queue ──▶ ExportLogsServiceRequest

Source of the layout: OpenTelemetry's logs data model, and nemo-relay 0.8.4, as observed.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

try:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp._deliver.dispatcher import LOSS_MARK
from relay_mp._emit.metrics import METRIC_SCHEMA
from relay_mp.events import SEVERITY_KEY, Event, MarkEvent, ScopeEvent
from relay_mp.observability.export.batch_queue import BatchQueue, QueuedSink
from relay_mp.observability.export.scopes import Traces
from relay_mp.observability.otel.environment import attempt_limits, is_disabled
from relay_mp.observability.otel.transport import connect, encode_origin, make_resource
from relay_mp.observability.otel.values import clean, json_text
from relay_mp.types import LogSeverity

__all__ = ["MAX_BODY_DEPTH", "LogsSink"]

MAX_BODY_DEPTH = 24
"""Levels of a body or of metadata that are told as such; what is further in is JSON text. A level is up to three
messages, and parsers of protobuf go no deeper than 100."""

MAX_BATCH_BYTES = 3 << 20
"""Receivers of gRPC mostly take no more than 4 MiB."""

DROP_REJECTED = "rejected"

_NUMBERS: dict[LogSeverity, Any] = {severity: 1 + 4 * severity.code for severity in LogSeverity}
"""OpenTelemetry's severity numbers: TRACE is 1, DEBUG 5, INFO 9, WARN 13, ERROR 17."""

_INT64 = 1 << 63
_MAX_NS = (1 << 64) - 1
_SAMPLED = 1
_UNLIMITED = 1 << 40


class LogsSink(QueuedSink):
    """Sends marks as log records.

    Args:
        connection: see OtlpConfig.connection.
        default_limits: of the queue, where neither the connection nor the environment says otherwise.
        minimum_severity: the value of a LogSeverity; marks below it are ignored.
        completed_span_context_ttl_millis, max_open_scopes: see OpenTelemetryLogConfig.

    Raises:
        ValueError: the endpoint is no address, or a variable of `header_env` is not set.
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
    ) -> None:
        super().__init__()
        self._is_disabled = is_disabled()
        self._minimum = LogSeverity(minimum_severity).code
        self._traces = Traces(max_open_scopes, completed_span_context_ttl_millis)
        self._resource, self._scope, self._schema_url = encode_origin(make_resource(connection), connection)
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
            record = self._make_record(event, severity)
            self._queue.put(record, record.ByteSize())

    def _follow(self, event: ScopeEvent) -> None:
        if event.scope_category == "start":
            self._traces.begin(event)
        else:
            self._traces.end(event.packed_uuid, event.timestamp_us)

    def _make_record(self, mark: MarkEvent, severity: LogSeverity) -> Any:
        record = LogRecord(
            time_unix_nano=min(max(mark.timestamp_us * 1000, 0), _MAX_NS),
            observed_time_unix_nano=time.time_ns(),
            severity_number=_NUMBERS[severity],
            severity_text=severity.value.upper(),
            event_name=clean(mark.name, _UNLIMITED),
        )
        place = self._traces.place(mark)
        if place.parent_span is not None:
            record.trace_id, record.span_id, record.flags = place.trace, place.parent_span, _SAMPLED
        _fill(record.body, mark.data, 0)
        for key, value in _attributes(mark).items():
            if value is not None:
                item = record.attributes.add()
                item.key = key
                _fill(item.value, value, 0)
        return record

    def _send(self, records: Sequence[Any], timeout_seconds: float) -> None:
        request = ExportLogsServiceRequest()
        of_resource = request.resource_logs.add(resource=self._resource, schema_url=self._schema_url)
        of_resource.scope_logs.add(scope=self._scope).log_records.extend(records)
        rejected = min(self._transport.send(request.SerializeToString(), timeout_seconds), len(records))
        if rejected:
            self.count_failure(f"the receiver rejected {rejected} of {len(records)} records")
            self.count_dropped(DROP_REJECTED, rejected)
            self.count_exported(-rejected)


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


def _fill(target: Any, value: Any, depth: int) -> None:
    """A payload as an AnyValue; null is one that is empty."""
    kind = type(value)
    if kind is str:
        target.string_value = clean(value, _UNLIMITED)
    elif kind is bool:
        target.bool_value = value
    elif kind is int and -_INT64 <= value < _INT64:
        target.int_value = value
    elif kind is float:
        target.double_value = value
    elif kind in (list, dict) and depth < MAX_BODY_DEPTH:
        _fill_nested(target, value, depth + 1)
    elif value is not None:  # too deep, or an int that is too large
        target.string_value = clean(json_text(value), _UNLIMITED)


def _fill_nested(target: Any, value: Any, depth: int) -> None:
    if isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            _fill(target.array_value.values.add(), item, depth)
    else:
        target.kvlist_value.SetInParent()
        for key, item in value.items():
            pair = target.kvlist_value.values.add()
            pair.key = clean(key, _UNLIMITED)
            _fill(pair.value, item, depth)
