"""examples/exporters.py writes every format from one run."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import trace_format
from google.protobuf import json_format
from nat.atif import Trajectory
from otlp_receiver import SIGNALS, OtlpReceiver
from prometheus_client.parser import text_string_to_metric_families

from relay_mp import plugin
from relay_mp.observability import ObservabilityConfig

RUN = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "exporters.py"


def test_the_example_writes_every_format(run_script, tmp_path):
    said = run_script(RUN, EXAMPLE, tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": ""}).stdout
    found = {signal: sent(tmp_path / "otlp" / f"{signal}.jsonl", signal) for signal in SIGNALS}
    assert {signal: len(items) for signal, items in found.items()} == {"traces": 16, "logs": 6, "metrics": 1}
    assert len({span.trace_id for span in found["traces"]}) == 1
    assert found["metrics"][0].histogram.data_points[0].sum == len("segment" + "ring" + "unit")
    assert "otel traces: 41 events, 41 exported" in said
    assert "otel logs: 41 events, 6 exported" in said
    assert "otel metrics: 41 events, 3 exported" in said
    assert "prometheus: 41 events, 41 exported" in said
    assert "atof: 41 events, 41 exported" in said
    assert "atif: 41 events, 39 exported, 2 none of it" in said
    assert "left out" not in said
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 41
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "atif").iterdir())
    assert names == ["ring", "segment", "unit"]
    for path in (tmp_path / "atif").iterdir():
        Trajectory.model_validate(json.loads(path.read_text()))
    assert len(trace_format.check(json.loads((tmp_path / "trace.json").read_text()))) == 3
    families = {family.name for family in text_string_to_metric_families((tmp_path / "metrics.txt").read_text())}
    assert "relay_mp_scope_duration_seconds" in families


def sent(path, signal):
    """What the stand-in has kept of a signal, a request a line."""
    names = SIGNALS[signal]
    requests = [json_format.Parse(line, names.request()) for line in path.read_text().splitlines()]
    return [
        item
        for request in requests
        for of_resource in getattr(request, names.resources)
        for of_scope in getattr(of_resource, names.scopes)
        for item in getattr(of_scope, names.items)
    ]


def test_the_example_sends_to_the_receiver_of_the_environment(run_script, tmp_path):
    with OtlpReceiver() as receiver:
        run_script(RUN, EXAMPLE, tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
        assert (len(receiver.spans), len(receiver.logs), len(receiver.metrics)) == (16, 6, 1)
    assert not (tmp_path / "otlp").exists()


def test_the_example_of_a_configuration(run_script, tmp_path):
    code = "import runpy, sys; sys.path.insert(0, sys.argv[2]); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    example = EXAMPLE.with_name("observability.py")
    wrapped = code.replace("sys.argv[2]", repr(str(EXAMPLE.parent)))
    said = run_script(wrapped, example, tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path)}).stdout.splitlines()
    assert [line for line in said if line.startswith("atof")] == ["atof.sinks[1]: observability.events_lost: 28"]
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 28
    assert [line.split("-")[0] for line in said[-4:]] == ["atif/ring", "atif/unit", "events.jsonl", "trace.json"]


def test_the_configurations_file_has_every_section(monkeypatch):
    """The guide says so: each can be tried by setting its `enabled`."""
    (component,) = tomllib.loads(EXAMPLE.with_name("observability.toml").read_text())["components"]
    sections = {field.name for field in fields(ObservabilityConfig)} - {"version", "policy", "enable_full_payloads"}
    assert set(component["config"]) == sections
    assert set(component["config"]["opentelemetry"]) == {"enabled", "endpoints", "logs", "metrics"}
    monkeypatch.setenv("COLLECTOR_TOKEN", "Bearer none")
    assert plugin.validate({"components": [every_one_enabled(component)]})["diagnostics"] == []


def every_one_enabled(value):
    if isinstance(value, dict):
        return {key: True if key == "enabled" else every_one_enabled(item) for key, item in value.items()}
    return [every_one_enabled(item) for item in value] if isinstance(value, list) else value
