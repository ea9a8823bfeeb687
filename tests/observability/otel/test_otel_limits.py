"""OpenTelemetry's limits of attributes and events: what is left of spans, their events and log records."""

import random

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from otlp_receiver import OtlpReceiver, attributes

import relay_mp
from relay_mp import LogSeverity, ScopeType, scope
from relay_mp.events import ScopeEvent, pack_record
from relay_mp.observability.otel.limits import AttributeLimits, make_limits
from relay_mp.observability.otel.otlp import LogWriter, SpanWriter
from relay_mp.observability.otel.places import Place

MAX = (1 << 31) - 1
GENERAL_LENGTH, GENERAL_COUNT = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"
SPAN_LENGTH, SPAN_COUNT = "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"
SPAN_EVENTS, EVENT_COUNT = "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"
RECORD_LENGTH, RECORD_COUNT = "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT"
TEXTS = ["", "a", "abcdefgh", "äöü€", "€" * 9, "😀" * 7, "e\u0301e\u0301", "x" * 300, "€" * 200]


def span_of(values, limits=None):
    """The attributes of an event that has these, and how many were dropped."""
    writer = SpanWriter(1 << 20, None, limits)
    writer.event("n", 1)
    writer.update(values)
    written = writer.finish()
    (event,) = Span.FromString(written).events
    assert Span(events=[event]).SerializeToString() == written  # the very bytes of the official encoder
    return attributes(event.attributes), event.dropped_attributes_count


def record_of(values, limits=None):
    """The body and the attributes of a log record, and how many were dropped."""
    writer = LogWriter(1 << 40, 24, limits)
    written = writer.record(1, 1, 9, "INFO", values, values, Place(bytes(16)), "n")
    (record,) = ScopeLogs.FromString(written).log_records
    assert ScopeLogs(log_records=[record]).SerializeToString() == written  # the very bytes of the official encoder
    return attributes(record.body.kvlist_value.values), attributes(record.attributes), record.dropped_attributes_count


def cut(value, count):
    """By Python's characters."""
    if isinstance(value, str):
        return value[:count]
    if isinstance(value, (list, tuple)):
        return [cut(item, count) for item in value]
    if isinstance(value, dict):
        return {key: cut(item, count) for key, item in value.items()}
    return value


def payload(lot, depth=0):
    kind = lot.random()
    if depth > 3 or kind < 0.6:
        return lot.choice([None, True, 7, -1, 1.5, *TEXTS])
    if kind < 0.8:
        return [payload(lot, depth + 1) for _ in range(lot.randrange(4))]
    return {f"{lot.choice(TEXTS)}{number}": payload(lot, depth + 1) for number in range(lot.randrange(4))}


# ------------------------------------------------------------------------------------------- the pass


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 127, 128, 299, 300, 301, None])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, None])
def test_texts_are_cut_by_characters_and_attributes_by_their_number(length, count):
    lot = random.Random(f"{length} {count}")
    for _ in range(40):
        values = {f"{lot.choice(TEXTS)}{number}": payload(lot) for number in range(6)}
        values = {key: "" if value is None else value for key, value in values.items()}
        kept = dict(list(values.items())[:count])
        expected = {key: cut(value, length) for key, value in kept.items()}
        body, found, dropped = record_of(values, make_limits(count, length))
        assert (found, dropped) == (expected, len(values) - len(kept))
        assert body == values  # the limits are of attributes
        plain = {key: tuple(TEXTS) if isinstance(value, list | dict) else value for key, value in values.items()}
        expected = {key: cut(plain[key], length) for key in kept}
        assert span_of(plain, make_limits(count, length)) == (expected, len(values) - len(kept))


def test_without_limits_there_is_no_pass():
    assert make_limits(None, None) is None
    values = {"a": "x" * 1000, "b": ("é" * 3, ""), "c": 1}
    assert span_of(values, AttributeLimits()) == span_of(values) == ({**values, "b": ["é" * 3, ""]}, 0)


def test_a_cut_text_is_no_longer_than_the_limit_where_its_bytes_were_cut_too():
    """What is beyond `max_attribute_bytes` ends in a note of its length, which counts."""
    writer = SpanWriter(16, None, AttributeLimits(None, 8))
    writer.event("n", 1)
    writer.update({"k": "€" * 100})
    (event,) = Span.FromString(writer.finish()).events
    assert len(event.attributes[0].value.string_value) == 8


@pytest.mark.parametrize("dropped", [0, 1, 300])
def test_a_span_says_what_was_left_out(dropped):
    record = pack_record(
        1, bytes(16), timestamp_us=1, name="n", data=None, metadata=None, category_profile=None, data_schema=None,
        parent_uuid=None, category=1, attributes=0, thread_id=5, stack=None,
    )  # fmt: skip
    writer = SpanWriter(1 << 20, AttributeLimits(2))
    writer.event("e", 1)
    event = writer.finish()
    writer.span(ScopeEvent(record, 1, 1), Place(bytes(16)), "n", 1, 1, 2)
    writer.update({str(number): number for number in range(2 + dropped)})
    written = writer.finish([event], (2, "why"), dropped)
    (span,) = ScopeSpans.FromString(written).spans
    assert ScopeSpans(spans=[span]).SerializeToString() == written
    assert (span.dropped_attributes_count, span.dropped_events_count) == (dropped, dropped)
    assert (attributes(span.attributes), len(span.events), span.status.message) == ({"0": 0, "1": 1}, 1, "why")


# ------------------------------------------------------------------------------------------ settings


def exported(scenario, otel_type="full", **settings):
    """The spans that a receiver gets of a scenario, by name, and the exporter's report."""
    with OtlpReceiver() as receiver, relay_mp.session() as session:
        config = relay_mp.OpenTelemetryConfig(otel_type, receiver.endpoint)
        for name, value in settings.items():
            assert hasattr(config, name)
            setattr(config, name, value)
        exporter = relay_mp.OpenTelemetrySubscriber(config)
        exporter.register("otlp")
        scenario()
        exporter.shutdown()
        report = session.stats().exporters["otlp"]
        assert report.taken == report.exported + report.ignored + report.dropped
        return {span.name: span for span in receiver.spans}, report


def work():
    with scope.scope("s", ScopeType.Function, input={"long": "abcdefghij", "n": 12345, "deep": {"t": "abcdef"}}):
        for number in range(5):
            scope.event(str(number), data={"text": "abcdefghij", "n": number})


def texts(span):
    found = [pair for holder in (span, *span.events) for pair in holder.attributes]
    return [pair.value.string_value for pair in found if pair.value.WhichOneof("value") == "string_value"]


@pytest.mark.parametrize(("name", "value"), [(SPAN_LENGTH, "4"), (GENERAL_LENGTH, "4"), (None, None)])
@pytest.mark.parametrize("otel_type", ["full", "openinference"])
def test_the_length_of_texts_in_spans_and_their_events(monkeypatch, name, value, otel_type):
    if name:
        monkeypatch.setenv(name, value)
    spans, _ = exported(work, otel_type)
    longest = max(map(len, texts(spans["s"])))
    assert (longest == 4) is (name is not None)


def test_a_signals_own_variable_wins_and_one_that_cannot_be_gives_way(monkeypatch, caplog):
    monkeypatch.setenv(GENERAL_LENGTH, "7")
    monkeypatch.setenv(SPAN_LENGTH, "3")
    assert max(map(len, texts(exported(work)[0]["s"]))) == 3
    monkeypatch.setenv(SPAN_LENGTH, "-3")
    assert max(map(len, texts(exported(work)[0]["s"]))) == 7
    assert f"{SPAN_LENGTH} is '-3', not a whole number from 0 to {MAX}; it is not heeded" in caplog.text
    monkeypatch.setenv(SPAN_LENGTH, "")
    assert max(map(len, texts(exported(work)[0]["s"]))) == 7
    assert max(map(len, texts(exported(work, attribute_value_length_limit=5)[0]["s"]))) == 5


@pytest.mark.parametrize("most", [0, 3, 16, 17, 18])
def test_the_number_of_a_spans_attributes(monkeypatch, most):
    unlimited = exported(work)[0]["s"]
    monkeypatch.setenv(SPAN_COUNT, str(most))
    span = exported(work)[0]["s"]
    all_of_it = len(unlimited.attributes)
    assert len(span.attributes) == min(most, all_of_it)
    assert span.dropped_attributes_count == max(all_of_it - most, 0)
    assert [pair.key for pair in span.attributes] == [pair.key for pair in unlimited.attributes][:most]
    assert [len(event.attributes) for event in span.events] == [len(event.attributes) for event in unlimited.events]


@pytest.mark.parametrize("name", [EVENT_COUNT, GENERAL_COUNT])
def test_the_number_of_an_events_attributes(monkeypatch, name):
    unlimited = exported(work)[0]["s"]
    monkeypatch.setenv(name, "2")
    span = exported(work)[0]["s"]
    assert {len(event.attributes) for event in span.events} == {2}
    assert {event.dropped_attributes_count for event in span.events} == {len(unlimited.events[0].attributes) - 2}
    assert span.dropped_attributes_count == (len(unlimited.attributes) - 2 if name == GENERAL_COUNT else 0)


@pytest.mark.parametrize("most", [0, 1, 4, 5, 6])
def test_events_beyond_the_limit_are_dropped_and_counted(monkeypatch, most):
    monkeypatch.setenv(SPAN_EVENTS, str(most))
    spans, report = exported(work)
    over = max(5 - most, 0)
    assert [event.name for event in spans["s"].events] == [str(number) for number in range(min(most, 5))]
    assert spans["s"].dropped_events_count == over
    assert set(spans) == {"s"}
    assert (report.taken, report.exported, report.drops) == (7, 7 - over, {"event_limit": over} if over else {})


def test_a_limit_of_events_takes_the_place_of_the_default_bound(monkeypatch):
    monkeypatch.setenv(SPAN_EVENTS, "4")
    spans, report = exported(work, max_span_events=2)
    assert set(spans) == {"s"}
    assert (len(spans["s"].events), report.drops) == (4, {"event_limit": 1})
    monkeypatch.delenv(SPAN_EVENTS)
    spans, report = exported(work, max_span_events=2)
    assert (len(spans["s"].events), len(spans), report.drops) == (2, 4, {})


def test_marks_without_a_span_are_not_its_events():
    def late():
        with scope.scope("s", ScopeType.Function) as handle:
            pass
        scope.event("late", handle=handle)
        scope.event("outside")

    spans, report = exported(late, event_count_limit=0)
    assert set(spans) == {"s", "mark:late", "mark:outside"}
    assert report.drops == {}


def logs(**settings):
    with OtlpReceiver() as receiver, relay_mp.session() as session:
        config = relay_mp.OpenTelemetryLogConfig(receiver.endpoint)
        for name, value in settings.items():
            assert hasattr(config, name)
            setattr(config, name, value)
        exporter = relay_mp.OpenTelemetryLogSubscriber(config)
        exporter.register("otlp")
        metadata = {"t": "abcdefghij", "l": ["abcdefghij", 1]}
        scope.event("name of it", data={"body": "abcdefghij"}, metadata=metadata, severity=LogSeverity.Warn)
        exporter.shutdown()
        assert session.stats().exporters["otlp"].exported == 1
        (record,) = receiver.logs
        return record


@pytest.mark.parametrize("name", [RECORD_LENGTH, GENERAL_LENGTH])
def test_the_length_of_texts_in_a_log_records_attributes(monkeypatch, name):
    monkeypatch.setenv(GENERAL_LENGTH, "9")
    monkeypatch.setenv(name, "4")
    monkeypatch.setenv(SPAN_LENGTH, "1")
    record = logs()
    found = attributes(record.attributes)
    assert found["relay_mp.mark.metadata"] == {"t": "abcd", "l": ["abcd", 1]}
    assert (found["relay_mp.mark.name"], record.event_name) == ("name", "name of it")
    assert attributes(record.body.kvlist_value.values) == {"body": "abcdefghij"}
    assert attributes(logs(attribute_value_length_limit=5).attributes)["relay_mp.mark.name"] == "name "


@pytest.mark.parametrize("name", [RECORD_COUNT, GENERAL_COUNT])
@pytest.mark.parametrize("most", [0, 2, 100])
def test_the_number_of_a_log_records_attributes(monkeypatch, name, most):
    all_of_it = len(logs().attributes)
    monkeypatch.setenv(GENERAL_COUNT, "1")
    monkeypatch.setenv(name, str(most))
    record = logs()
    assert len(record.attributes) == min(most, all_of_it)
    assert record.dropped_attributes_count == max(all_of_it - most, 0)
    assert record.severity_text == "WARN"


@pytest.mark.parametrize("make", [lambda: relay_mp.OpenTelemetryConfig("full"), relay_mp.OpenTelemetryLogConfig])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (-1, ValueError, "attribute_count_limit is -1; expected at least 0"),
        (MAX + 1, ValueError, f"attribute_count_limit is {MAX + 1}; expected at most {MAX}"),
        (1.0, TypeError, "attribute_count_limit is a float; expected int"),
        (True, TypeError, "attribute_count_limit is a bool; expected int"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(make, value, error, said):
    config = make()
    config.attribute_count_limit = value
    with pytest.raises(error, match=said):
        config.arguments()


@pytest.mark.parametrize("text", ["-1", "1.5", "none", str(MAX + 1)])
def test_a_limit_of_the_environment_that_cannot_be_is_left_out_with_a_warning(monkeypatch, caplog, text):
    monkeypatch.setenv(SPAN_EVENTS, text)
    spans, report = exported(work)
    assert (len(spans["s"].events), report.drops) == (5, {})
    assert f"{SPAN_EVENTS} is '{text}', not a whole number from 0 to {MAX}" in caplog.text


def test_the_bound_of_a_limit_is_one(monkeypatch):
    for name in (SPAN_LENGTH, SPAN_COUNT, EVENT_COUNT, SPAN_EVENTS):
        monkeypatch.setenv(name, str(MAX))
    spans, _ = exported(work)
    assert (len(spans["s"].events), spans["s"].dropped_attributes_count) == (5, 0)
