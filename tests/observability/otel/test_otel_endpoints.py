"""Where OTLP goes over HTTP, and what an exporter refuses to be told: paths, timeouts, headers."""

import math
import re

import pytest
from otlp_receiver import PROTOCOLS, SIGNALS, OtlpReceiver
from receiver import WAIT_SECONDS, Receiver

import relay_mp
from relay_mp import ScopeType, scope
from relay_mp.observability.export.batch_queue import MAX_SECONDS, Limits
from relay_mp.observability.otel.environment import attempt_limits, headers_of
from relay_mp.observability.otel.exporter import MAX_TIMEOUT_MILLIS
from relay_mp.observability.otel.transport import connect
from relay_mp.observability.otel.urls import url_of_other_signal

EVERY_SIGNAL = pytest.mark.parametrize("signal", SIGNALS)
GENERAL = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configuration(signal, endpoint=""):
    if signal == "traces":
        return relay_mp.OpenTelemetryConfig("full", endpoint)
    return {"logs": relay_mp.OpenTelemetryLogConfig, "metrics": relay_mp.OpenTelemetryMetricConfig}[signal](endpoint)


def subscriber(signal, config):
    return {
        "traces": relay_mp.OpenTelemetrySubscriber,
        "logs": relay_mp.OpenTelemetryLogSubscriber,
        "metrics": relay_mp.OpenTelemetryMetricSubscriber,
    }[signal](config)


class Targets(Receiver):
    """Keeps what was asked for, path and query."""

    def __init__(self):
        self.targets = []
        super().__init__()

    def acknowledge(self, handler, body):
        self.targets.append(handler.requestline.split()[1])  # its path has no more than one slash at its start


@pytest.fixture
def http():
    with Targets() as receiver:
        yield receiver


def asked(http, signal, config):
    http.targets.clear()
    transport = connect(signal, config.connection())
    transport.send(b"", WAIT_SECONDS)
    transport.close()
    return http.targets


# What is behind host and port: as an argument, as the variable of all signals, as a signal's own variable.
PATHS = [
    ("", "/v1/SIGNAL", "/v1/SIGNAL", "/"),
    ("/", "/v1/SIGNAL", "/v1/SIGNAL", "/"),
    ("//", "/v1/SIGNAL", "/v1/SIGNAL", "//"),
    ("?token=a/b", "/v1/SIGNAL?token=a/b", "/v1/SIGNAL?token=a/b", "/?token=a/b"),
    ("/?token=a", "/v1/SIGNAL?token=a", "/v1/SIGNAL?token=a", "/?token=a"),
    ("/#part", "/v1/SIGNAL", "/v1/SIGNAL", "/"),
    ("/base", "/base", "/base/v1/SIGNAL", "/base"),
    ("/base/", "/base/", "/base/v1/SIGNAL", "/base/"),
    ("/base//", "/base//", "/base/v1/SIGNAL", "/base//"),
    ("/base/?token=a", "/base/?token=a", "/base/v1/SIGNAL?token=a", "/base/?token=a"),
    ("/v1/SIGNAL", "/v1/SIGNAL", "/v1/SIGNAL/v1/SIGNAL", "/v1/SIGNAL"),
    ("/a%20b", "/a%20b", "/a%20b/v1/SIGNAL", "/a%20b"),
]


@EVERY_SIGNAL
@pytest.mark.parametrize(("given", "argument", "general", "own"), PATHS, ids=[row[0] or "none" for row in PATHS])
def test_the_path_is_joined_as_the_specification_says(monkeypatch, http, signal, given, argument, general, own):
    url = http.url.partition("/events")[0] + given.replace("SIGNAL", signal)
    expected = [path.replace("SIGNAL", signal) for path in (argument, general, own)]
    assert asked(http, signal, configuration(signal, url)) == [expected[0]]
    monkeypatch.setenv(GENERAL, url)
    assert asked(http, signal, configuration(signal)) == [expected[1]]
    monkeypatch.setenv(GENERAL, "http://nowhere.invalid")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", url)
    assert asked(http, signal, configuration(signal)) == [expected[2]]


@EVERY_SIGNAL
@pytest.mark.parametrize("url", ["localhost:4318", "ftp://h", "http://", "http://[::1", "http://h:99999", "/v1/traces"])
@pytest.mark.parametrize("own", [True, False])
def test_an_endpoint_of_the_environment_that_is_not_an_address_is_refused(session, monkeypatch, signal, url, own):
    """Nothing goes to the default receiver instead."""
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT" if own else GENERAL, url)
    exporter = subscriber(signal, configuration(signal))
    with pytest.raises(relay_mp.SubscriberError, match="ValueError: "):
        exporter.register("otlp")


@pytest.mark.parametrize("suffix", ["", "/", "/base", "/base/?token=a"])
def test_over_grpc_a_path_is_no_part_of_the_address(session, suffix):
    with OtlpReceiver("grpc") as receiver:
        config = configuration("traces", receiver.endpoint + suffix)
        config.transport = "grpc"
        exporter = subscriber("traces", config)
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            pass
        exporter.shutdown()
        assert [span.name for span in receiver.spans] == ["a"]


@pytest.mark.parametrize(
    ("traces", "logs"),
    [
        ("http://h", "http://h"),
        ("http://h/v1/traces", "http://h/v1/logs"),
        ("http://h/v1/traces/", "http://h/v1/logs"),
        ("http://h/base/v1/traces?token=/v1/traces", "http://h/base/v1/logs?token=/v1/traces"),
        ("http://h/mine", "http://h/mine"),
        ("http://h/?to=/v1/traces", "http://h/?to=/v1/traces"),
        ("collector:4317", "collector:4317"),
    ],
)
def test_signals_without_an_endpoint_go_beside_the_traces(traces, logs):
    assert url_of_other_signal(traces, "logs") == logs


# ----------------------------------------------------------------------------------------- timeouts


@EVERY_SIGNAL
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0, ValueError, "timeout_millis is 0; expected at least 1"),
        (-1, ValueError, "timeout_millis is -1; expected at least 1"),
        (MAX_TIMEOUT_MILLIS + 1, ValueError, f"timeout_millis is .*; expected at most {MAX_TIMEOUT_MILLIS}"),
        (10**400, ValueError, "expected at most"),
        (1.5, TypeError, "timeout_millis is a float; expected int"),
        (math.nan, TypeError, "timeout_millis is a float; expected int"),
        (True, TypeError, "timeout_millis is a bool; expected int"),
        (None, TypeError, "timeout_millis is None; expected int"),
    ],
)
def test_a_timeout_that_no_attempt_can_have_is_refused(signal, value, error, said):
    config = configuration(signal, "http://127.0.0.1:1")
    config.timeout_millis = value
    with pytest.raises(error, match=said):
        subscriber(signal, config)


@pytest.mark.parametrize("value", [1, MAX_TIMEOUT_MILLIS])
def test_the_bounds_of_the_timeout_are_timeouts(value):
    config = configuration("traces")
    config.timeout_millis = value
    assert attempt_limits("traces", config.connection()).timeout_seconds == value / 1000


@EVERY_SIGNAL
@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.nan, math.inf, MAX_SECONDS + 1])
def test_the_same_timeouts_are_refused_as_a_limit(session, signal, value):
    config = configuration(signal, "http://127.0.0.1:1")
    config.limits = {"timeout_seconds": value}
    exporter = subscriber(signal, config)
    with pytest.raises(relay_mp.SubscriberError, match="timeout_seconds is .*; expected "):
        exporter.register("otlp")


def test_a_time_that_no_lock_can_wait_for_is_no_limit():
    assert Limits(schedule_delay_seconds=MAX_SECONDS).schedule_delay_seconds == MAX_SECONDS
    with pytest.raises(ValueError, match=f"schedule_delay_seconds is .*; expected 0 to {MAX_SECONDS}"):
        Limits(schedule_delay_seconds=MAX_SECONDS + 1)


@EVERY_SIGNAL
@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "1e400", "soon", "3000000000"])
def test_a_timeout_of_the_environment_that_cannot_be_is_left_out_with_a_warning(monkeypatch, caplog, signal, text):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", text)
    assert attempt_limits(signal, configuration(signal).connection()).timeout_seconds == 3.0
    assert f"the OTLP timeout '{text}' of the environment is not a number of seconds above 0" in caplog.text


@pytest.mark.parametrize("name", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_SCHEDULE_DELAY"])
@pytest.mark.parametrize("text", ["0", "-1", "1.5", "2147483648", "9" * 5000, "x"])
def test_a_number_of_the_environment_that_cannot_be_is_left_out_with_a_warning(monkeypatch, caplog, name, text):
    monkeypatch.setenv(name, text)
    limits = attempt_limits("traces", configuration("traces").connection())
    assert limits == Limits()
    assert f"{name} is '{text[:70]}" in caplog.text


# ------------------------------------------------------------------------------------------ headers

NO_NAME = "is not a name of a header; expected one or more of the letters"
HEADERS = [
    ("x-a", "one\r\ntwo", r"has a character that no header may have, '\r' at place 3; expected one line of "),
    ("x-a", "one\n", r"has a character that no header may have, '\n' at place 3; expected one line of "),
    ("x-a", "\0", r"has a character that no header may have, '\x00' at place 0; expected one line of "),
    ("x-a", "token\u2019", r"has a character that no header may have, '\u2019' at place 5; expected one line of "),
    ("x\r\nx-b: 1", "v", NO_NAME),
    ("x-a\n", "v", NO_NAME),
    ("", "v", NO_NAME),
    ("x a", "v", NO_NAME),
    ("x:", "v", NO_NAME),
    ("é", "v", NO_NAME),
]


@EVERY_SIGNAL
@pytest.mark.parametrize(("name", "value", "said"), HEADERS)
@pytest.mark.parametrize("transport", ["http_binary", "grpc"])
def test_a_header_that_cannot_be_sent_is_refused(signal, name, value, said, transport):
    config = configuration(signal, "http://127.0.0.1:1")
    config.transport = transport
    config.set_header(name, value)
    with pytest.raises(ValueError, match=re.escape(f"the header {name!a} {said}")) as raised:
        subscriber(signal, config)
    assert "two" not in str(raised.value)
    assert "token" not in str(raised.value)


@pytest.mark.parametrize(("name", "value", "said"), [row for row in HEADERS if "\0" not in row[1]])
def test_a_header_of_a_variable_that_cannot_be_sent_is_refused(session, monkeypatch, name, value, said):
    config = configuration("traces", "http://127.0.0.1:1")
    config.header_env = {name: "MY_HEADER"}
    monkeypatch.setenv("MY_HEADER", value)
    with pytest.raises((ValueError, relay_mp.SubscriberError), match=re.escape(f"the header {name!a} {said}")):
        subscriber("traces", config).register("otlp")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("x-a", "é", r"'\\xe9' at place 0; expected one line of printable ASCII"),
        ("x-a", "a\tb", r"'\\t' at place 1"),
        ("x~a", "v", "'x~a' is not a name of a header; .* the digits and _ . -"),
    ],
)
def test_over_grpc_less_is_a_header(session, name, value, said):
    config = configuration("traces", "http://127.0.0.1:1")
    config.set_header(name, value)
    subscriber("traces", config)  # over HTTP it is one
    config.transport = "grpc"
    with pytest.raises(ValueError, match=said):
        subscriber("traces", config)


def test_over_grpc_by_the_environment_less_is_a_header_at_registration(session, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    config = configuration("traces", "http://127.0.0.1:1")
    config.set_header("x-a", "é")
    exporter = subscriber("traces", config)
    with pytest.raises(relay_mp.SubscriberError, match="printable ASCII, as gRPC asks for"):
        exporter.register("otlp")


@pytest.mark.parametrize(("key", "value"), [(b"x", "v"), ("x", b"v"), ("x", True), ("x", None), (1, "v")])
def test_a_header_that_is_no_text_is_refused(key, value):
    config = configuration("traces", "http://127.0.0.1:1")
    config.headers = {key: value}
    with pytest.raises(TypeError, match=f"headers has an item that is {type(key).__name__} to {type(value).__name__};"):
        subscriber("traces", config)


@EVERY_SIGNAL
def test_headers_of_the_environment_that_cannot_be_sent_are_left_out_with_a_warning(monkeypatch, caplog, signal):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-good=1,x-bad=sec%0D%0Aret,x-late=3,x-odd=%E2%80%99")
    found = headers_of(signal, "http_binary", configuration(signal).connection())
    assert found == {"x-good": "1", "x-late": "3"}
    assert "the OTLP header 'x-bad' of the environment is left out: it has a character that no header" in caplog.text
    assert "'x-odd' of the environment is left out" in caplog.text
    assert "sec" not in caplog.text.replace("seconds", "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_left_of_the_environments_headers_is_sent(session, monkeypatch, protocol):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-good=1,x-bad=a%0Ab")
    with OtlpReceiver(protocol) as receiver:
        config = configuration("traces", receiver.endpoint)
        config.transport = "grpc" if protocol == "grpc" else "http_binary"
        exporter = subscriber("traces", config)
        exporter.register("traces")
        with scope.scope("a", ScopeType.Function):
            pass
        exporter.shutdown()
        headers = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert headers["x-good"] == "1"
    assert "x-bad" not in headers
    assert session.stats().exporters["traces"].exported == 2
