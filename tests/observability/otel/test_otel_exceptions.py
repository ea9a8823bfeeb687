"""An exception that leaves a scope, in its span: the event `exception` of OpenTelemetry's conventions."""

import json

import pytest
from otlp_receiver import OtlpReceiver, attributes

import relay_mp
from relay_mp import ScopeType, scope, tools

PROJECTIONS = ("full", "gen_ai", "openinference")
KEYS = {"exception.type", "exception.message", "exception.stacktrace"}


class Broken(Exception):
    """Of a module, so that its type has a dot."""


def exported(scenario, otel_type="full", **settings):
    """The spans that a receiver gets of a scenario, and the exporter's report."""
    with OtlpReceiver() as receiver, relay_mp.session() as session:
        config = relay_mp.OpenTelemetryConfig(otel_type, receiver.endpoint)
        for name, value in settings.items():
            setattr(config, name, value)
        exporter = relay_mp.OpenTelemetrySubscriber(config)
        exporter.register("otlp")
        scenario()
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert report.taken == report.exported + report.ignored + report.dropped
        return receiver.spans, report


def failing(error=Broken, before=()):
    def fail():
        with scope.scope("s", ScopeType.Function):
            for name in before:
                scope.event(name)
            raise error("what went wrong")

    def scenario():
        with pytest.raises(error):
            fail()

    return scenario


@pytest.mark.parametrize("otel_type", PROJECTIONS)
def test_an_exception_is_the_event_of_that_name_in_every_projection(otel_type):
    (span,), report = exported(failing(), otel_type)
    (event,) = span.events
    found = attributes(event.attributes)
    assert (event.name, set(found)) == ("exception", KEYS)
    assert found["exception.type"] == f"{__name__}.Broken"
    assert found["exception.message"] == "what went wrong"
    assert found["exception.stacktrace"].rstrip().endswith("Broken: what went wrong")
    assert event.time_unix_nano == span.end_time_unix_nano
    assert (span.status.code, span.status.message) == (2, "what went wrong")
    assert (report.taken, report.exported) == (2, 2)  # it is of the end, and no event of its own


def test_it_comes_behind_the_marks():
    (span,), report = exported(failing(before=["a", "b"]))
    assert [event.name for event in span.events] == ["a", "b", "exception"]
    assert report.exported == 4


def test_the_traceback_is_left_out_where_it_is_not_recorded(monkeypatch):
    monkeypatch.setenv("RELAY_MP_STACKTRACES", "0")
    (span,), _ = exported(failing())
    assert set(attributes(span.events[0].attributes)) == KEYS - {"exception.stacktrace"}


def test_what_ends_the_program_is_an_exception_without_an_error():
    (span,), _ = exported(failing(KeyboardInterrupt))
    assert attributes(span.events[0].attributes)["exception.type"] == "KeyboardInterrupt"
    assert (span.status.code, "error.type" in attributes(span.attributes)) == (0, False)


def test_a_tools_exception_is_in_its_span():
    def fail(_arguments):
        raise Broken("of the tool")

    def scenario():
        with pytest.raises(Broken):
            tools.execute_sync("t", {}, fail)

    (span,), _ = exported(scenario)
    assert [attributes(event.attributes)["exception.message"] for event in span.events] == ["of the tool"]


@pytest.mark.parametrize("otel_type", ["full", "gen_ai"])
def test_the_errors_type_is_the_exceptions(otel_type):
    (span,), _ = exported(failing(), otel_type)
    assert attributes(span.attributes)["error.type"] == f"{__name__}.Broken"


def test_an_error_without_an_exception_has_no_event_and_no_type():
    def scenario():
        handle = scope.push("s", ScopeType.Function)
        scope.pop(handle, metadata={"otel.status_code": "ERROR", "exception.type": 7})

    (span,), _ = exported(scenario)
    assert not span.events
    assert attributes(span.attributes)["error.type"] == "_OTHER"


def test_metadata_keeps_it_but_for_openinferences_traceback():
    """OpenInference's readers show the event; in the metadata's JSON the traceback would be there a second time."""
    (span,), _ = exported(failing(), "full")
    assert {f"relay_mp.end.metadata.{key}" for key in KEYS} <= set(attributes(span.attributes))
    (span,), _ = exported(failing(), "openinference")
    metadata = json.loads(attributes(span.attributes)["metadata"])
    assert metadata["exception.type"] == f"{__name__}.Broken"
    assert KEYS & set(metadata) == KEYS - {"exception.stacktrace"}


def test_an_end_whose_start_was_not_seen_has_it_too():
    def scenario():
        outer = scope.push("outer", ScopeType.Function)
        scope.pop(scope.push("inner", ScopeType.Function))
        scope.pop(outer, metadata={"exception.type": "E", "exception.message": "m"})

    spans, report = exported(scenario, max_open_scopes=1)
    assert report.orphans == 1
    (orphan,) = [span for span in spans if attributes(span.attributes).get("relay_mp.orphan")]
    assert attributes(orphan.events[0].attributes) == {"exception.type": "E", "exception.message": "m"}


@pytest.mark.parametrize(("most", "names", "dropped"), [(0, [], 2), (1, ["m"], 1), (2, ["m", "exception"], 0)])
def test_it_counts_among_the_events_that_a_limit_is_for(most, names, dropped):
    (span,), report = exported(failing(before=["m"]), event_count_limit=most)
    assert [event.name for event in span.events] == names
    assert span.dropped_events_count == dropped
    assert report.drops == ({"event_limit": 1} if most == 0 else {})  # the mark; the end is in the span


def test_the_limits_of_an_events_attributes_are_the_exceptions_too():
    (span,), _ = exported(failing(), event_attribute_count_limit=2, attribute_value_length_limit=6)
    (event,) = span.events
    assert attributes(event.attributes) == {"exception.type": __name__[:6], "exception.message": "what w"}
    assert event.dropped_attributes_count == 1
