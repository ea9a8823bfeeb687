"""OpenTelemetry logs, as the program sees them: marks, exported as log records over OTLP.

Needs the extra: `pip install relay_mp[otel]`. Environment beside that of exporter.py, where the configuration
leaves a default: `OTEL_BLRP_MAX_QUEUE_SIZE`, `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE` and `OTEL_BLRP_SCHEDULE_DELAY`.
"""

from typing import Any

from relay_mp.errors import described_type
from relay_mp.observability.export.sink import MAX_OPEN_SCOPES
from relay_mp.observability.otel.exporter import OtlpConfig, OtlpSubscriber, check_count, check_limits, queue_limits
from relay_mp.types import LogSeverity

__all__ = ["OpenTelemetryLogConfig", "OpenTelemetryLogSubscriber", "otel_logs"]


RECORD_LIMITS = ("attribute_value_length_limit", "attribute_count_limit")


class OpenTelemetryLogConfig(OtlpConfig):
    """Where and how logs are exported. Attributes may be set until the subscriber is made; see OtlpConfig for more.

    Attributes:
        minimum_severity: marks below it are ignored.
        max_queue_size: records that wait; beyond it they are dropped and counted ("full").
        max_export_batch_size: records in one request, at most.
        scheduled_delay_millis: how long a batch gathers.
        completed_span_context_ttl_millis: how long it is remembered which trace a scope was of that has
            ended, for marks that come late.
        max_open_scopes: scopes whose traces are known; the oldest is forgotten beyond that.
        attribute_value_length_limit: characters of a text in a record's attributes, not in its body; the rest is cut
            off. None: OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, else no limit.
        attribute_count_limit: attributes of a record; further ones are left out, and the record says how many. None:
            OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT, OTEL_ATTRIBUTE_COUNT_LIMIT, else no limit.
    """

    __slots__ = (
        "attribute_count_limit",
        "attribute_value_length_limit",
        "completed_span_context_ttl_millis",
        "max_export_batch_size",
        "max_open_scopes",
        "max_queue_size",
        "minimum_severity",
        "scheduled_delay_millis",
    )

    def __init__(self, endpoint: str = "") -> None:
        super().__init__(endpoint)
        self.minimum_severity = LogSeverity.Info
        self.max_queue_size = 2048
        self.max_export_batch_size = 512
        self.scheduled_delay_millis = 1000
        self.completed_span_context_ttl_millis = 60_000
        self.max_open_scopes = MAX_OPEN_SCOPES
        self.attribute_value_length_limit: int | None = None
        self.attribute_count_limit: int | None = None

    def arguments(self) -> dict[str, Any]:
        """The sink's arguments, JSON types only.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        if not isinstance(self.minimum_severity, LogSeverity):
            raise TypeError(f"minimum_severity is {described_type(self.minimum_severity)}; expected LogSeverity")
        for name in ("max_queue_size", "max_export_batch_size", "scheduled_delay_millis", "max_open_scopes"):
            check_count(name, getattr(self, name), 1)
        check_count("completed_span_context_ttl_millis", self.completed_span_context_ttl_millis, 0)
        check_limits(self, RECORD_LIMITS)
        if self.max_export_batch_size > self.max_queue_size:
            raise ValueError(
                f"max_export_batch_size is {self.max_export_batch_size}; "
                f"expected no more than max_queue_size, {self.max_queue_size}"
            )
        connection = self.connection()
        return {
            # What is at its default gives way to the environment, which gives way to `limits`.
            "connection": {**connection, "limits": {**self._own_limits(), **connection["limits"]}},
            "default_limits": _default_limits(),
            "minimum_severity": self.minimum_severity.value,
            "completed_span_context_ttl_millis": self.completed_span_context_ttl_millis,
            "max_open_scopes": self.max_open_scopes,
            **{name: getattr(self, name) for name in RECORD_LIMITS},
        }

    def _own_limits(self) -> dict[str, float]:
        default = _default_limits()
        return {name: value for name, value in self._limits().items() if value != default[name]}

    def _limits(self) -> dict[str, Any]:
        return queue_limits(self.max_queue_size, self.max_export_batch_size, self.scheduled_delay_millis)


def _default_limits() -> dict[str, Any]:
    return OpenTelemetryLogConfig()._limits()


class OpenTelemetryLogSubscriber(OtlpSubscriber):
    """Exports marks as log records, over OTLP.

    The body is the mark's data, its name the event's. A mark without a severity is at Info, one that tells of lost
    events at Warn; marks of `scope.metric`, and scopes, are ignored. A record belongs to the span that the exporter of
    traces makes of the mark's parent; it has none if the parent is not known.

    The receiver is never waited for by the dispatcher: records are queued, up to bounds, and sent by a thread, which
    repeats what failed for the moment. What is given up is counted, see `report()`, `runtime_diagnostics()` and
    `session.stats().exporters`. What nests deeper than a receiver's parser may go becomes its JSON text.

    Args:
        config: read now; later changes to it have no effect.

    Raises:
        TypeError, ValueError: it holds what it should not.
    """

    signal = "logs"

    def __init__(self, config: OpenTelemetryLogConfig) -> None:
        if not isinstance(config, OpenTelemetryLogConfig):
            raise TypeError(f"config is {described_type(config)}; expected OpenTelemetryLogConfig")
        super().__init__("relay_mp.observability.otel.logs_sink:LogsSink", config.arguments())


def otel_logs(connection: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        connection: what is not at its default of an OtlpConfig.
        settings: "minimum_severity", "completed_span_context_ttl_millis", "max_open_scopes" and the limits of
            attributes, as in OpenTelemetryLogConfig.
    """
    return OpenTelemetryLogSubscriber(OpenTelemetryLogConfig()).kind(connection, **settings)
