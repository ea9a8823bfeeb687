"""OpenTelemetry metrics, as the program sees them: what `scope.metric` measures, exported over OTLP.

Needs the extra: `pip install relay_mp[otel]`. Environment beside that of exporter.py, where the configuration
leaves a default: `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds) and
`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` ("cumulative", "delta" or "lowmemory"). Histograms have explicit
buckets: `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` is not heeded, and a warning says so.
"""

from typing import Any

from relay_mp.errors import described_type
from relay_mp.observability.otel.exporter import (
    DEFAULT_EXPORT_INTERVAL_MILLIS,
    OpenTelemetryRuntimeDiagnostic,
    OpenTelemetryRuntimeDiagnostics,
    OtlpConfig,
    OtlpSubscriber,
    check_count,
)
from relay_mp.types import MetricTemporality

__all__ = ["OpenTelemetryMetricConfig", "OpenTelemetryMetricSubscriber", "otel_metrics"]


class OpenTelemetryMetricConfig(OtlpConfig):
    """Where and how metrics are exported. Attributes may be set until the subscriber is made; see OtlpConfig for more.

    Attributes:
        export_interval_millis: how often; the first time that long after the first measurement.
        temporality: what counters and histograms cover; see MetricTemporality.
        max_instruments: how many names; marks that would make more are given up ("instrument_limit").
        cardinality_limit: how many sets of attributes of one instrument are told apart, since the start or,
            with delta, since the last export. Measurements with further ones are summed up in one more series,
            whose attribute is `otel.metric.overflow`, and are counted as `overflowed`.
    """

    __slots__ = ("cardinality_limit", "export_interval_millis", "max_instruments", "temporality")

    def __init__(self, endpoint: str = "") -> None:
        super().__init__(endpoint)
        self.export_interval_millis = DEFAULT_EXPORT_INTERVAL_MILLIS
        self.temporality = MetricTemporality.Cumulative
        self.max_instruments = 256
        self.cardinality_limit = 2000

    def arguments(self) -> dict[str, Any]:
        """The sink's arguments, JSON types only.

        Raises:
            TypeError, ValueError: an attribute is not what it should be.
        """
        if not isinstance(self.temporality, MetricTemporality):
            raise TypeError(f"temporality is {described_type(self.temporality)}; expected MetricTemporality")
        for name in _COUNTS:
            check_count(name, getattr(self, name), 1)
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {"connection": self.connection(), "temporality": self.temporality.value, **counts}


_COUNTS = ("export_interval_millis", "max_instruments", "cardinality_limit")


class OpenTelemetryMetricSubscriber(OtlpSubscriber):
    """Exports the measurements of `scope.metric` as metrics, over OTLP.

    Sums, last values and histograms are the session's: those of all its processes, in one series. They are
    exported at an interval, at `force_flush` and at `shutdown`. Other events are ignored.

    A mark counts as exported when a receiver has taken what it went into. What cannot be sent is sent again: with
    cumulative temporality whatever it has come to by then, until `shutdown`; with delta the same, for
    `retry_deadline_seconds`. What a receiver took without its answer coming back is sent twice, which cumulative
    sums do not mind and delta sums cannot tell. A mark whose measurements contradict earlier ones in kind, type or
    unit is given up as a whole ("descriptor_conflict"). Sums of ints that exceed 64 bits are exported as floats.

    A dispatcher process that is killed takes along what it has not exported: its marks are counted as unconfirmed, and
    cumulative sums begin anew, which their start time tells.

    Args:
        config: read now; later changes to it have no effect.

    Raises:
        TypeError, ValueError: it holds what it should not.
    """

    signal = "metrics"

    def __init__(self, config: OpenTelemetryMetricConfig) -> None:
        if not isinstance(config, OpenTelemetryMetricConfig):
            raise TypeError(f"config is {described_type(config)}; expected OpenTelemetryMetricConfig")
        super().__init__("relay_mp.observability.otel.metrics_sink:MetricsSink", config.arguments())

    def runtime_diagnostics(self) -> OpenTelemetryRuntimeDiagnostics:
        """What has gone wrong since the registration: failed attempts, marks given up, measurements that overflowed."""
        entries = super().runtime_diagnostics().entries
        overflowed = sum(report.overflowed for report in self.report().values())
        if overflowed:
            message = "measurements went into overflow series: too many sets of attributes"
            entries.append(OpenTelemetryRuntimeDiagnostic("otel.metric_cardinality_limit", message, overflowed))
        return OpenTelemetryRuntimeDiagnostics(entries)


def otel_metrics(connection: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The kind of exporter of that name: a sink.

    Args:
        connection: what is not at its default of an OtlpConfig.
        settings: the other attributes of an OpenTelemetryMetricConfig.
    """
    return OpenTelemetryMetricSubscriber(OpenTelemetryMetricConfig()).kind(connection, **settings)
