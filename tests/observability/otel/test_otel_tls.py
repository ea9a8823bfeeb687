"""OTLP over TLS, over HTTP and gRPC: whom an exporter trusts, and by what it is let in. All is the environment's say.

Certificates are of authorities that trustme makes for the test; the receivers are real, on the loopback.
"""

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from otlp_receiver import PROTOCOLS, SIGNALS, OtlpReceiver, ServerTls
from receiver import WAIT_SECONDS, Receiver, wait_until

import relay_mp
from relay_mp import (
    AtifFileExporter,
    AtofExporter,
    AtofExporterConfig,
    MetricKind,
    MetricMeasurement,
    MetricValueType,
    OpenTelemetryConfig,
    OpenTelemetryLogConfig,
    OpenTelemetryLogSubscriber,
    OpenTelemetryMetricConfig,
    OpenTelemetryMetricSubscriber,
    OpenTelemetrySubscriber,
    ScopeType,
    scope,
)
from relay_mp.observability import HttpStorageConfig

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
QUICK = {"retry_initial_seconds": 0.01, "retry_max_seconds": 0.05, "schedule_delay_seconds": 0.01}
BRIEF = {**QUICK, "timeout_seconds": WAIT_SECONDS, "shutdown_timeout_seconds": 0.1}
"""For what never works, at an attempt's leisure: what is said of one that was cut short is that it was."""

SUBSCRIBERS = {
    "traces": lambda endpoint: (OpenTelemetryConfig("full", endpoint), OpenTelemetrySubscriber),
    "logs": lambda endpoint: (OpenTelemetryLogConfig(endpoint), OpenTelemetryLogSubscriber),
    "metrics": lambda endpoint: (OpenTelemetryMetricConfig(endpoint), OpenTelemetryMetricSubscriber),
}


class Files(NamedTuple):
    """Of the authority `authority`: what a receiver shows, and what a client does."""

    authority: str
    server_chain: str
    server_key: str
    client_chain: str
    client_key: str
    client_both: str
    """The last two in one file."""

    def tls(self, clients=None):
        return ServerTls(self.server_chain, self.server_key, clients)


@pytest.fixture
def files(tmp_path):
    return make(tmp_path / "ours", "localhost", "127.0.0.1")


def make(directory, *hosts):
    directory.mkdir()
    paths = {name: str(directory / f"{name}.pem") for name in Files._fields}
    authority = trustme.CA()
    authority.cert_pem.write_to_path(paths["authority"])
    for who, names in (("server", hosts), ("client", ["client@example.org"])):
        issued = authority.issue_cert(*names)
        issued.private_key_pem.write_to_path(paths[f"{who}_key"])
        issued.cert_chain_pems[0].write_to_path(paths[f"{who}_chain"])
        if who == "client":
            issued.private_key_and_cert_chain_pem.write_to_path(paths["client_both"])
    return Files(**paths)


def subscriber(signal, protocol, endpoint, limits=QUICK, name="otlp"):
    config, make_subscriber = SUBSCRIBERS[signal](endpoint)
    config.transport = "grpc" if protocol == "grpc" else "http_binary"
    config.limits = dict(limits)
    exporter = make_subscriber(config)
    exporter.register(name)
    return exporter


def emit():
    """Something for each signal."""
    with scope.scope("work", ScopeType.Function):
        scope.event("said")
        scope.metric("took", [MetricMeasurement("seconds", MetricKind.Gauge, MetricValueType.F64, 1.0)])


def names(receiver, signal):
    return {getattr(item, "event_name", "") or item.name for item in (sent.item for sent in receiver.sent(signal))}


WORK = {"traces": {"work"}, "logs": {"said"}, "metrics": {"seconds"}}


def refused(session, receiver, exporter):
    """What the report of an exporter says, with which the receiver has had nothing to do: of the first failure."""
    emit()
    wait_until(lambda: session.stats().exporters["otlp"].failures)
    last_error = session.stats().exporters["otlp"].last_error
    exporter.shutdown()
    report = session.stats().exporters["otlp"]
    assert report.exported == 0
    assert report.drops == {"shutdown": report.taken - report.ignored}
    assert receiver.requests == 0
    return last_error


@BOTH
@pytest.mark.parametrize("signal", SIGNALS)
def test_the_authority_of_the_environment_is_trusted(session, monkeypatch, files, protocol, signal):
    with OtlpReceiver(protocol, tls=files.tls()) as receiver:
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal.upper()}_CERTIFICATE", files.authority)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/not/this/one")
        exporter = subscriber(signal, protocol, receiver.endpoint)
        emit()
        assert exporter.force_flush() is True
        assert names(receiver, signal) == WORK[signal]
        exporter.shutdown()
        assert session.stats().exporters["otlp"].failures == 0


@BOTH
def test_another_authoritys_receiver_gets_nothing_and_the_report_says_why(
    session, monkeypatch, tmp_path, files, protocol
):
    others = make(tmp_path / "others", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files.authority)
    with OtlpReceiver(protocol, tls=others.tls()) as receiver:
        error = refused(session, receiver, subscriber("traces", protocol, receiver.endpoint, BRIEF))
        assert receiver.endpoint in error
    assert "certificate verify failed" in error.lower().replace("_", " ")


@BOTH
def test_without_an_authority_the_usual_ones_count(session, files, protocol):
    with OtlpReceiver(protocol, tls=files.tls()) as receiver:
        error = refused(session, receiver, subscriber("logs", protocol, receiver.endpoint, BRIEF))
    assert "certificate verify failed" in error.lower().replace("_", " ")


@BOTH
def test_a_certificate_for_another_host_is_refused(session, monkeypatch, tmp_path, protocol):
    elsewhere = make(tmp_path / "elsewhere", "elsewhere.example.org")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", elsewhere.authority)
    with OtlpReceiver(protocol, tls=elsewhere.tls()) as receiver:
        error = refused(session, receiver, subscriber("traces", protocol, receiver.endpoint, BRIEF))
    assert "hostname" in error.lower() or "ip address mismatch" in error.lower()


@BOTH
@pytest.mark.parametrize("variables", [["CLIENT_CERTIFICATE", "CLIENT_KEY"], ["TRACES_CLIENT_CERTIFICATE"]])
def test_a_receiver_that_asks_who_is_there_is_shown_the_clients_certificate(
    session, monkeypatch, files, protocol, variables
):
    """Of two files, or of one with both."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files.authority)
    paths = [files.client_chain, files.client_key] if len(variables) == 2 else [files.client_both]
    for variable, path in zip(variables, paths, strict=True):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", path)
    with OtlpReceiver(protocol, tls=files.tls(clients=files.authority)) as receiver:
        exporter = subscriber("traces", protocol, receiver.endpoint)
        emit()
        assert exporter.force_flush() is True
        assert names(receiver, "traces") == {"work"}
        exporter.shutdown()


@BOTH
@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
def test_a_receiver_that_asks_who_is_there_lets_nobody_else_in(session, monkeypatch, tmp_path, files, protocol, shown):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files.authority)
    if shown != "nothing":
        others = make(tmp_path / "others", "127.0.0.1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", others.client_chain)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", others.client_key)
    with OtlpReceiver(protocol, tls=files.tls(clients=files.authority)) as receiver:
        error = refused(session, receiver, subscriber("traces", protocol, receiver.endpoint, BRIEF))
    if protocol != "grpc":  # gRPC tells of a closed connection only
        assert "certificate required" in error or "unknown ca" in error


@BOTH
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_resets_every_connection_is_tried_again(session, protocol, scheme):
    """Before a request is sent, or while a handshake or the request is under way."""
    with Resetting() as listener:
        exporter = subscriber("traces", protocol, f"{scheme}://127.0.0.1:{listener.port}", BRIEF)
        emit()
        exporter.shutdown()
    report = session.stats().exporters["otlp"]
    assert report.drops.keys() <= {"deadline", "shutdown"}
    assert report.dropped == report.taken == 4
    assert report.failures >= 1


class Resetting:
    """A port whose connections are reset as soon as they are there."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_TRACES_INSECURE"])
def test_insecure_counts_for_a_grpc_endpoint_without_a_scheme(session, monkeypatch, variable):
    with OtlpReceiver("grpc") as plain:
        endpoint = f"127.0.0.1:{plain.port}"
        error = refused(session, plain, subscriber("traces", "grpc", endpoint, BRIEF))
        assert endpoint in error  # it is TLS that the receiver did not understand
        monkeypatch.setenv(variable, "TRUE")
        exporter = subscriber("traces", "grpc", endpoint, name="insecure")
        emit()
        exporter.shutdown()
        assert names(plain, "traces") == {"work"}


def test_a_scheme_says_more_than_insecure(session, monkeypatch, files):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files.authority)
    with OtlpReceiver("grpc", tls=files.tls()) as receiver:
        exporter = subscriber("traces", "grpc", f"https://localhost:{receiver.port}")
        emit()
        exporter.shutdown()
        assert names(receiver, "traces") == {"work"}


@BOTH
@pytest.mark.parametrize("trouble", ["missing", "no certificate", "not its key", "encrypted key", "no key"])
def test_files_that_cannot_be_used_are_said_at_registration(session, monkeypatch, tmp_path, files, protocol, trouble):
    found, what = tmp_path / "found.pem", "CLIENT_CERTIFICATE or CLIENT_KEY"
    variables = {"CLIENT_CERTIFICATE": files.client_chain, "CLIENT_KEY": str(found)}
    if trouble in ("missing", "no certificate"):
        variables, what = {"CERTIFICATE": str(found)}, "CERTIFICATE"
    if trouble == "no certificate":
        found.write_text("this is none\n")
    elif trouble == "not its key":
        found.write_bytes(trustme.CA().issue_cert("x@example.org").private_key_pem.bytes())
    elif trouble == "encrypted key":
        key = load_pem_private_key(Path(files.client_key).read_bytes(), None)
        secret = BestAvailableEncryption(b"passphrase")
        found.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    elif trouble == "no key":
        variables = {"CLIENT_CERTIFICATE": files.client_chain}
    for variable, path in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{variable}", path)
    with pytest.raises((OSError, relay_mp.SubscriberError), match=f"the OTLP {what} of the environment, '") as raised:
        subscriber("traces", protocol, "https://localhost:1")
    assert list(variables.values())[-1] in str(raised.value)


def test_a_key_without_a_certificate_is_told_of(session, monkeypatch, files, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", files.client_key)
    subscriber("traces", "http/protobuf", "https://localhost:1").shutdown()
    assert "there is no client certificate" in caplog.text


def test_streams_and_trajectories_go_over_tls_too(session, monkeypatch, files):
    """Whom they trust is OpenSSL's to say, by its own variable."""
    with Receiver(tls=files.tls().context()) as receiver:
        for name, authority, expected in (("untrusted", None, 0), ("trusted", files.authority, 2)):
            if authority:
                monkeypatch.setenv("SSL_CERT_FILE", authority)
            limits = dict(QUICK if authority else BRIEF)
            config = AtofExporterConfig()
            config.sink_type, config.url, config.limits = "stream", receiver.url, limits
            storage = HttpStorageConfig(receiver.url)
            atif = AtifFileExporter(storage=storage, limits=limits)
            exporters = {"atof": AtofExporter(config), "atif": atif}
            for kind, exporter in exporters.items():
                exporter.register(f"{kind} {name}")
            with scope.scope("agent", ScopeType.Agent):
                pass
            if not authority:
                for kind in exporters:
                    wait_until(lambda name=f"{kind} {name}": session.stats().exporters[name].failures)
                    said = session.stats().exporters[f"{kind} {name}"].last_error
                    assert "certificate verify failed" in said
            for exporter in exporters.values():
                exporter.shutdown()
            # Two events; and two trajectories, for the copy of the one before goes with the next.
            assert sum(b"trajectory_id" in body for body in receiver.bodies) == expected
            assert sum(body.count(b'"name":"agent"') for body in receiver.bodies if body[-1:] == b"\n") == expected
