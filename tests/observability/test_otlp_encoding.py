"""Spans as they are written natively, beside the official classes' encoding of the same."""

import random

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from relay_mp.events import ScopeEvent, pack_record
from relay_mp.observability._otlp import SpanEncoder, flatten
from relay_mp.observability.otel_full import FullProjection
from relay_mp.observability.otel_values import MAX_KEYS, add_flat, clean, json_text

MAX_BYTES = 200
HERE = (bytes(16), None, False)
BESIDE = {f"relay_mp.{name}" for name in ("uuid", "parent_uuid", "scope_type", "handle_attributes", "seq")}
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


def scope_end(data=None, metadata=None, category_profile=None, uuid=bytes(16)):
    record = pack_record(1, uuid, None, 1, "name", 1, 0, 5, None, data, metadata, category_profile)
    return ScopeEvent(record, 63, 7)


def any_value(value, max_bytes=MAX_BYTES):
    """By the official classes."""
    if isinstance(value, bytes):
        return any_value(plain(value), max_bytes)
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


def plain(encoded):
    value = AnyValue.FromString(encoded)
    return getattr(value, value.WhichOneof("value"))


def pairs(attributes):
    return [
        KeyValue(key=clean(key, MAX_BYTES), value=any_value(value))
        for key, value in attributes.items()
        if value is not None
    ]


def in_python(event):
    """What `flatten` would add if all were left to Python."""
    found = {}
    add_flat(found, "p.data", event.data)
    add_flat(found, "p.metadata", event.metadata)
    return found


def written(spans):
    """The one span that is in there, and its own encoding by the official classes."""
    (span,) = ScopeSpans.FromString(spans).spans
    assert ScopeSpans(spans=[span]).SerializeToString() == spans
    return span


def test_payloads_are_flattened_as_python_does_it():
    lot = random.Random(1)
    encoder = SpanEncoder(MAX_BYTES)
    natively = 0
    for _ in range(EVENTS):
        event = scope_end(payload(lot), payload(lot))
        found = {}
        for name, index in (("data", 9), ("metadata", 10)):
            if flatten(found, f"p.{name}", event, index):
                natively += 1
            else:
                add_flat(found, f"p.{name}", getattr(event, name))
        span = written(encoder.span(event, HERE, "n", 1, 1, 2, found, [], None))
        assert sorted(span.attributes, key=lambda p: p.key) == sorted(pairs(in_python(event)), key=lambda p: p.key)
        assert list(span.attributes) == pairs(in_python(event))
    assert natively > EVENTS


def test_profiles_are_flattened_but_for_what_has_a_name_of_its_own():
    lot = random.Random(2)
    encoder = SpanEncoder(MAX_BYTES)
    for _ in range(EVENTS):
        event = scope_end(category_profile=profile(lot))
        found = FullProjection().attributes(None, event)
        expected = {}
        if isinstance(event.category_profile, dict):
            rest = dict(event.category_profile)
            expected = {f"relay_mp.{key}": rest.pop(key) for key in ("model_name", "tool_call_id") if key in rest}
            add_flat(expected, "relay_mp.end.category_profile", rest or None)
        span = written(encoder.span(event, HERE, "n", 1, 1, 2, found, [], None))
        by_key = {pair.key: pair for pair in pairs(expected)}
        assert {pair.key: pair for pair in span.attributes if pair.key not in BESIDE} == by_key


@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True, False, [], {}, {"a": {}}, None, float("nan")])
def test_each_kind_of_payload_is_flattened_to_the_same_value(value):
    event = scope_end(value)
    natively, expected = {}, {}
    if not flatten(natively, "p", event, 9):
        add_flat(natively, "p", event.data)
    add_flat(expected, "p", event.data)
    assert {key: any_value(item) for key, item in natively.items()} == {k: any_value(v) for k, v in expected.items()}


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
    encoder = SpanEncoder(MAX_BYTES)
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
        events = [encoder.event(*mark) for mark in marks]
        encoded = encoder.span(
            scope_end(uuid=uuid), (trace, parent, is_remote), name, 3, *times, attributes, events, status
        )
        assert encoded == ScopeSpans(spans=[expected]).SerializeToString()


def test_a_long_text_of_a_payload_is_cut_where_the_span_is_written():
    event = scope_end({"text": "ä" * 1000, "whole": [["x" * 1000]]})
    found = {}
    assert flatten(found, "p", event, 9)
    span = written(SpanEncoder(MAX_BYTES).span(event, HERE, "n", 1, 1, 2, found, [], None))
    texts = [pair.value.string_value for pair in span.attributes]
    assert texts == [clean("ä" * 1000, MAX_BYTES), clean(json_text([["x" * 1000]]), MAX_BYTES)]
    assert texts[0].endswith("…(2000 bytes)")


def test_ids_of_another_length_are_refused():
    encoder = SpanEncoder(MAX_BYTES)
    for place, expected in (((b"x", None, False), "expected 16"), ((bytes(16), b"x", False), "expected 8")):
        with pytest.raises(ValueError, match=expected):
            encoder.span(scope_end(), place, "n", 1, 1, 2, {}, [], None)
