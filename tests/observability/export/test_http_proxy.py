"""Exporters behind a proxy: which requests go through it, how, and that nobody is told its password.

The receivers' names are known to the proxy alone: what arrives has come through it.
"""

import json
import subprocess
import sys

import pytest
import trustme
from otlp_receiver import OtlpReceiver, ServerTls
from proxy import Proxy
from receiver import WAIT_SECONDS, Receiver, wait_until

import relay_mp
from relay_mp import (
    AtifFileExporter,
    AtofExporter,
    AtofExporterConfig,
    OpenTelemetryConfig,
    OpenTelemetrySubscriber,
    ScopeType,
    scope,
)
from relay_mp.observability import HttpStorageConfig
from relay_mp.observability.export.http import proxy_of

QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05, "schedule_delay_seconds": 0.01}
BRIEF = {**QUICK, "timeout_seconds": WAIT_SECONDS, "shutdown_timeout_seconds": 0.1}
"""For what never works, at an attempt's leisure: what is said of one that was cut short is that it was."""
HOST = "collector.example"
USER, PASSWORD = "planner", "pass:word/1"
CREDENTIALS = f"{USER}:{PASSWORD}"
QUOTED = f"{USER}:pass%3Aword%2F1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "grpc_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def traces(endpoint, limits=QUICK, transport="http_binary", name="traces"):
    config = OpenTelemetryConfig("full", endpoint)
    config.transport, config.limits = transport, dict(limits)
    exporter = OpenTelemetrySubscriber(config)
    exporter.register(name)
    return exporter


def emit():
    with scope.scope("work", ScopeType.Agent):
        pass


def said(receiver):
    return [span.name for span in receiver.spans]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_plain_http_goes_through_the_proxy_in_absolute_form(session, monkeypatch, variable):
    with OtlpReceiver() as receiver, Proxy({HOST: receiver.port}) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        exporter = traces(f"http://{HOST}:{receiver.port}/v1/traces")
        emit()
        assert exporter.force_flush() is True
        emit()
        exporter.shutdown()
        assert said(receiver) == ["work", "work"]
    method, target, headers = proxy.asked[0]
    assert (method, target) == ("POST", f"http://{HOST}:{receiver.port}/v1/traces")
    assert headers["Host"] == f"{HOST}:{receiver.port}"
    assert len(proxy.asked) == 2


def test_tls_goes_through_a_tunnel_of_which_the_proxy_sees_nothing(session, monkeypatch, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    files = {"authority": authority.cert_pem, "chain": issued.cert_chain_pems[0], "key": issued.private_key_pem}
    for name, blob in files.items():
        blob.write_to_path(str(tmp_path / name))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "authority"))
    tls = ServerTls(str(tmp_path / "chain"), str(tmp_path / "key"))
    with OtlpReceiver(tls=tls) as receiver, Proxy({HOST: receiver.port}, CREDENTIALS) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{QUOTED}@{proxy.place}")
        config = OpenTelemetryConfig("full", f"https://{HOST}")
        config.headers, config.limits = {"api-key": "of the receiver"}, dict(QUICK)
        exporter = OpenTelemetrySubscriber(config)
        exporter.register("traces")
        emit()
        assert exporter.force_flush() is True
        exporter.shutdown()
        assert said(receiver) == ["work"]
        assert receiver.headers[0]["api-key"] == "of the receiver"
        assert not [name for name in receiver.headers[0] if name.lower().startswith("proxy")]
    ((method, target, headers),) = proxy.asked
    assert (method, target) == ("CONNECT", f"{HOST}:443")
    assert "of the receiver" not in str(headers)


def test_streams_and_trajectories_go_through_it_too(session, monkeypatch):
    with Receiver() as receiver, Proxy({HOST: int(receiver.url.split(":")[2].split("/")[0])}, CREDENTIALS) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"{QUOTED}@{proxy.place}")  # without a scheme, as many write it
        config = AtofExporterConfig()
        config.sink_type, config.url, config.limits = "stream", f"http://{HOST}/events?q=1", dict(QUICK)
        atif = AtifFileExporter(storage=HttpStorageConfig(f"http://{HOST}/runs"), limits=dict(QUICK))
        exporters = {"atof": AtofExporter(config), "atif": atif}
        for name, exporter in exporters.items():
            exporter.register(name)
        emit()
        for exporter in exporters.values():
            exporter.shutdown()
        assert {name: report.lost for name, report in session.stats().exporters.items()} == {"atof": 0, "atif": 0}
        assert not [name for headers in receiver.headers for name in headers if name.startswith("Proxy")]
    assert {target for _, target, _ in proxy.asked} == {f"http://{HOST}/events?q=1", f"http://{HOST}/runs"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("repeats", [False, True])
def test_a_proxy_that_lets_nobody_in_is_named_and_its_password_is_nowhere(
    session, monkeypatch, caplog, capfd, scheme, repeats
):
    """Not even if it repeats what it was sent."""
    with Proxy({}, "someone:else") as proxy:
        proxy.repeats = repeats
        monkeypatch.setenv(f"{scheme}_proxy", f"http://{QUOTED}@{proxy.place}")
        exporter = traces(f"{scheme}://{HOST}", BRIEF)
        emit()
        wait_until(lambda: session.stats().exporters["traces"].failures)
        last_error = session.stats().exporters["traces"].last_error
        exporter.shutdown()
        shown = proxy.asked[0][2]["Proxy-Authorization"]
    report = session.stats().exporters["traces"]
    assert (report.taken, report.exported) == (2, 0)
    assert sum(report.drops.values()) == 2
    assert f"by the proxy http://{proxy.place}" in last_error
    assert "407" in last_error
    texts = [last_error, report.last_error, repr(exporter), repr(session.stats()), str(exporter.runtime_diagnostics())]
    session.close()
    texts += [caplog.text, *capfd.readouterr()]
    secrets = [PASSWORD, QUOTED, shown.split()[1]]
    assert [secret for secret in secrets for text in texts if secret in text] == []


def test_a_proxy_that_is_down_is_named_and_what_is_lost_is_counted(session, monkeypatch):
    with Proxy({}) as proxy:
        pass
    monkeypatch.setenv("http_proxy", proxy.url)
    exporter = traces(f"http://{HOST}", BRIEF)
    emit()
    wait_until(lambda: session.stats().exporters["traces"].failures)
    last_error = session.stats().exporters["traces"].last_error
    exporter.shutdown()
    report = session.stats().exporters["traces"]
    assert sum(report.drops.values()) == report.taken == 2
    assert f"by the proxy {proxy.url}: ConnectionRefusedError" in last_error


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_this_machines_loopback_has_no_proxy(session, monkeypatch, host, protocol):
    with OtlpReceiver(protocol) as receiver, Proxy({}) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        transport = "grpc" if protocol == "grpc" else "http_binary"
        exporter = traces(f"http://{host}:{receiver.port}", QUICK, transport)
        emit()
        exporter.shutdown()
        assert said(receiver) == ["work"]
    assert proxy.asked == []


def test_grpc_reads_the_environment_itself(session, monkeypatch):
    with OtlpReceiver("grpc") as receiver, Proxy({HOST: receiver.port}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        exporter = traces(f"http://{HOST}:{receiver.port}", QUICK, "grpc")
        emit()
        exporter.shutdown()
        assert said(receiver) == ["work"]
    assert proxy.asked[0][:2] == ("CONNECT", f"{HOST}:{receiver.port}")


@pytest.mark.parametrize(
    ("exceptions", "url"),
    [
        (HOST, f"http://{HOST}:4318/"),
        ("other.example, .example", f"http://{HOST}/"),
        (f"{HOST}:4318", f"http://{HOST}:4318/"),
        ("*", f"http://{HOST}/"),
        ("10.1.2.3", "http://10.1.2.3/"),
        ("10.0.0.0/8", "http://10.1.2.3:4318/"),
        ("other.example,2001:db8::/32", "http://[2001:db8::1]:4318/"),
        ("", "http://localhost:4318/"),
        ("", "http://a.localhost/"),
        ("", "http://[::1]:4318/"),
        ("", "http://127.1.2.3/"),
    ],
)
def test_what_no_proxy_names_is_reached_without(monkeypatch, exceptions, url):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert proxy_of(url) is None


@pytest.mark.parametrize(
    ("exceptions", "url"),
    [
        ("", f"http://{HOST}/"),
        ("example.org", f"http://{HOST}/"),
        (f"{HOST}:4317", f"http://{HOST}:4318/"),
        ("10.0.0.0/8,nonsense/99", "http://11.1.2.3/"),
        ("localhost", "http://localhost.example/"),
    ],
)
def test_what_it_does_not_name_is_not(monkeypatch, exceptions, url):
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://another.example")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert proxy_of(url)[:3] == ("proxy.example", 3128, {})
    assert proxy_of(url.replace("http:", "https:"))[:3] == ("another.example", 80, {})


@pytest.mark.parametrize("url", ["socks5://u:sk-secret@proxy:1080", "https://proxy:3129", "http://", "http://p:port"])
def test_a_proxy_that_cannot_be_used_is_said_at_registration(session, monkeypatch, url):
    monkeypatch.setenv("HTTPS_PROXY", url)
    says = "HTTPS_PROXY of the environment has to be http://"
    with pytest.raises((ValueError, relay_mp.SubscriberError), match=says) as raised:
        traces(f"https://{HOST}")
    assert "sk-secret" not in str(raised.value)


def test_a_dispatcher_process_has_the_environment_of_the_sessions_start(tmp_path):
    """With its own interpreter, and so its own look at the environment."""
    code = """
import json, sys
import relay_mp
from relay_mp import scope
config = relay_mp.AtofExporterConfig()
config.sink_type, config.url = "stream", sys.argv[1]
with relay_mp.session(dispatcher="process") as session:
    exporter = relay_mp.AtofExporter(config)
    exporter.register("stream")
    scope.event("m")
    exporter.shutdown()
    print(json.dumps(session.stats().exporters["stream"].exported))
"""
    with Receiver() as receiver, Proxy({HOST: int(receiver.url.split(":")[2].split("/")[0])}) as proxy:
        ran = subprocess.run(
            [sys.executable, "-c", code, f"http://{HOST}/"], env={"HTTP_PROXY": proxy.url, "TMPDIR": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert json.loads(ran.stdout) == 1
        assert receiver.names == ["m"]
