"""OpenTelemetry metrics where the dispatcher runs: windows of measurements, sent at an interval.

    metric mark ──▶ Aggregator ──▶ Window ──put, once a window──▶ BatchQueue, which gathers for the interval
                                      ▲                              │ its thread
                                      └────────── series ◀───────────┘──▶ points ──▶ ExportMetricsServiceRequest

The queue's item is the window that is filled just now, so that bounds, retries, deadlines and counts are the
queue's, and there is one item at most beside the one on its way. A window that has been begun to be sent takes
no more marks: what is counted as exported is what was in it.
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from relay_mp._log import logger
from relay_mp._threads import Lock

try:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import (
        AggregationTemporality,
        Histogram,
        HistogramDataPoint,
        Metric,
        NumberDataPoint,
        Sum,
    )
except ImportError as error:
    raise ImportError("OpenTelemetry needs the extra: pip install 'relay_mp[otel]'") from error

from relay_mp._deliver.reports import ExporterReport
from relay_mp._emit.metrics import METRIC_SCHEMA
from relay_mp.events import Event, MarkEvent
from relay_mp.observability.export.batch_queue import DROP_TOO_LARGE, MAX_SECONDS, BatchQueue, QueuedSink, TooLarge
from relay_mp.observability.export.sink import brief
from relay_mp.observability.otel.aggregation import Aggregator, Instrument, Part, Rejected, Series, Table, Window
from relay_mp.observability.otel.environment import attempt_limits, is_disabled, whole_number
from relay_mp.observability.otel.exporter import DEFAULT_EXPORT_INTERVAL_MILLIS, MAX_TIMEOUT_MILLIS
from relay_mp.observability.otel.otlp import ValueWriter, frame
from relay_mp.observability.otel.transport import connect, make_envelope
from relay_mp.types import MetricKind, MetricTemporality

__all__ = ["MAX_POINTS_PER_REQUEST", "MetricsSink"]


MAX_POINTS_PER_REQUEST = 4096
"""More go out in several requests: receivers bound what they take, gRPC's by default to 4 MiB."""

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA

_INT64 = 1 << 63
_UNLIMITED = 1 << 40


class MetricsSink(QueuedSink):
    """Sums up the measurements of metric marks, and sends them at an interval.

    Args:
        connection: see OtlpConfig.connection.
        export_interval_millis: how often.
        temporality: "cumulative", "delta" or "low_memory".
        max_instruments: see OpenTelemetryMetricConfig.
        cardinality_limit: see OpenTelemetryMetricConfig.

    Raises:
        ValueError: the endpoint is not an address, or a variable of `header_env` is not set.
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
        self._envelope = make_envelope(connection)
        self._writer = ValueWriter(_UNLIMITED, 1)  # attributes may be arrays
        self._transport = connect("metrics", connection)
        self._filling = Lock()
        start_ns = self._aggregator.lasting.start_ns
        self._window = Window(start_ns, start_ns)
        self._warned: set[str] = set()
        defaults: dict[str, Any] = {"schedule_delay_seconds": _interval_seconds(export_interval_millis)}
        if self._is_cumulative:
            # What fails is not lost with the attempt: the next one has it all.
            defaults["retry_deadline_seconds"] = MAX_SECONDS
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
            what = "%s: metric mark %.80r is given up: %s; others of the kind are only counted"
            logger.warning(what, rejected.cause, name, rejected)

    # ---- the queue's thread ----

    def _send(self, windows: Sequence[Window], timeout_seconds: float) -> None:
        for window in windows:
            if self._is_cumulative and self._finished and not window.marks:
                continue  # the receiver has it all
            if window.requests is None or self._is_cumulative:
                window.requests, window.lost_points = self._parts(window), 0
                window.points = sum(map(_points_of, window.requests))
            while window.requests:
                self._send_first(window, timeout_seconds)
            self._count_lost(window)
        if self._is_cumulative:
            with self._filling:
                self._ask_for_window(0)  # so that what is not measured again is told again, an interval later

    def _send_first(self, window: Window, timeout_seconds: float) -> None:
        """Sends the first of a window's requests; in halves, if it is too large. One point too large is left out."""
        assert window.requests is not None
        assert window.end_ns is not None
        part = window.requests[0]
        try:
            self._count_rejected(self._transport.send(self._encode(part, window.end_ns), timeout_seconds))
        except TooLarge as error:
            self.count_failure(error)
            window.requests[:1] = _halves(part)
            if _points_of(part) == 1:
                window.lost_points += 1
                logger.warning("a point of a metric is given up: %s", brief(error))
        else:
            del window.requests[0]

    def _encode(self, part: Part, end_ns: int) -> bytes:
        return self._envelope.request(b"".join(self._metric(table, end_ns) for table in part))

    def _count_lost(self, window: Window) -> None:
        """Counts the marks of points that were too large alone: as large a part of the window's; which is not known."""
        if window.lost_points and window.marks:
            marks = max(round(window.marks * window.lost_points / window.points), 1)
            self.count_dropped(DROP_TOO_LARGE, marks)
            self.count_exported(-marks)

    def _count_rejected(self, points: int) -> None:
        if points:
            self.count_failure(f"the receiver rejected {points} points")

    def _parts(self, window: Window) -> list[Part]:
        with self._filling:
            if window.end_ns is None or self._is_cumulative:
                window.end_ns = time.time_ns()
            tables = [*_snapshot(self._aggregator.lasting), *_snapshot(window)]
            return list(_in_requests(tables, MAX_POINTS_PER_REQUEST))

    # Points are official messages, to which their attributes are joined, encoded: see Envelope.

    def _metric(self, table: Table, end_ns: int) -> bytes:
        """A metric, as the field `metrics` of what is of one scope."""
        instrument, start_ns, all_series = table
        head = Metric(name=instrument.name, description=instrument.description or "", unit=instrument.unit or "")
        temporality = _DELTA if instrument.is_delta else _CUMULATIVE
        rest = b""
        if instrument.kind is MetricKind.Gauge:
            field, start_ns = Metric.GAUGE_FIELD_NUMBER, 0
        elif instrument.kind is MetricKind.Histogram:
            field = Metric.HISTOGRAM_FIELD_NUMBER
            rest = Histogram(aggregation_temporality=temporality).SerializeToString()
        else:
            field, is_monotonic = Metric.SUM_FIELD_NUMBER, instrument.kind is MetricKind.Counter
            rest = Sum(aggregation_temporality=temporality, is_monotonic=is_monotonic).SerializeToString()
        point = self._histogram_point if instrument.kind is MetricKind.Histogram else self._number_point
        points = b"".join(frame(1, point(instrument, series, start_ns, end_ns)) for series in all_series)
        return frame(2, head.SerializeToString() + frame(field, points + rest))

    def _number_point(self, instrument: Instrument, series: Series, start_ns: int, end_ns: int) -> bytes:
        point = NumberDataPoint(start_time_unix_nano=start_ns, time_unix_nano=end_ns)
        value = series.value
        if value.__class__ is int and -_INT64 <= value < _INT64:
            point.as_int = value
        else:
            point.as_double = value
        attributes = self._writer.attributes(series.attributes, NumberDataPoint.ATTRIBUTES_FIELD_NUMBER)
        return bytes(point.SerializeToString() + attributes)

    def _histogram_point(self, instrument: Instrument, series: Series, start_ns: int, end_ns: int) -> bytes:
        point = HistogramDataPoint(
            start_time_unix_nano=start_ns,
            time_unix_nano=end_ns,
            count=series.count,
            sum=series.value,
            bucket_counts=series.bucket_counts,
            explicit_bounds=instrument.boundaries,
        )
        attributes = self._writer.attributes(series.attributes, HistogramDataPoint.ATTRIBUTES_FIELD_NUMBER)
        extremes = HistogramDataPoint(min=series.min, max=series.max)
        return bytes(point.SerializeToString() + attributes + extremes.SerializeToString())

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
        logger.warning("the temporality %r of the environment is not one of %s; cumulative it is", asked, list(known))
    return known.get(asked, MetricTemporality.Cumulative)


def _interval_seconds(configured_millis: int) -> float:
    """The configuration's, or, where that is the default, the environment's."""
    if configured_millis == DEFAULT_EXPORT_INTERVAL_MILLIS:
        asked = whole_number("OTEL_METRIC_EXPORT_INTERVAL", MAX_TIMEOUT_MILLIS, least=1)
        configured_millis = asked or configured_millis
    return configured_millis / 1000


def _tell_of_histograms() -> None:
    """Histograms have the boundaries of their marks, or the default ones, whatever the environment prefers."""
    asked = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip()
    if asked.lower() not in ("", "explicit_bucket_histogram"):
        logger.warning("the histogram aggregation %r of the environment is not heeded: buckets are explicit", asked)


# ------------------------------------------------------------------------------------------- series


def _snapshot(window: Window) -> Iterator[Table]:
    for instrument, table in window.series.items():
        yield instrument, window.start_ns, [series.copy() for series in table.values()]


def _in_requests(tables: Part, most: int) -> Iterator[Part]:
    """For each request, tables with no more than so many points in all; one instrument may be in several."""
    part: Part = []
    room = most
    for instrument, start_ns, all_series in tables:
        rest = all_series
        while rest:
            part.append((instrument, start_ns, rest[:room]))
            rest, room = rest[room:], room - min(room, len(rest))
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


def _points_of(part: Part) -> int:
    return sum(len(all_series) for _, _, all_series in part)


def _halves(part: Part) -> list[Part]:
    """What was too large, in two; nothing, where it is one point."""
    points = _points_of(part)
    return list(_in_requests(part, (points + 1) // 2)) if points > 1 else []
