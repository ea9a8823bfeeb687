"""OpenTelemetry metrics where the dispatcher runs: windows of measurements, sent at an interval.

    metric mark ──▶ Aggregator ──▶ Window ──put, once a window──▶ BatchQueue, which gathers for the interval
                                      ▲                              │ its thread
                                      └────────── points ◀───────────┘──▶ official encoder ──▶ Transport

The queue's item is the window that is filled just now, so that bounds, retries, deadlines and counts are the
queue's, and there is one item at most beside the one on its way. A window that has been begun to be sent takes
no more marks: what is counted as exported is what was in it.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

try:
    from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        HistogramDataPoint,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp._deliver.reports import ExporterReport
from relay_mp._emit.metrics import METRIC_SCHEMA
from relay_mp.events import Event, MarkEvent
from relay_mp.observability.export.batch_queue import MAX_LIMIT, BatchQueue, QueuedSink
from relay_mp.observability.otel.aggregation import Aggregator, Instrument, Rejected, Series, Window
from relay_mp.observability.otel.environment import attempt_limits, is_disabled
from relay_mp.observability.otel.exporter import DEFAULT_EXPORT_INTERVAL_MILLIS
from relay_mp.observability.otel.transport import connect, make_resource
from relay_mp.types import MetricKind, MetricTemporality

__all__ = ["MAX_POINTS_PER_REQUEST", "MetricsSink"]

logger = logging.getLogger("relay_mp")

MAX_POINTS_PER_REQUEST = 4096
"""More go out in several requests: receivers bound what they take, gRPC's by default to 4 MiB."""

_CUMULATIVE, _DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA

_INT64 = 1 << 63


class MetricsSink(QueuedSink):
    """Sums up the measurements of metric marks, and sends them at an interval.

    Args:
        connection: see OtlpConfig.connection.
        export_interval_millis: how often.
        temporality: "cumulative", "delta" or "low_memory".
        max_instruments: see OpenTelemetryMetricConfig.
        cardinality_limit: see OpenTelemetryMetricConfig.

    Raises:
        ValueError: the endpoint is no address, or a variable of `header_env` is not set.
        OSError: a certificate cannot be read.
    """

    def __init__(
        self,
        *,
        connection: dict[str, Any],
        export_interval_millis: int,
        temporality: str,
        max_instruments: int,
        cardinality_limit: int,
    ) -> None:
        super().__init__()
        self._is_disabled = is_disabled()
        _tell_of_histograms()
        self._is_cumulative = _asked_temporality(temporality) is MetricTemporality.Cumulative
        self._aggregator = Aggregator(
            is_delta=not self._is_cumulative,
            max_instruments=max_instruments,
            cardinality_limit=cardinality_limit,
            start_ns=time.time_ns(),
        )
        self._resource = make_resource(connection)
        self._scope = InstrumentationScope(connection["instrumentation_scope"])
        self._transport = connect("metrics", connection)
        self._filling = threading.Lock()
        start_ns = self._aggregator.lasting.start_ns
        self._window = Window(start_ns, start_ns)
        self._warned: set[str] = set()
        defaults: dict[str, Any] = {"schedule_delay_seconds": _interval_seconds(export_interval_millis)}
        if self._is_cumulative:
            # What fails is not lost with the attempt: the next one has it all.
            defaults["retry_deadline_seconds"] = MAX_LIMIT
        limits = attempt_limits("metrics", connection, **defaults)
        self._queue = BatchQueue(self, self._send, limits, ended=self._transport.close, name="relay_mp-otel-metrics")

    # ---- the dispatcher's side ----

    def _export(self, event: Event) -> None:
        if self._is_disabled or not isinstance(event, MarkEvent) or event.data_schema != METRIC_SCHEMA:
            self.count_ignored()
            return
        with self._filling:
            try:
                parsed = self._aggregator.parse(event.data, self._window)
            except Rejected as rejected:
                self.count_dropped(rejected.cause)
                self._warn(event.name, rejected)
                return
            # With the lock, so that a window is not sent between its being chosen and its being filled.
            if self._ask_for_window(1):
                self._aggregator.count(parsed, self._window)

    def _ask_for_window(self, events: int) -> bool:
        """Sees to it that the window waits to be sent, with so many more events. False at the end."""
        if self._queue.add(events):
            return True
        if self._window.end_ns is None:  # it has not come to being sent: two windows do not overlap
            self._window.end_ns = time.time_ns()
        self._window = Window(self._window.end_ns)
        return self._queue.put(self._window, 0, events=events)

    def _warn(self, name: str, rejected: Rejected) -> None:
        if rejected.cause not in self._warned:
            self._warned.add(rejected.cause)
            logger.warning("metric mark %.80r is given up: %s; others of the kind are only counted", name, rejected)

    # ---- the queue's thread ----

    def _send(self, windows: Sequence[Window], timeout_seconds: float) -> None:
        for window in windows:
            if self._is_cumulative and self._finished and not window.marks:
                continue  # the receiver has it all
            if window.requests is None or self._is_cumulative:
                window.requests = list(self._encode(window))
            while window.requests:
                self._count_rejected(self._transport.send(window.requests[0], timeout_seconds))
                del window.requests[0]
        if self._is_cumulative:
            with self._filling:
                self._ask_for_window(0)  # so that what is not measured again is told again, an interval later

    def _count_rejected(self, points: int) -> None:
        if points:
            self.count_failure(f"the receiver rejected {points} points")

    def _encode(self, window: Window) -> Iterator[bytes]:
        with self._filling:
            if window.end_ns is None or self._is_cumulative:
                window.end_ns = time.time_ns()
            tables = [*self._snapshot(self._aggregator.lasting, window.end_ns)]
            tables += self._snapshot(window, window.end_ns)
        for metrics in _in_requests(tables):
            scopes = [ScopeMetrics(self._scope, metrics, "")]
            data = MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)])
            yield encode_metrics(data).SerializeToString()

    def _snapshot(self, window: Window, end_ns: int) -> Iterator["_Table"]:
        for instrument, table in window.series.items():
            point = _histogram_point if instrument.kind is MetricKind.Histogram else _number_point
            yield instrument, [point(instrument, series, window.start_ns, end_ns) for series in table.values()]

    # ---- any thread ----

    def _complete(self, report: ExporterReport) -> None:
        report.overflowed = self._aggregator.overflowed
        super()._complete(report)


def _asked_temporality(configured: str) -> MetricTemporality:
    """The configuration's, or, where that is the default, the environment's."""
    asked = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()
    if configured != MetricTemporality.Cumulative.value or not asked:
        return MetricTemporality(configured)
    known = {temporality.value.replace("_", ""): temporality for temporality in MetricTemporality}
    if asked not in known:
        logger.warning("the temporality %r of the environment is none of %s; cumulative it is", asked, list(known))
    return known.get(asked, MetricTemporality.Cumulative)


def _interval_seconds(configured_millis: int) -> float:
    """The configuration's, or, where that is the default, the environment's."""
    asked = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    if configured_millis == DEFAULT_EXPORT_INTERVAL_MILLIS and asked:
        if asked.isascii() and asked.isdigit() and int(asked):
            return int(asked) / 1000
        logger.warning("the interval %r of the environment is no number of milliseconds; 60 s it is", asked)
    return configured_millis / 1000


def _tell_of_histograms() -> None:
    """Histograms have the boundaries of their marks, or the default ones, whatever the environment prefers."""
    asked = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip()
    if asked.lower() not in ("", "explicit_bucket_histogram"):
        logger.warning("the histogram aggregation %r of the environment is not heeded: buckets are explicit", asked)


# ------------------------------------------------------------------------------------------- points

_Point = NumberDataPoint | HistogramDataPoint
_Table = tuple[Instrument, list[Any]]


def _number_point(_instrument: Instrument, series: Series, start_ns: int, end_ns: int) -> NumberDataPoint:
    value = series.value
    if value.__class__ is int and not -_INT64 <= value < _INT64:
        value = float(value)
    return NumberDataPoint(series.attributes, start_ns, end_ns, value)


def _histogram_point(instrument: Instrument, series: Series, start_ns: int, end_ns: int) -> HistogramDataPoint:
    return HistogramDataPoint(
        series.attributes,
        start_ns,
        end_ns,
        series.count,
        float(series.value),
        list(series.bucket_counts),
        instrument.boundaries,
        series.min,
        series.max,
    )


def _metric(instrument: Instrument, points: list[Any]) -> Metric:
    temporality = _DELTA if instrument.is_delta else _CUMULATIVE
    data: Gauge | Histogram | Sum
    if instrument.kind is MetricKind.Gauge:
        data = Gauge(points)
    elif instrument.kind is MetricKind.Histogram:
        data = Histogram(points, temporality)
    else:
        data = Sum(points, temporality, is_monotonic=instrument.kind is MetricKind.Counter)
    return Metric(instrument.name, instrument.description, instrument.unit or "", data)


def _in_requests(tables: list[_Table]) -> Iterator[list[Metric]]:
    """Metrics, for each request those with no more than so many points; a metric may be in several."""
    metrics: list[Metric] = []
    room = MAX_POINTS_PER_REQUEST
    for instrument, points in tables:
        rest = points
        while rest:
            metrics.append(_metric(instrument, rest[:room]))
            rest, room = rest[room:], room - min(room, len(rest))
            if not room:
                yield metrics
                metrics, room = [], MAX_POINTS_PER_REQUEST
    if metrics:
        yield metrics
