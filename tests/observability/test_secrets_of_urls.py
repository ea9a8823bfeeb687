"""Users, passwords and queries of receivers' URLs are in no repr, error, report or log."""

import pytest

import relay_mp
from relay_mp.observability.atif.storage import HttpStorageConfig
from relay_mp.observability.atof.exporter import _stream_arguments
from relay_mp.observability.atof.section import AtofStreamSinkConfig
from relay_mp.observability.export.base import Exporter
from relay_mp.observability.export.endpoint import check_url, redacted_url
from relay_mp.observability.otel.grpc import GrpcWire
from relay_mp.observability.otel.metrics import OpenTelemetryMetricConfig
from relay_mp.observability.otel.section import OpenTelemetryEndpointConfig, OpenTelemetrySignalEndpointConfig

URL = "http://user:SECRET@127.0.0.1:9/path?token=SECRET#SECRET"
SHOWN = "http://127.0.0.1:9/path"


def stream(url=URL):
    config = relay_mp.AtofExporterConfig()
    config.sink_type, config.url = "stream", url
    return config


CONFIGURATIONS = {
    "traces": lambda: relay_mp.OpenTelemetryConfig("full", URL),
    "logs": lambda: relay_mp.OpenTelemetryLogConfig(URL),
    "metrics": lambda: OpenTelemetryMetricConfig(URL),
    "section of traces": lambda: OpenTelemetryEndpointConfig("full", URL),
    "section of logs": lambda: OpenTelemetrySignalEndpointConfig(URL),
    "section of atof": lambda: AtofStreamSinkConfig(URL),
    "atof": stream,
    "storage of atif": lambda: HttpStorageConfig(URL),
}

EXPORTERS = {
    "traces": lambda: relay_mp.OpenTelemetrySubscriber(relay_mp.OpenTelemetryConfig("full", URL)),
    "logs": lambda: relay_mp.OpenTelemetryLogSubscriber(relay_mp.OpenTelemetryLogConfig(URL)),
    "metrics": lambda: relay_mp.OpenTelemetryMetricSubscriber(OpenTelemetryMetricConfig(URL)),
    "atof": lambda: relay_mp.AtofExporter(stream()),
}


@pytest.mark.parametrize("make", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_no_repr_has_them(make):
    assert "SECRET" not in repr(make())


@pytest.mark.parametrize("make", EXPORTERS.values(), ids=EXPORTERS)
def test_the_error_of_a_second_registration_names_the_receiver_without_them(session, make, caplog):
    exporter = make()
    exporter.register("once")
    with pytest.raises(relay_mp.SubscriberError) as caught:
        exporter.register("twice")
    assert SHOWN in str(caught.value)
    assert "SECRET" not in str(caught.value)
    exporter.shutdown(0)
    assert "SECRET" not in caplog.text
    assert "SECRET" not in repr(session.stats())


@pytest.mark.parametrize("url", ["htps://user:SECRET@host/?SECRET", "user:SECRET@/?SECRET", "http://user:SECRET@/x"])
@pytest.mark.parametrize(
    "use",
    [check_url, lambda url: _stream_arguments(stream(url)) and check_url(url), lambda url: GrpcWire("traces", url, {})],
    ids=["http", "atof", "grpc"],
)
def test_the_error_of_what_is_not_an_address_has_them_not(use, url):
    with pytest.raises(ValueError) as caught:
        use(url)
    assert "SECRET" not in str(caught.value)


def test_the_error_of_what_is_not_a_sink_shows_types_only():
    with pytest.raises(TypeError, match="a sink is a tuple of a str, a str, a dict; expected a pair") as caught:
        Exporter([("package:factory", URL, {"url": URL})])
    assert "SECRET" not in str(caught.value)


def test_the_error_of_arguments_that_cannot_be_used_shows_their_type_only(session):
    with pytest.raises(TypeError, match="arguments are a dict with a callback of builtin_function_or_method") as caught:
        relay_mp.subscribers.register("s", print, arguments={"url": URL})
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, SHOWN),
        ("http://[::1]:4318/v1?x", "http://[::1]:4318/v1"),
        ("localhost:4317", "localhost:4317"),
        ("user:SECRET@localhost:4317?SECRET", "localhost:4317"),
        ("http://host:99999", "(no URL)"),
        ("", ""),
    ],
)
def test_of_a_url_host_port_and_path_are_shown(url, shown):
    assert redacted_url(url) == shown
