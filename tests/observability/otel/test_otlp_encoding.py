"""Spans, log records and attributes as they are written natively, beside the official classes' encoding of the same."""

import random

import msgpack
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from relay_mp.events import ScopeEvent, pack_record
from relay_mp.observability.otel.full import FullProjection
from relay_mp.observability.otel.otlp import AttributeNames, LogWriter, SpanWriter, ValueWriter, frame
from relay_mp.observability.otel.places import Place
from relay_mp.observability.otel.values import MAX_KEYS, add_flat, clean, json_text

MAX_BYTES = 200
HERE = Place(bytes(16))
PAYLOADS = AttributeNames({"data": "p.data", "metadata": "p.metadata", "data_schema": "p.data_schema"})
OWN = {"model_name": "own.model", "tool_call_id": "own.id"}
PROFILE = AttributeNames({"category_profile": "p.profile"}, OWN)
SCHEMA = {"name": "s", "version": "1"}
ENVELOPE = AttributeNames(
    {
        "uuid": "uuid",
        "parent_uuid": "parent",
        "category": "category",
        "attributes": "attributes",
        "seq": "seq",
        "pid": "pid",
        "thread_id": "thread",
    }
)
EVENTS = 2000
TEXTS = ["", "a", "plain text", "ä€😀", 'quote " and \\', "\x00\x01\x1f\x7f\n", "long " * 60, "lang ä" * 40, "é" * 101]
NUMBERS = [0, 1, -1, 127, 128, -129, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, 1.5, 1e300, 5e-324, float("nan"), float("inf"), -float("inf")]


def scalar(lot):
    return lot.choice([None, True, False, lot.choice(TEXTS), lot.choice(NUMBERS), lot.choice(FLOATS), lot.random()])


def payload(lot, depth=0):
    kind = lot.random()
    if depth > 3 or kind < 0.5:
        return scalar(lot)
    if kind < 0.7:
        return [payload(lot, depth + 1) for _ in range(lot.randrange(4))]
    count = lot.choice([0, 1, 2, 5, 30, MAX_KEYS, MAX_KEYS + 1]) if depth == 0 else lot.randrange(4)
    return {f"{lot.choice(TEXTS)}{number}": payload(lot, depth + 1) for number in range(count)}


def profile(lot):
    found = payload(lot)
    if isinstance(found, dict):
        found |= {key: scalar(lot) for key in ("model_name", "tool_call_id") if lot.random() < 0.5}
    return found


def scope_end(data=None, metadata=None, category_profile=None, uuid=bytes(16), schema=None, **envelope):
    fields = {"parent_uuid": None, "category": 1, "attributes": 0, "thread_id": 5, "stack": None, **envelope}
    record = pack_record(
        1, uuid, timestamp_us=1, name="name", data=data, metadata=metadata, category_profile=category_profile,
        data_schema=schema, **fields,
    )  # fmt: skip
    return ScopeEvent(record, 63, 7)


def unusual(event):
    """The same event, its schema in a form that the native encoder does not write: all of it goes by way of Python."""
    fields = msgpack.unpackb(event._record)
    fields[12] = SCHEMA
    return ScopeEvent(msgpack.packb(fields), event.seq, event.pid)


def any_value(value, max_bytes=MAX_BYTES):
    """By the official classes."""
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, tuple):
        made = AnyValue()
        made.array_value.SetInParent()
        made.array_value.values.extend(any_value(item, max_bytes) for item in value)
        return made
    return AnyValue(string_value=clean(value if isinstance(value, str) else json_text(value), max_bytes))


def pairs(attributes):
    return [
        KeyValue(key=clean(key, MAX_BYTES), value=any_value(value))
        for key, value in attributes.items()
        if value is not None
    ]


def flat(event):
    """What is to become of an event's payloads."""
    found = {}
    add_flat(found, "p.data", event.data)
    add_flat(found, "p.metadata", event.metadata)
    found["p.data_schema"] = event.data_schema
    return found


def span_of(writer, event, *names):
    writer.span(event, HERE, "n", 1, 1, 2)
    for each in names:
        writer.add(each, event)
    return writer.finish()


def written(spans):
    """The one span that is in there, and its own encoding by the official classes."""
    (span,) = ScopeSpans.FromString(spans).spans
    assert ScopeSpans(spans=[span]).SerializeToString() == spans
    return span


def test_payloads_are_flattened_to_the_official_bytes_natively_and_in_python():
    lot, writer = random.Random(1), SpanWriter(MAX_BYTES)
    for _ in range(EVENTS):
        event = scope_end(payload(lot), payload(lot), schema=SCHEMA)
        natively = span_of(writer, event, PAYLOADS)
        assert list(written(natively).attributes) == pairs(flat(event))
        assert span_of(writer, unusual(event), PAYLOADS) == natively


def test_profiles_are_flattened_but_for_what_has_a_name_of_its_own():
    lot, writer = random.Random(2), SpanWriter(MAX_BYTES)
    for _ in range(EVENTS):
        event = scope_end(category_profile=profile(lot), schema=SCHEMA)
        expected = {}
        if isinstance(event.category_profile, dict):
            rest = dict(event.category_profile)
            own = {OWN[key]: rest.pop(key) for key in OWN if key in rest}
            add_flat(expected, "p.profile", rest or None)
            expected |= own
        natively = span_of(writer, event, PROFILE)
        by_key = {pair.key: pair for pair in pairs(expected)}
        assert {pair.key: pair for pair in written(natively).attributes} == by_key
        assert span_of(writer, unusual(event), PROFILE) == natively


@pytest.mark.parametrize("category", [None, 0, 10, 11, -1, "made up", "ä", ""])
@pytest.mark.parametrize(
    ("attributes", "thread_id", "parent", "seq"),
    [(0, 7, None, 63), (31, 0, bytes(range(16)), 2**63), (64, 2**40, None, -1)],
)
def test_the_envelope_becomes_attributes_natively_and_in_python(category, attributes, thread_id, parent, seq):
    event = scope_end(category=category, attributes=attributes, thread_id=thread_id, parent_uuid=parent, schema=SCHEMA)
    event = ScopeEvent(event._record, seq, event.pid)
    writer = SpanWriter(MAX_BYTES)
    natively = span_of(writer, event, ENVELOPE)
    assert span_of(writer, unusual(event), ENVELOPE) == natively
    tiny = SpanWriter(4)  # keys are cut too
    assert span_of(tiny, event, ENVELOPE) == span_of(tiny, unusual(event), ENVELOPE)
    expected = {
        "uuid": event.uuid,
        "parent": event.parent_uuid,
        "category": event.category,
        "attributes": event.attributes or "[]",
        "seq": seq,
        "pid": event.pid,
        "thread": event.thread_id or None,
    }
    assert list(written(natively).attributes) == pairs(expected)


@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True, False, [], {}, {"a": {}}, None, float("nan")])
def test_each_kind_of_payload_is_flattened_to_the_same_value(value):
    event = scope_end(value)
    assert list(written(span_of(SpanWriter(MAX_BYTES), event, PAYLOADS)).attributes) == pairs(flat(event))


@pytest.mark.parametrize("newer", ["m", "longer", "", None, 7, "ä" * 200, float("nan"), [1]])
@pytest.mark.parametrize("older", ["m", "long", "a much longer name"])
def test_of_a_member_with_a_name_of_its_own_the_newer_counts(older, newer):
    first = scope_end(category_profile={"a": 1, "model_name": older, "tool_call_id": "1", "z": 2})
    second = scope_end(category_profile={"b": 3, "model_name": newer, "tool_call_id": "22"})
    writer = SpanWriter(MAX_BYTES)
    writer.span(first, HERE, "n", 1, 1, 2)
    writer.add(PROFILE, first)
    writer.add(PROFILE, second)
    expected = {"p.profile.a": 1, "p.profile.z": 2, "own.model": older, "own.id": "1", "p.profile.b": 3}
    newest = second.category_profile["model_name"]  # null, for what is no finite number
    expected |= {"own.id": "22"} | ({} if newest is None else {"own.model": newest})
    assert list(written(writer.finish()).attributes) == pairs(expected)


def test_attributes_are_set_and_get_second_names_as_in_a_dict():
    lot, writer = random.Random(4), SpanWriter(MAX_BYTES)
    for _ in range(EVENTS):
        expected = {f"k{number}": scalar(lot) for number in range(lot.randrange(6))}
        expected = {key: value for key, value in expected.items() if value is not None}
        writer.span(scope_end(), HERE, "n", 1, 1, 2)
        writer.update(expected)
        for _ in range(lot.randrange(6)):
            key, other = (f"k{lot.randrange(8)}" for _ in range(2))
            value = scalar(lot)
            if lot.random() < 0.5:
                writer.copy(key, other)
                if key in expected:
                    expected.setdefault(other, expected[key])
            elif value is not None:
                writer.set(key, value)
                expected[key] = value
        assert list(written(writer.finish()).attributes) == pairs(expected)


def in_ns(time_us):
    return min(max(time_us * 1000, 0), 2**64 - 1)


def official_event(name, time_us, attributes):
    return Span.Event(name=clean(name, MAX_BYTES), time_unix_nano=in_ns(time_us), attributes=pairs(attributes))


def random_attributes(lot):
    return {
        f"{lot.choice(TEXTS)}.{number}": lot.choice([scalar(lot), ("a", "ä", "long " * 60), (), ["x", 1], {"k": None}])
        for number in range(lot.randrange(12))
    } | {"surrogate \ud800": "\udc00 x", "int of a subclass": lot.choice([0, 2**70, -(2**63) - 1])}


def test_spans_and_their_events_are_the_official_classes_to_the_byte():
    lot = random.Random(3)
    writer = SpanWriter(MAX_BYTES)
    for _ in range(EVENTS):
        attributes, name = random_attributes(lot), lot.choice(TEXTS)
        parent = lot.choice([None, lot.randbytes(8)])
        trace, uuid, is_remote = lot.randbytes(16), lot.randbytes(16), lot.random() < 0.5
        times = [lot.choice([-(2**63), 0, 1, lot.getrandbits(50), 2**63, 2**64 - 1]) for _ in range(2)]
        status = lot.choice([None, (0, ""), (1, ""), (2, "bad ä"), (2, "")])
        marks = [(lot.choice(TEXTS), lot.getrandbits(50), random_attributes(lot)) for _ in range(lot.randrange(3))]
        expected = Span(
            trace_id=trace, span_id=uuid[8:], parent_span_id=parent or b"", flags=0x301 if is_remote else 0x101, kind=3,
            name=clean(name, MAX_BYTES), attributes=pairs(attributes),
            start_time_unix_nano=in_ns(times[0]), end_time_unix_nano=in_ns(max(times)),
            events=[official_event(*mark) for mark in marks],
        )  # fmt: skip
        if status is not None:
            expected.status.code, expected.status.message = status
            expected.status.SetInParent()
        events = []
        for mark_name, time_us, of_mark in marks:
            writer.event(mark_name, time_us)
            writer.update(of_mark)
            events.append(writer.finish())
        writer.span(scope_end(uuid=uuid), Place(trace, parent, is_remote), name, 3, *times)
        writer.update(attributes)
        assert writer.finish(events, status) == ScopeSpans(spans=[expected]).SerializeToString()


def test_a_long_text_of_a_payload_is_cut_where_the_span_is_written():
    event = scope_end({"text": "ä" * 1000, "whole": [["x" * 1000]]})
    span = written(span_of(SpanWriter(MAX_BYTES), event, PAYLOADS))
    texts = [pair.value.string_value for pair in span.attributes]
    assert texts == [clean("ä" * 1000, MAX_BYTES), clean(json_text([["x" * 1000]]), MAX_BYTES)]
    assert texts[0].endswith("…(2000 bytes)")


def test_a_projection_names_what_the_two_events_of_a_scope_say():
    start = scope_end({"q": 1}, category_profile={"model_name": "asked"})
    end = scope_end([1], {"k": None}, category_profile={"model_name": "answered"}, schema=SCHEMA)
    writer = SpanWriter(MAX_BYTES)
    writer.span(start, HERE, "n", 1, 1, 2)
    FullProjection().write(writer, start, end)
    found = {pair.key: pair.value for pair in written(writer.finish()).attributes}
    assert found.keys() == {
        "relay_mp.uuid", "relay_mp.scope_type", "relay_mp.handle_attributes", "relay_mp.seq",
        "relay_mp.start.data.q", "relay_mp.model_name", "relay_mp.end.data", "relay_mp.end.metadata.k",
        "relay_mp.end.data_schema",
    }  # fmt: skip
    assert found["relay_mp.model_name"].string_value == "answered"


def test_ids_of_another_length_are_refused():
    writer = SpanWriter(MAX_BYTES)
    for place, expected in ((Place(b"x"), "expected 16"), (Place(bytes(16), b"x"), "expected 8")):
        with pytest.raises(ValueError, match=expected):
            writer.span(scope_end(), place, "n", 1, 1, 2)


@pytest.mark.parametrize(("names", "own"), [(17, 0), (1, 5)])
def test_names_have_a_bound(names, own):
    with pytest.raises(ValueError, match="expected 16 and 4 at most"):
        AttributeNames({f"f{n}": "" for n in range(names)}, {f"m{n}": "" for n in range(own)})


@pytest.mark.parametrize("use", ["finish", "add", "update", "set", "copy"])
def test_a_writer_without_a_span_says_so(use):
    every = {"finish": (), "add": (ENVELOPE, scope_end()), "update": ({"a": 1},), "set": ("a", 1), "copy": ("a", "b")}
    writer = SpanWriter(MAX_BYTES)
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing has begun"):
            getattr(writer, use)(*every[use])
        span_of(writer, scope_end(), ENVELOPE)


def test_second_names_that_are_no_text_are_written_as_attributes_are():
    writer = SpanWriter(MAX_BYTES)
    writer.span(scope_end(), HERE, "n", 1, 1, 2)
    writer.update({"a\udc00": 1})
    writer.copy("a\udc00", "b\udc00" * 200)
    assert list(written(writer.finish()).attributes) == pairs({"a\udc00": 1, "b\udc00" * 200: 1})


# ---- values that nest: log records, and attributes of points


def fill(target, value, depth):
    """A payload as an official AnyValue, in which so many levels may nest; null is one that is empty."""
    if isinstance(value, list) and depth:
        target.array_value.SetInParent()
        for item in value:
            fill(target.array_value.values.add(), item, depth - 1)
    elif isinstance(value, dict) and depth:
        target.kvlist_value.SetInParent()
        for key, item in value.items():
            pair = target.kvlist_value.values.add(key=clean(key, MAX_BYTES))
            if item is not None:
                fill(pair.value, item, depth - 1)
    elif value is not None:
        target.CopyFrom(any_value(value))


def filled(attributes, depth):
    found = [KeyValue(key=clean(key, MAX_BYTES)) for key, value in attributes.items() if value is not None]
    for pair, value in zip(found, (value for value in attributes.values() if value is not None), strict=True):
        fill(pair.value, value, depth)
    return found


@pytest.mark.parametrize("depth", [1, 2, 3, 24])
def test_log_records_are_the_official_classes_to_the_byte(depth):
    lot, writer = random.Random(depth), LogWriter(MAX_BYTES, depth)
    for _ in range(EVENTS // 4):
        body, attributes = payload(lot), {"a": payload(lot), "": scalar(lot), "surrogate \ud800": "\udc00", "n": 2**70}
        time_us, observed_ns = lot.choice([0, 1, -5, lot.getrandbits(50), 2**64]), lot.getrandbits(63) + 1
        name, parent, trace = lot.choice(TEXTS), lot.choice([None, lot.randbytes(8)]), lot.randbytes(16)
        expected = LogRecord(
            time_unix_nano=in_ns(time_us), observed_time_unix_nano=observed_ns, severity_number=9, severity_text="INFO",
            event_name=clean(name, MAX_BYTES), attributes=filled(attributes, depth),
        )  # fmt: skip
        if body is not None:
            fill(expected.body, body, depth)
            expected.body.SetInParent()
        if parent is not None:
            expected.trace_id, expected.span_id, expected.flags = trace, parent, 1
        natively = writer.record(time_us, observed_ns, 9, "INFO", body, attributes, Place(trace, parent), name)
        assert natively == ScopeLogs(log_records=[expected]).SerializeToString()


@pytest.mark.parametrize(
    "length", [0, 1, 100, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16_370, 16_380, 16_383, 16_384, 2_097_152]
)
def test_messages_of_every_length_have_their_length_before_them(length):
    text, writer = "x" * length, LogWriter(1 << 30, 5)
    record = LogRecord(observed_time_unix_nano=1, severity_number=1, severity_text="T")
    record.body.CopyFrom(AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=text), AnyValue(int_value=1)])))
    natively = writer.record(0, 1, 1, "T", [text, 1], {}, HERE, "")
    assert natively == ScopeLogs(log_records=[record]).SerializeToString()
    assert frame(2, record.SerializeToString()) == natively


@pytest.mark.parametrize("place", [Place(b"x", bytes(8)), Place(bytes(16), b"x")])
def test_ids_of_another_length_are_refused_in_log_records(place):
    with pytest.raises(ValueError, match="expected"):
        LogWriter(MAX_BYTES, 1).record(0, 1, 1, "T", None, {}, place, "")


def test_attributes_of_points_are_the_official_classes_to_the_byte():
    attributes = {"text": "ä", "flag": True, "int": -1, "float": 1.5, "list": ["a", 1, 2.5, False], "none": None, "": 1}
    expected = NumberDataPoint(attributes=filled(attributes, 1)).SerializeToString()
    assert ValueWriter(MAX_BYTES, 1).attributes(attributes, NumberDataPoint.ATTRIBUTES_FIELD_NUMBER) == expected


@pytest.mark.parametrize("field", [0, 16, -1])
def test_numbers_of_fields_have_a_bound(field):
    with pytest.raises(ValueError, match="expected 1 to 15"):
        frame(field, b"")
    with pytest.raises(ValueError, match="expected 1 to 15"):
        ValueWriter(MAX_BYTES, 1).attributes({"a": 1}, field)
