"""8 processes x 200 agents, interleaved: what every exporter writes is the same forest as the JSON lines."""

import json
import re
import urllib.request
from collections import Counter

import agents
import pytest
import trace_format
from nat.atif import Trajectory
from otlp_receiver import OtlpReceiver
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver
from spans import nodes_by_span_id, nodes_of_spans

from relay_mp import (
    AtifFileExporter,
    AtofExporter,
    AtofExporterConfig,
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    PerfettoExporter,
    PrometheusExporter,
    subscribers,
)

PROCESSES, AGENTS_EACH = 8, 200
FLUSH_SECONDS = 200


def file_config(directory):
    config = AtofExporterConfig()
    config.output_directory, config.filename = str(directory), "events.jsonl"
    return config


def stream_config(url):
    config = AtofExporterConfig()
    config.sink_type, config.url, config.transport = "stream", url, "ndjson"
    config.limits = {"max_queue_items": 100_000, "shutdown_timeout_seconds": FLUSH_SECONDS}
    return config


def otel(receiver):
    config = OpenTelemetryConfig("full", receiver.endpoint)
    config.transport = "grpc" if receiver.protocol == "grpc" else "http_binary"
    config.limits = {"max_queue_items": 100_000, "shutdown_timeout_seconds": FLUSH_SECONDS}
    return OpenTelemetrySubscriber(config)


@pytest.mark.parametrize(
    ("session", "protocol"),
    [("thread", "http/protobuf"), pytest.param("process", "grpc", marks=pytest.mark.long)],
    indirect=["session"],
)
def test_every_export_is_the_forest_of_the_json_lines(session, protocol, tmp_path):
    prometheus = PrometheusExporter(max_names=10_000)
    with Receiver() as receiver, OtlpReceiver(protocol) as otlp:
        exporters = {
            "atof": AtofExporter([file_config(tmp_path), stream_config(receiver.url)]),
            "atif": AtifFileExporter(tmp_path / "atif"),
            "perfetto": PerfettoExporter(tmp_path / "trace.json"),
            "prometheus": prometheus,
            "otel": otel(otlp),
        }
        for name, exporter in exporters.items():
            exporter.register(name)
        agents.run(PROCESSES, AGENTS_EACH)
        subscribers.flush(FLUSH_SECONDS)
        with urllib.request.urlopen(prometheus.url, timeout=30) as answer:
            metrics = answer.read().decode()
        for exporter in exporters.values():
            exporter.shutdown(FLUSH_SECONDS)
        streamed = b"".join(receiver.bodies)
        spans = otlp.spans

    lines = (tmp_path / "events.jsonl").read_bytes()
    truth = agents.nodes_of_lines(lines.splitlines())
    events = PROCESSES * AGENTS_EACH * agents.EVENTS_PER_AGENT + 2
    check_reports(session, events)
    assert lines.count(b"\n") == events
    assert streamed == lines
    check_trajectories(tmp_path / "atif", truth)
    check_trace(tmp_path / "trace.json", truth)
    check_metrics(metrics, truth)
    check_spans(spans, truth)


def check_reports(session, events):
    for name, report in session.stats().exporters.items():
        assert (report.state, report.taken, report.lost) == ("closed", events, 0), name
        assert (report.orphans, report.unfinished, report.evicted, report.failures) == (0, 0, 0, 0), name
        assert report.exported == events - report.ignored, name
        assert report.ignored == (2 if name == "atif" else 0), name  # the scope around all agents
    assert session.stats().subscriber_errors == session.stats().lost == 0


def check_trajectories(directory, truth):
    found = {}
    for path in directory.iterdir():
        trajectory = json.loads(path.read_text())
        Trajectory.model_validate(trajectory)
        found |= agents.nodes_of_trajectory(trajectory)
    assert len(list(directory.iterdir())) == PROCESSES * AGENTS_EACH
    assert found == {uuid: node for uuid, node in truth.items() if node[0] != "run"}


def check_trace(path, truth):
    events = json.loads(path.read_text())
    assert agents.nodes_of_trace(events) == truth
    reached = trace_format.check(events)
    (run,) = [uuid for uuid, node in truth.items() if node[0] == "run"]
    assert Counter(run for _, node in reached if truth[node][2] == "agent") == {run: PROCESSES * AGENTS_EACH}
    assert all(truth[child][1] == parent == run for parent, child in reached)


def check_metrics(text, truth):
    families = {family.name: family for family in text_string_to_metric_families(text)}
    expected = Counter((node[2] or "mark", node[0]) for node in truth.values())
    for name, kinds in {"relay_mp_scopes_started": expected, "relay_mp_marks": expected}.items():
        found = {
            (sample.labels["category"], sample.labels["name"]): sample.value
            for sample in families[name].samples
            if sample.name.endswith("_total")
        }
        is_mark = name == "relay_mp_marks"
        assert found == {key: count for key, count in kinds.items() if (key[0] == "mark") == is_mark}
    ended = sum(
        sample.value for sample in families["relay_mp_scope_duration_seconds"].samples if sample.name.endswith("_count")
    )
    assert ended == sum(count for (category, _), count in expected.items() if category != "mark")
    assert re.search(r"^relay_mp_open_scopes 0\.0$", text, re.MULTILINE)


def check_spans(spans, truth):
    assert nodes_of_spans(spans) == nodes_by_span_id(truth)
    (run,) = [uuid for uuid, node in truth.items() if node[0] == "run"]
    assert {span.trace_id.hex() for span in spans} == {run.replace("-", "")}
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    workers = {value.value.int_value for span in spans for value in span.attributes if value.key == "process.pid"}
    assert len(workers) == PROCESSES + 1
