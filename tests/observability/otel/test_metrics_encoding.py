"""Requests of metrics as they are written, beside what the official SDK and encoder make of the same measurements."""

import random

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
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
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from relay_mp import (
    MetricKind,
    MetricMeasurement,
    MetricTemporality,
    MetricValueType,
    OpenTelemetryMetricConfig,
    OpenTelemetryMetricSubscriber,
)
from relay_mp._emit.metrics import METRIC_SCHEMA, measurements_payload
from relay_mp._native import core
from relay_mp.events import KIND_MARK, decode, pack_record
from relay_mp.observability.otel import metrics_sink

ATTRIBUTES = [
    {}, {"s": "ä", "i": -(2**63), "f": 1.5, "b": True}, {"l": ["x", "y"], "n": [1, 2], "m": [True, False]},
]  # fmt: skip


def measurement(lot, kind):
    goes_up = kind in (MetricKind.Counter, MetricKind.Histogram)
    value_type = lot.choice([MetricValueType.F64, MetricValueType.U64 if goes_up else MetricValueType.I64])
    value = lot.random() * 20_000 if value_type is MetricValueType.F64 else lot.randrange(20_000)
    boundaries = lot.choice([None, [0.5, 10, 1000]]) if kind is MetricKind.Histogram else None
    name = f"{kind.value}.{value_type.value}.{len(boundaries or ())}"
    unit = None if boundaries else "By"
    return MetricMeasurement(
        name, kind, value_type, value, unit=unit, description=f"of {kind.value}", boundaries=boundaries,
        attributes=lot.choice(ATTRIBUTES),
    )  # fmt: skip


def measured(lot, number):
    payload = measurements_payload([measurement(lot, kind) for kind in MetricKind])
    uuid = number.to_bytes(16)
    record = pack_record(KIND_MARK, uuid, None, core.now_us(), "m", None, data=payload, data_schema=METRIC_SCHEMA)
    return decode(record, number, 1)


def point_of(instrument, series, start_ns, end_ns):
    if instrument.kind is MetricKind.Histogram:
        return HistogramDataPoint(
            series.attributes, start_ns, end_ns, series.count, float(series.value), series.bucket_counts,
            instrument.boundaries, series.min, series.max,
        )  # fmt: skip
    return NumberDataPoint(series.attributes, start_ns, end_ns, series.value)


def official(tables, end_ns):
    """By the SDK's classes and their encoder."""
    metrics = []
    for instrument, start_ns, all_series in tables:
        temporality = AggregationTemporality.DELTA if instrument.is_delta else AggregationTemporality.CUMULATIVE
        points = [point_of(instrument, series, start_ns, end_ns) for series in all_series]
        data = {
            MetricKind.Gauge: lambda points=points: Gauge(points),
            MetricKind.Histogram: lambda points=points, t=temporality: Histogram(points, t),
            MetricKind.Counter: lambda points=points, t=temporality: Sum(points, t, is_monotonic=True),
            MetricKind.UpDownCounter: lambda points=points, t=temporality: Sum(points, t, is_monotonic=False),
        }[instrument.kind]()
        metrics.append(Metric(instrument.name, instrument.description, instrument.unit or "", data))
    scope = InstrumentationScope("mine")
    resource = Resource.create({"service.name": "svc"})
    return encode_metrics(MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")]))


@pytest.mark.parametrize("temporality", MetricTemporality)
def test_requests_are_what_the_official_encoder_makes_of_the_same(temporality):
    config = OpenTelemetryMetricConfig("http://127.0.0.1:1")
    config.service_name, config.instrumentation_scope, config.temporality = "svc", "mine", temporality
    ((_, arguments),) = OpenTelemetryMetricSubscriber(config)._sinks
    sink, lot = metrics_sink.MetricsSink(**arguments), random.Random(1)
    for number in range(1, 200):
        sink(measured(lot, number))
    assert sink.report().dropped == 0
    (part,) = sink._parts(sink._window)
    request = sink._encode(part, sink._window.end_ns)
    tables = [*metrics_sink._snapshot(sink._aggregator.lasting), *metrics_sink._snapshot(sink._window)]
    assert len(tables) == 10  # four kinds of two types; histograms of two sets of boundaries
    assert ExportMetricsServiceRequest.FromString(request) == official(tables, sink._window.end_ns)
    sink.finish(0.0)
    sink.close()


def test_what_is_measured_later_changes_no_copy():
    lot = random.Random(2)
    aggregator = metrics_sink.Aggregator(is_delta=False, max_instruments=10, cardinality_limit=10, start_ns=1)
    window = metrics_sink.Window(1)
    data = measurements_payload([measurement(lot, MetricKind.Histogram)])
    aggregator.count(aggregator.parse(data, window), window)
    ((_, _, (before,)),) = metrics_sink._snapshot(aggregator.lasting)
    aggregator.count(aggregator.parse(data, window), window)
    ((_, _, (after,)),) = metrics_sink._snapshot(aggregator.lasting)
    assert (before.count, sum(before.bucket_counts)) == (1, 1)
    assert (after.count, sum(after.bucket_counts)) == (2, 2)
