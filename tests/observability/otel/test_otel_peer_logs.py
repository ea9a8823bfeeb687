"""Marks and measurements exported by `nemo_relay` and by this library, to the same receiver: what is equal, and all
that is not.

python tests/observability/otel/test_otel_peer_logs.py KIND ENDPOINT SETTINGS
    what the peer's process does: it leaves descriptors open
"""

import importlib
import json
import os
import subprocess
import sys

import otlp_receiver
import pytest
from otlp_receiver import OtlpReceiver, attributes, plain

import relay_mp

OURS_ALONE = {"relay_mp.mark.seq", "process.pid", "thread.id"}


def export(library, kind, endpoint, settings):
    """Emits what there is of a kind, and exports it."""
    config = getattr(library, f"OpenTelemetry{kind}Config")(endpoint)
    config.service_name = "svc"
    for name, value in settings.items():
        enumeration = {"minimum_severity": "LogSeverity", "temporality": "MetricTemporality"}.get(name)
        setattr(config, name, getattr(getattr(library, enumeration), value) if enumeration else value)
    exporter = getattr(library, f"OpenTelemetry{kind}Subscriber")(config)
    exporter.register("signal")
    {"Log": marks, "Metric": measurements}[kind](library)
    library.subscribers.flush()
    exporter.force_flush()
    exporter.deregister("signal")
    exporter.shutdown()


def both(kind, **settings):
    """Two receivers: what the peer has sent, and what this library has."""
    with OtlpReceiver() as theirs, OtlpReceiver() as ours:
        command = [sys.executable, __file__, kind, theirs.endpoint, json.dumps(settings)]
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(otlp_receiver.__file__)}
        subprocess.run(command, env=environment, check=True, timeout=60)
        export(relay_mp, kind, ours.endpoint, settings)
    return theirs, ours


def marks(library):
    scope, severity = library.scope, library.LogSeverity
    scope.event("top", severity=severity.Info)
    with scope.scope("agent", library.ScopeType.Agent):
        scope.event("none", data={"a": 1})
        schema = {"name": "s.n", "version": "2"}
        data = {"b": [1, 2.5, {"c": True}], "a": "x"}
        scope.event("full", data=data, metadata={"k": "v", "n": {"d": 1}}, data_schema=schema, severity=severity.Warn)
        for value in ("text", [1, 2], 5, None, 2**63 + 5, 0.5, {}, []):
            scope.event(f"body {value}", data=value, severity=severity.Error)
        scope.event("trace", severity=severity.Trace)
        scope.event("debug", severity=severity.Debug)
        with scope.scope("inner", library.ScopeType.Tool) as inner:
            scope.event("inside", severity=severity.Info)
        scope.event("late", handle=inner, severity=severity.Info)
        count = library.MetricMeasurement("m", library.MetricKind.Counter, library.MetricValueType.U64, 1)
        scope.metric("no log", [count])


def records(receiver):
    """By the mark's name, what does not differ from run to run; ids as numbers in the order in which they come."""
    seen = {b"": 0}
    found = {}
    for record in receiver.logs:
        said = {key.replace("nemo_relay", "relay_mp"): value for key, value in attributes(record.attributes).items()}
        name = said.pop("relay_mp.mark.name")
        for varying in ("relay_mp.mark.uuid", "relay_mp.mark.parent_uuid", *OURS_ALONE):
            said.pop(varying, None)
        ids = [seen.setdefault(id_, len(seen)) for id_ in (record.trace_id, record.span_id)]
        severity = (record.severity_number, record.severity_text)
        found[name] = (severity, record.HasField("body"), plain(record.body), ids, record.flags, said)
    return found


@pytest.mark.parametrize("minimum", [pytest.param("Info", marks=pytest.mark.long), "Trace"])
def test_log_records_are_the_peers(session, minimum):
    theirs, ours = map(records, both("Log", minimum_severity=minimum))
    assert len(ours) == (13 if minimum == "Info" else 15)
    assert ours == theirs


def measurements(library):
    kinds, types = library.MetricKind, library.MetricValueType

    def measured(name, kind, value_type, value, **more):
        return library.MetricMeasurement(name, getattr(kinds, kind), getattr(types, value_type), value, **more)

    labels = {"k": "a", "n": 1, "f": 1.5, "b": True, "l": ["x", "y"]}
    for n in (1, 2, 3):
        library.scope.metric("m", [
            measured("count", "Counter", "U64", n, unit="By", description="d", attributes=labels),
            measured("open", "UpDownCounter", "I64", -n),
            measured("level", "Gauge", "F64", n + 0.5),
            measured("took", "Histogram", "F64", n * 10.0, boundaries=[5, 15, 25]),
            measured("size", "Histogram", "U64", n * 5),
        ])  # fmt: skip
    for n in range(6):
        library.scope.metric("m", [measured("many", "Counter", "F64", n / 2, attributes={"n": n})])
    library.scope.metric("m", [measured("COUNT", "Counter", "U64", 100, unit="By")])
    library.scope.metric("m", [
        measured("took", "Histogram", "F64", 1.0, boundaries=[1]),
        measured("open", "UpDownCounter", "I64", 1),
    ])  # fmt: skip
    # Each of these contradicts, and is dropped with what is beside it.
    for other in (
        measured("count", "Counter", "U64", 1),
        measured("count", "Gauge", "U64", 1, unit="By"),
        measured("count", "Counter", "F64", 1.0, unit="By"),
        measured("one.too.many", "Counter", "U64", 1),
    ):
        library.scope.metric("m", [measured("open", "UpDownCounter", "I64", 1000), other])


def series(receiver):
    """By name: descriptor, and by attributes the value, of the first export."""
    request = receiver.received["metrics"][0]
    found = {}
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        values = {}
        for point in data.data_points:
            key = str(sorted(attributes(point.attributes).items()))
            if kind == "histogram":
                bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
                values[key] = (point.count, point.sum, point.min, point.max, bounds, counts)
            else:
                values[key] = (point.WhichOneof("value"), point.as_int, point.as_double)
        temporality = getattr(data, "aggregation_temporality", None)
        monotonic = getattr(data, "is_monotonic", None)
        found[metric.name] = (metric.unit, metric.description, kind, temporality, monotonic, values)
    return found


@pytest.mark.parametrize("temporality", ["Cumulative", "Delta", pytest.param("LowMemory", marks=pytest.mark.long)])
def test_metrics_are_the_peers(session, temporality):
    theirs, ours = map(series, both("Metric", temporality=temporality, cardinality_limit=3, max_instruments=6))
    assert ours.keys() == {"count", "open", "level", "took", "size", "many"}
    assert ours == theirs


if __name__ == "__main__":
    export(importlib.import_module("nemo_relay"), sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
