"""Metrics over OTLP, to real receivers of both protocols: what arrives, what the bounds do, what faults cost."""

import os
import signal
import threading

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from otlp_receiver import OtlpReceiver, attributes
from receiver import wait_until

import relay_mp
from relay_mp import (
    MetricKind,
    MetricMeasurement,
    MetricTemporality,
    MetricValueType,
    OpenTelemetryMetricConfig,
    OpenTelemetryMetricSubscriber,
    ScopeType,
    scope,
)
from relay_mp._emit.metrics import METRIC_SCHEMA
from relay_mp.observability.otel import aggregation, metrics_sink

BOTH = pytest.mark.parametrize("session", ["thread", "process"], indirect=True)
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def subscriber(receiver, name="metrics", **settings):
    config = OpenTelemetryMetricConfig(receiver.endpoint)
    config.transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    config.limits = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.01, **settings.pop("limits", {})}
    for setting, value in settings.items():
        assert hasattr(config, setting)
        setattr(config, setting, value)
    made = OpenTelemetryMetricSubscriber(config)
    made.register(name)
    return made


def count(value=1, name="count", **more):
    return MetricMeasurement(name, MetricKind.Counter, MetricValueType.U64, value, **more)


def measure(*measurements):
    scope.metric("measured", list(measurements))


def points(metric):
    return getattr(metric, metric.WhichOneof("data")).data_points


def value(point):
    return getattr(point, point.WhichOneof("value"))


def by_attributes(metrics, name="count"):
    """Of the newest metric of that name: by sorted attributes, the value."""
    metric = [metric for metric in metrics if metric.name == name][-1]
    found = {tuple(sorted(attributes(point.attributes).items())): value(point) for point in points(metric)}
    assert len(found) == len(points(metric))
    return found


@BOTH
def test_each_kind_arrives(session, receiver):
    made = subscriber(receiver, service_name="svc", resource_attributes={"deployment": "test"})
    with scope.scope("agent", ScopeType.Agent):
        for n in (1, 2, 3):
            measure(
                count(
                    n, unit="By", description="bytes", attributes={"s": "a", "n": 1, "f": 1.5, "b": True, "l": ["x"]}
                ),
                MetricMeasurement("open", MetricKind.UpDownCounter, MetricValueType.I64, -n),
                MetricMeasurement("level", MetricKind.Gauge, MetricValueType.F64, n + 0.5),
                MetricMeasurement("took", MetricKind.Histogram, MetricValueType.F64, n * 10.0, boundaries=[5, 15, 25]),
                MetricMeasurement("size", MetricKind.Histogram, MetricValueType.U64, n * 5),
            )
    assert made.force_flush()
    (sent,) = {sent.scope.name: sent.resource for sent in receiver.sent("metrics")}.items()
    assert sent[0] == "opentelemetry"
    assert sent[1].items() >= {("service.name", "svc"), ("deployment", "test")}
    metrics = {metric.name: metric for metric in receiver.metrics}
    assert list(metrics) == ["count", "open", "level", "took", "size"]
    counter = metrics["count"]
    assert (counter.unit, counter.description) == ("By", "bytes")
    assert (counter.sum.is_monotonic, counter.sum.aggregation_temporality) == (True, CUMULATIVE)
    (point,) = counter.sum.data_points
    assert point.as_int == 6
    assert attributes(point.attributes) == {"s": "a", "n": 1, "f": 1.5, "b": True, "l": ["x"]}
    assert point.start_time_unix_nano < point.time_unix_nano
    assert (metrics["open"].sum.is_monotonic, metrics["open"].sum.data_points[0].as_int) == (False, -6)
    assert metrics["level"].gauge.data_points[0].as_double == 3.5
    (took,) = metrics["took"].histogram.data_points
    assert (took.count, took.sum, took.min, took.max) == (3, 60.0, 10.0, 30.0)
    assert (list(took.explicit_bounds), list(took.bucket_counts)) == ([5, 15, 25], [0, 1, 1, 1])
    (size,) = metrics["size"].histogram.data_points
    assert tuple(size.explicit_bounds) == aggregation.DEFAULT_BOUNDARIES
    assert (size.sum, list(size.bucket_counts)[:5]) == (30.0, [0, 1, 1, 1, 0])  # a value on a boundary is below it
    made.shutdown()
    report = session.stats().exporters["metrics"]
    assert (report.taken, report.exported, report.ignored, report.lost, report.state) == (5, 3, 2, 0, "closed")


def test_cumulative_sums_go_on_and_delta_ones_begin_anew(session, http):
    lasting = subscriber(http, "lasting", service_name="lasting")
    delta = subscriber(http, "delta", service_name="delta", temporality=MetricTemporality.Delta)
    change = MetricMeasurement("open", MetricKind.UpDownCounter, MetricValueType.I64, 1)
    for n in (1, 10):
        measure(count(n), change, MetricMeasurement("level", MetricKind.Gauge, MetricValueType.I64, n))
        assert lasting.force_flush()
        assert delta.force_flush()
    lasting.shutdown()
    delta.shutdown()
    found = {"lasting": {}, "delta": {}}
    for sent in http.sent("metrics"):
        of_name = found[sent.resource["service.name"]].setdefault(sent.item.name, [])
        of_name += [(value(point), point) for point in points(sent.item)]
    # An exporter that is flushed may have sent once more what there is.
    lasting_values = [v for v, _ in found["lasting"]["count"]]
    assert sorted(set(lasting_values)) == [1, 11]
    assert lasting_values == sorted(lasting_values)
    assert len({point.start_time_unix_nano for _, point in found["lasting"]["count"]}) == 1
    (first, before), (second, after) = found["delta"]["count"]
    assert (first, second) == (1, 10)
    assert before.start_time_unix_nano < before.time_unix_nano <= after.start_time_unix_nano < after.time_unix_nano
    assert [v for v, _ in found["delta"]["open"]] == [1, 2]
    assert [v for v, _ in found["delta"]["level"]] == [1, 10]
    temporalities = {
        (sent.resource["service.name"], sent.item.name): sent.item.sum.aggregation_temporality
        for sent in http.sent("metrics")
        if sent.item.WhichOneof("data") == "sum"
    }
    assert temporalities == {
        ("lasting", "count"): CUMULATIVE,
        ("lasting", "open"): CUMULATIVE,
        ("delta", "count"): DELTA,
        ("delta", "open"): CUMULATIVE,
    }


def test_what_is_told_apart_is_what_opentelemetry_tells_apart(session, http):
    made = subscriber(http)
    for one in (1, 1.0, True, "1", [1], [1.0], ["1"]):
        measure(count(1, attributes={"a": one}))
    measure(count(1, attributes={}), count(2), count(4, name="COUNT"))
    assert made.force_flush()
    (metric,) = http.metrics
    assert metric.name == "count"
    assert sorted(value(point) for point in points(metric)) == [1] * 7 + [7]
    made.shutdown()


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
def test_attribute_sets_are_bounded_and_what_overflows_is_counted(session, http, temporality):
    made = subscriber(http, cardinality_limit=3, temporality=temporality)
    for _ in range(2):
        for n in range(5):
            measure(count(1, attributes={"n": n}))
    measure(count(1, attributes={"large": "x" * aggregation.MAX_ATTRIBUTES_BYTES}))
    assert made.force_flush()
    assert by_attributes(http.metrics) == {
        (("n", 0),): 2,
        (("n", 1),): 2,
        (("n", 2),): 2,
        (("otel.metric.overflow", True),): 5,
    }
    assert made.report()["metrics"].overflowed == 5
    assert made.runtime_diagnostics().get("otel.metric_cardinality_limit").count == 5
    made.shutdown()


def test_a_mark_that_contradicts_is_given_up_as_a_whole(session, http, caplog):
    made = subscriber(http, max_instruments=2)
    measure(count(1, unit="By"))
    other = count(5, name="other")
    measure(other, count(1))
    measure(other, MetricMeasurement("count", MetricKind.Counter, MetricValueType.F64, 1.0, unit="By"))
    measure(MetricMeasurement("Count", MetricKind.Gauge, MetricValueType.U64, 1, unit="By"), other)
    measure(other, count(5, name="third"))
    measure(count(2, unit="By", description="new"))
    assert made.force_flush()
    assert [(metric.name, value(points(metric)[0])) for metric in http.metrics] == [("count", 3)]
    measure(other)
    made.shutdown()
    assert by_attributes(http.metrics, "other") == {(): 5}
    report = session.stats().exporters["metrics"]
    assert report.drops == {"descriptor_conflict": 3, "instrument_limit": 1}
    assert (report.taken, report.exported, report.queued) == (7, 3, 0)
    warnings = [record.getMessage() for record in caplog.records if "is given up" in record.getMessage()]
    assert len(warnings) == 2
    assert "'count' is a u64 counter in None; it was a u64 counter in 'By'" in warnings[0]


GOOD = {"kind": "counter", "value_type": "u64", "value": 1, "unit": None, "description": None, "boundaries": None}


BAD_VALUES = [
    {"value": None},
    {"value": -1},
    {"value": "1"},
    {"value": 1.5},
    {"value": True},
    {"value_type": "f64", "name": "y", "value": float("nan")},
    {"value_type": "f64", "name": "y", "value": "5"},
    {"kind": "thermometer"},
    {"name": "9"},
    {"name": None},
    {"attributes": {"a": None}},
    {"attributes": {"a": {}}},
    {"attributes": 5},
    {"boundaries": [1]},
    {"unit": "x" * 64, "name": "y"},
]


def test_measurements_that_no_call_has_checked_are(session, http):
    made = subscriber(http)
    given = [{"name": "x", "attributes": None, **GOOD, **bad} for bad in BAD_VALUES]
    good = {"name": "x", "attributes": None, **GOOD}
    odd = [None, 5, {"measurements": 5}, {"measurements": [5]}, {"measurements": [{"name": "x"}]}]
    odd += [{"measurements": [good, one]} for one in given]
    for number, data in enumerate(odd, 1):
        scope.event("by hand", data=data, data_schema=METRIC_SCHEMA)
        relay_mp.subscribers.flush()
        assert made.report()["metrics"].drops == {"invalid_measurement": number}, data
    measure(count(7, name="x"))
    made.shutdown()
    assert [metric.name for metric in http.metrics] == ["x"]
    assert by_attributes(http.metrics, "x") == {(): 7}


def test_sums_beyond_64_bits_and_odd_texts_arrive(session, http):
    made = subscriber(http)
    largest = 2**63 - 1
    odd = "".join(map(chr, range(32))) + "\x7f\u2028\U0001f600"
    measure(count(largest), count(largest), count(1, name="odd", unit="\x00\t", description=odd, attributes={odd: odd}))
    measure(count(1, name="surrogate", attributes={"a": "\ud800"}))
    for bad in (float("nan"), float("inf")):
        measure(MetricMeasurement("bad", MetricKind.Gauge, MetricValueType.F64, bad))
    assert made.force_flush()
    assert by_attributes(http.metrics) == {(): 2.0**64}
    (metric,) = [metric for metric in http.metrics if metric.name == "odd"]
    assert not [metric for metric in http.metrics if metric.name == "bad"]
    assert by_attributes(http.metrics, "surrogate") == {(("a", "\ufffd"),): 1}
    assert (metric.unit, metric.description) == ("\x00\t", odd)
    assert attributes(metric.sum.data_points[0].attributes) == {odd: odd}
    made.shutdown()


def test_large_exports_go_out_in_several_requests(session, http, monkeypatch):
    monkeypatch.setattr(metrics_sink, "MAX_POINTS_PER_REQUEST", 10)
    made = subscriber(http)
    for n in range(25):
        measure(count(n, attributes={"n": n}), count(n, name=f"c{n % 5}", attributes={"n": n}))
    made.shutdown()
    sizes = [
        sum(len(points(m)) for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics)
        for request in http.received["metrics"]
    ]
    assert sizes == [10] * 5
    found = {}
    for metric in http.metrics:
        for point in points(metric):
            found[metric.name, attributes(point.attributes)["n"]] = value(point)
    assert found == {(name, n): n for n in range(25) for name in ("count", f"c{n % 5}")}


# -------------------------------------------------------------------------------- when it is sent


def test_it_exports_at_the_interval_also_when_nothing_is_measured(session, http):
    made = subscriber(http, export_interval_millis=20)
    measure(count())
    http.await_acknowledged("metrics", 4)
    made.shutdown()
    assert {value(points(metric)[0]) for metric in http.metrics} == {1}
    times = [points(metric)[0].time_unix_nano for metric in http.metrics]
    assert times == sorted(set(times))


def test_delta_exports_only_what_is_new(session, http):
    made = subscriber(http, export_interval_millis=1, temporality=MetricTemporality.Delta)
    measure(count())
    http.await_acknowledged("metrics", 1)
    assert made.force_flush()
    assert made.force_flush()
    made.shutdown()
    assert http.requests == 1


@pytest.mark.parametrize(("protocol", "dispatcher"), [("http/protobuf", "thread"), ("grpc", "process")])
def test_the_environment_is_honoured_where_the_dispatcher_runs(monkeypatch, protocol, dispatcher):
    with OtlpReceiver(protocol) as receiver:
        environment_is_honoured(receiver, monkeypatch, dispatcher)


def environment_is_honoured(receiver, monkeypatch, dispatcher):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", receiver.protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=secret")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from the environment")
    with relay_mp.session(dispatcher=dispatcher):
        made = OpenTelemetryMetricSubscriber(OpenTelemetryMetricConfig())
        made.register("metrics")
        measure(count())
        receiver.await_acknowledged("metrics")
        made.shutdown()
    (sent,) = receiver.sent("metrics")
    assert sent.item.sum.aggregation_temporality == DELTA
    assert sent.resource.items() >= {("service.name", "from the environment"), ("team", "blue")}
    assert {name.lower(): value for name, value in receiver.headers[0].items()}["api-key"] == "secret"


def test_odd_values_in_the_environment_are_said_and_have_no_effect(session, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "soon")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both")
    with OtlpReceiver() as receiver:
        made = subscriber(receiver)
        measure(count())
        made.shutdown()
        assert receiver.metrics[0].sum.aggregation_temporality == CUMULATIVE
    said = [record.getMessage() for record in caplog.records]
    assert any("'soon'" in text for text in said)
    assert any("'both'" in text for text in said)


@pytest.mark.parametrize("asked", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_histograms_have_explicit_buckets_and_who_prefers_others_is_told(session, monkeypatch, caplog, http, asked):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", asked)
    made = subscriber(http)
    measure(MetricMeasurement("h", MetricKind.Histogram, MetricValueType.F64, 7.0))
    made.shutdown()
    assert sum(http.metrics[0].histogram.data_points[0].bucket_counts) == 1
    assert (asked in caplog.text) is (asked != "explicit_bucket_histogram")


def test_nothing_is_exported_where_the_sdk_is_disabled(session, http, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    made = subscriber(http)
    measure(count())
    assert made.force_flush()
    made.shutdown()
    assert http.requests == 0
    assert session.stats().exporters["metrics"].ignored == 1


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
@pytest.mark.parametrize("step", ["unavailable", ("throttled", 0), "cut"])
def test_what_fails_for_the_moment_is_sent_again(session, receiver, step, temporality):
    made = subscriber(receiver, temporality=temporality)
    receiver.plan += [step, step]
    measure(count(1))
    measure(count(2))
    assert made.force_flush()
    assert by_attributes(receiver.metrics) == {(): 3}
    made.shutdown()
    report = session.stats().exporters["metrics"]
    assert (report.exported, report.failures, report.lost) == (2, 2, 0)


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
def test_what_is_measured_while_a_receiver_is_down_arrives_once_it_is_up(session, receiver, temporality):
    made = subscriber(receiver, temporality=temporality, export_interval_millis=1)
    receiver.down()
    for n in range(100):
        measure(count(n))
    wait_until(lambda: made.report()["metrics"].failures)
    measure(count(1000))
    receiver.up()
    assert made.force_flush()
    made.shutdown()
    if temporality is MetricTemporality.Delta:
        assert sum(value(points(metric)[0]) for metric in receiver.metrics) == 4950 + 1000
    else:
        assert by_attributes(receiver.metrics) == {(): 4950 + 1000}
    report = session.stats().exporters["metrics"]
    assert (report.exported, report.lost, report.queued) == (101, 0, 0)


def test_a_receiver_that_is_slow_holds_up_nothing(session, receiver):
    made = subscriber(receiver, limits={"timeout_seconds": 0.1})
    receiver.plan += ["stall"]
    seen = threading.Event()
    measure(count(1))
    relay_mp.subscribers.flush()
    session.request_exporter_flush("metrics")
    receiver.await_request()
    relay_mp.subscribers.register("seen", lambda event: seen.set())
    measure(count(2))
    assert seen.wait(30)
    relay_mp.subscribers.deregister("seen")
    receiver.release.set()
    assert made.force_flush()
    assert by_attributes(receiver.metrics) == {(): 3}
    made.shutdown()


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
def test_what_is_refused_is_counted(session, receiver, temporality):
    made = subscriber(receiver, temporality=temporality)
    receiver.plan += ["refused"]
    measure(count(1))
    measure(count(2))
    assert made.force_flush()
    assert made.report()["metrics"].drops == {"refused": 2}
    diagnostics = made.runtime_diagnostics()
    assert diagnostics.get("otel.metrics_export_failed").count == 1
    assert diagnostics.get("otel.metrics_dropped.refused").count == 2
    measure(count(4))
    made.shutdown()
    # A cumulative sum has it all the same.
    assert by_attributes(receiver.metrics) == {(): 7 if temporality is MetricTemporality.Cumulative else 4}
    assert session.stats().exporters["metrics"].exported == 1


def test_points_that_a_receiver_rejects_are_said(session, receiver):
    made = subscriber(receiver)
    receiver.plan += [("partial", 1, "too old")]
    measure(count(1))
    assert made.force_flush()
    made.shutdown()
    report = session.stats().exporters["metrics"]
    assert (report.exported, report.failures, report.last_error) == (1, 1, "the receiver rejected 1 points")


@pytest.mark.parametrize("temporality", [MetricTemporality.Cumulative, MetricTemporality.Delta])
def test_shutdown_gives_up_what_cannot_be_sent_and_counts_it(session, http, temporality):
    made = subscriber(http, temporality=temporality, limits={"shutdown_timeout_seconds": 0.1})
    http.down()
    measure(count(1))
    measure(count(2))
    made.shutdown()
    report = session.stats().exporters["metrics"]
    assert (report.state, report.drops, report.exported) == ("closed", {"shutdown": 2}, 0)


def test_delta_measurements_are_given_up_at_the_deadline(session, http):
    limits = {"retry_deadline_seconds": 0.05}
    made = subscriber(http, temporality=MetricTemporality.Delta, limits=limits, export_interval_millis=1)
    http.down()
    measure(count(1))
    assert made.force_flush()
    assert made.report()["metrics"].drops == {"deadline": 1}
    http.up()
    measure(count(2))
    assert made.force_flush()
    assert by_attributes(http.metrics) == {(): 2}
    made.shutdown()


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_after_a_killed_dispatcher_sums_begin_anew_and_the_rest_is_counted(session, http):
    made = subscriber(http)
    measure(count(1))
    assert made.force_flush()
    http.plan += ["stall"]
    for _ in range(3):
        measure(count(10))
    relay_mp.subscribers.flush()
    session.request_exporter_flush("metrics")
    wait_until(lambda: http.requests == 2)  # in mid-batch
    os.kill(session._segment.lease()[1], signal.SIGKILL)
    http.release.set()
    measure(count(100))
    assert made.force_flush()
    found = [(point.start_time_unix_nano, value(point)) for metric in http.metrics for point in points(metric)]
    starts = sorted({start for start, _ in found})
    last = {start: [value for begun, value in found if begun == start][-1] for start in starts}
    assert len(starts) == 2
    made.shutdown()
    report = session.stats().exporters["metrics"]
    # At most one is delivered again; what the first run has taken and not exported may be lost.
    assert last[starts[1]] in (100, 110)
    assert report.unconfirmed >= 3 - (last[starts[1]] == 110)
    assert report.taken == report.exported + report.unconfirmed


# -------------------------------------------------------------------------------------- processes


WORKERS = """
import asyncio, sys
import relay_mp
from relay_mp import MetricKind, MetricMeasurement, MetricTemporality, MetricValueType, pools, scope
from relay_mp import OpenTelemetryMetricConfig, OpenTelemetryMetricSubscriber

def work(worker):
    for n in range(200):
        labels = {"worker": worker, "even": n % 2 == 0}
        scope.metric("measured", [
            MetricMeasurement("all", MetricKind.Counter, MetricValueType.U64, n),
            MetricMeasurement("each", MetricKind.Counter, MetricValueType.U64, n, attributes=labels),
            MetricMeasurement("took", MetricKind.Histogram, MetricValueType.U64, n, boundaries=[50, 100]),
            MetricMeasurement("open", MetricKind.UpDownCounter, MetricValueType.I64, 1 if n % 2 == 0 else -1),
            MetricMeasurement("last", MetricKind.Gauge, MetricValueType.I64, n, attributes={"worker": worker}),
        ])

if __name__ == "__main__":
    endpoint, transport, temporality, dispatcher = sys.argv[1:]
    with relay_mp.session(dispatcher=dispatcher) as session:
        config = OpenTelemetryMetricConfig(endpoint)
        config.transport, config.temporality = transport, MetricTemporality[temporality]
        config.export_interval_millis = 5
        made = OpenTelemetryMetricSubscriber(config)
        made.register("metrics")
        workers = [pools.Process(target=work, args=(n,)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(worker.exitcode == 0 for worker in workers)
        made.shutdown()
        report = session.stats().exporters["metrics"]
        assert (report.exported, report.lost, report.queued) == (1600, 0, 0), report
"""


def sums_of_processes(receiver, temporality, dispatcher, run_script):
    transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    run_script(WORKERS, receiver.endpoint, transport, temporality, dispatcher)
    sums, lasts, histogram = {}, {}, [0, 0, 0]
    for metric in receiver.metrics:
        for point in points(metric):
            key = (metric.name, *sorted(attributes(point.attributes).items()))
            if metric.name == "took":
                counts = list(point.bucket_counts)
                histogram = (
                    counts if temporality == "Cumulative" else [a + b for a, b in zip(histogram, counts, strict=True)]
                )
            elif metric.name == "last":
                lasts[key] = value(point)
            elif temporality == "Delta" and metric.name != "open":
                sums[key] = sums.get(key, 0) + value(point)
            else:
                sums[key] = value(point)
    halves = {True: sum(range(0, 200, 2)), False: sum(range(1, 200, 2))}
    assert sums == {
        ("all",): 8 * sum(range(200)),
        ("open",): 0,
        **{("each", ("even", even), ("worker", n)): halves[even] for n in range(8) for even in halves},
    }
    assert lasts == {("last", ("worker", n)): 199 for n in range(8)}
    assert histogram == [8 * 51, 8 * 50, 8 * 99]


@pytest.mark.parametrize(
    ("protocol", "temporality", "dispatcher"),
    [("http/protobuf", "Cumulative", "thread"), ("grpc", "Delta", "process")],
)
def test_the_sums_of_many_processes_are_the_sums_of_what_they_measured(protocol, temporality, dispatcher, run_script):
    with OtlpReceiver(protocol) as receiver:
        sums_of_processes(receiver, temporality, dispatcher, run_script)


@pytest.mark.long
@pytest.mark.parametrize("dispatcher", ["thread", "process"])
@pytest.mark.parametrize("temporality", ["Cumulative", "Delta"])
def test_the_sums_of_many_processes_in_all_combinations(receiver, temporality, dispatcher, run_script):
    sums_of_processes(receiver, temporality, dispatcher, run_script)


# ------------------------------------------------------------------------------- what is misused


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("temporality", "delta", TypeError),
        ("export_interval_millis", 0, ValueError),
        ("export_interval_millis", 1.5, TypeError),
        ("max_instruments", 0, ValueError),
        ("cardinality_limit", 0, ValueError),
        ("transport", "carrier pigeon", ValueError),
        ("limits", 5, TypeError),
    ],
)
def test_misuse_is_said_at_once(name, value, error):
    config = OpenTelemetryMetricConfig("http://127.0.0.1:1")
    setattr(config, name, value)
    with pytest.raises(error, match=name):
        OpenTelemetryMetricSubscriber(config)
