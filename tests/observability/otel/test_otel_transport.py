"""What OTLP's two ways have in common: what they bring into the process, and what they say of what they were told."""

import json

import pytest
from otlp_receiver import PROTOCOLS, SIGNALS, OtlpReceiver

from relay_mp import OpenTelemetryConfig, OpenTelemetrySubscriber, ScopeType, scope

QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05, "schedule_delay_seconds": 0.01}
SECRET = "sk-0123456789"

EXPORTING = """
import json, os, sys
import relay_mp
from relay_mp import scope

signal, transport, endpoint = sys.argv[1:]
config, subscriber = {
    "traces": (relay_mp.OpenTelemetryConfig("openinference", endpoint), relay_mp.OpenTelemetrySubscriber),
    "logs": (relay_mp.OpenTelemetryLogConfig(endpoint), relay_mp.OpenTelemetryLogSubscriber),
    "metrics": (relay_mp.OpenTelemetryMetricConfig(endpoint), relay_mp.OpenTelemetryMetricSubscriber),
}[signal]
config.transport = transport
measured = [relay_mp.MetricMeasurement("seconds", relay_mp.MetricKind.Gauge, relay_mp.MetricValueType.F64, 1.0)]
with relay_mp.session() as session:
    exporter = subscriber(config)
    exporter.register("otlp")
    with scope.scope("work", relay_mp.ScopeType.Agent):
        scope.event("said")
        scope.metric("took", measured)
    exporter.shutdown()
    assert session.stats().exporters["otlp"].exported > 0
print(json.dumps(["grpc" in sys.modules, os.environ.get("GRPC_ENABLE_FORK_SUPPORT")]))
"""


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)


@pytest.mark.parametrize("signal", SIGNALS)
def test_over_http_grpc_is_not_in_the_process(run_script, signal):
    """Nor are its fork handlers switched off for who uses it otherwise."""
    with OtlpReceiver() as receiver:
        assert json.loads(run_script(EXPORTING, signal, "http_binary", receiver.endpoint).stdout) == [False, None]


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("1", "1")])
def test_over_grpc_its_fork_handlers_are_off_unless_the_environment_says_otherwise(
    run_script, monkeypatch, given, expected
):
    if given is not None:
        monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", given)
    with OtlpReceiver("grpc") as receiver:
        assert json.loads(run_script(EXPORTING, "traces", "grpc", receiver.endpoint).stdout) == [True, expected]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_receiver_says_is_told_without_the_credentials_that_it_repeats(session, caplog, protocol):
    plan = ["refused", ("partial", 1, f"not for Bearer {SECRET}")]
    with OtlpReceiver(protocol, plan=plan) as receiver:
        config = OpenTelemetryConfig("full", receiver.endpoint)
        config.transport = "grpc" if protocol == "grpc" else "http_binary"
        config.headers, config.limits = {"authorization": f"Bearer {SECRET}"}, {**QUICK, "max_batch_items": 1}
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        for name in "ab":
            with scope.scope(name, ScopeType.Function):
                pass
        exporter.shutdown()
        assert [headers["authorization"] for headers in map(_lowered, receiver.headers)] == [f"Bearer {SECRET}"] * 2
    report = session.stats().exporters["traces"]
    assert report.drops == {"refused": 2, "rejected": 2}
    assert "because of" in caplog.text
    assert "not for ***" in caplog.text
    assert SECRET not in report.last_error + caplog.text


def _lowered(headers):
    return {name.lower(): value for name, value in headers.items()}
