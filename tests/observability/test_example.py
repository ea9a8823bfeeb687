"""examples/exporters.py writes every format from one run."""

import json
from pathlib import Path

import trace_format
from nat.atif import Trajectory
from otlp_receiver import OtlpReceiver
from prometheus_client.parser import text_string_to_metric_families

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "exporters.py"


def test_the_example_writes_every_format(run_script, tmp_path):
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    with OtlpReceiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        said = run_script(code, EXAMPLE, tmp_path, environment=environment).stdout
        spans = receiver.spans
    assert len(spans) == 16
    assert len({span.trace_id for span in spans}) == 1
    assert "otel: 38 events, 38 exported" in said
    assert "atof: 38 events, 38 exported" in said
    assert "atif: 38 events, 36 exported, 2 none of it" in said
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 38
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "atif").iterdir())
    assert names == ["ring", "segment", "unit"]
    for path in (tmp_path / "atif").iterdir():
        Trajectory.model_validate(json.loads(path.read_text()))
    assert len(trace_format.check(json.loads((tmp_path / "trace.json").read_text()))) == 3
    families = {family.name for family in text_string_to_metric_families((tmp_path / "metrics.txt").read_text())}
    assert "relay_mp_scope_duration_seconds" in families


def test_the_example_of_a_configuration(run_script, tmp_path):
    code = "import runpy, sys; sys.path.insert(0, sys.argv[2]); runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    example = EXAMPLE.with_name("observability.py")
    wrapped = code.replace("sys.argv[2]", repr(str(EXAMPLE.parent)))
    said = run_script(wrapped, example, tmp_path, environment={"XDG_CONFIG_HOME": str(tmp_path)}).stdout.splitlines()
    assert [line for line in said if line.startswith("atof")] == ["atof.sinks[1]: observability.events_lost: 26"]
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 26
    assert [line.split("-")[0] for line in said[-4:]] == ["atif/ring", "atif/unit", "events.jsonl", "trace.json"]
