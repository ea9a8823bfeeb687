"""Events as views over records: lazy, canonical, and not to be harmed by what a record holds."""

import json
import pickle
from datetime import UTC, datetime

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp.errors import RecordError
from relay_mp.events import (
    KIND_CONTROL,
    KIND_END,
    KIND_MARK,
    KIND_START,
    MarkEvent,
    ScopeEvent,
    canonical_uuid,
    decode,
    pack_record,
    rfc3339,
)
from relay_mp.types import CATEGORIES, LogSeverity

UUID = bytes.fromhex("01a1ffd46628777390bd78c5867010d0")
PARENT = bytes.fromhex("01a1ffd46628777390bd78c5867010d1")
UUID_TEXT = "01a1ffd4-6628-7773-90bd-78c5867010d0"
PARENT_TEXT = "01a1ffd4-6628-7773-90bd-78c5867010d1"
NOON_US = 1_790_000_000_123_456

text = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def mark(**fields):
    defaults = {"kind": KIND_MARK, "uuid": UUID, "parent_uuid": PARENT, "timestamp_us": NOON_US, "name": "m"}
    return decode(pack_record(**defaults | fields), 7, 42)


def test_a_mark_in_canonical_json():
    event = mark(
        data={"x": "é\u2028\x7f\x01/<", "b": [1, 2.5, None, True], "a": {"z": 1, "y": 2}},
        metadata={"relay_mp.log.severity": "warn"},
        data_schema={"name": "n", "version": "1"},
    )
    assert event.to_json() == (
        '{"atof_version":"0.1","category":null,"category_profile":null,"data":{"a":{"y":2,"z":1},'
        '"b":[1,2.5,null,true],"x":"é\u2028\x7f\\u0001/<"},"data_schema":{"name":"n","version":"1"},"kind":"mark",'
        '"metadata":{"relay_mp.log.severity":"warn"},"name":"m",'
        f'"parent_uuid":"{PARENT_TEXT}","timestamp":"2026-09-21T14:13:20.123456+00:00","uuid":"{UUID_TEXT}"}}'
    )
    assert event.severity is LogSeverity.Warn
    assert (event.seq, event.pid, event.redelivered, event.thread_id, event.stack) == (7, 42, False, 0, None)


def test_a_scope_in_canonical_json():
    record = pack_record(KIND_END, UUID, None, 0, "a", 3, 3, 99, None, 5, None, {"model_name": "m", "new": 1})
    event = decode(record, 1, 2, True)
    assert event.to_json() == (
        '{"atof_version":"0.1","attributes":["parallel","relocatable"],"category":"llm",'
        '"category_profile":{"model_name":"m","new":1},"data":5,"data_schema":null,"kind":"scope","metadata":null,'
        '"name":"a","parent_uuid":null,"scope_category":"end","timestamp":"1970-01-01T00:00:00+00:00",'
        f'"uuid":"{UUID_TEXT}"}}'
    )
    assert (event.kind, event.scope_category, event.thread_id, event.redelivered) == (
        "scope",
        "end",
        99,
        True,
    )
    assert event.attributes == ["parallel", "relocatable"]


@given(
    kind=st.sampled_from([KIND_START, KIND_END, KIND_MARK]),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    category=st.none() | st.integers(0, 10) | st.sampled_from(["other", 'quote"d']),
    attributes=st.integers(0, 255),
    payloads=st.lists(json_values, min_size=4, max_size=4),
    timestamp_us=st.integers(-(2**63), 2**63 - 1),
)
def test_json_is_the_text_of_the_dict_and_sorted_at_every_depth(
    kind, name, category, attributes, payloads, timestamp_us
):
    event = decode(pack_record(kind, UUID, PARENT, timestamp_us, name, category, attributes, 1, None, *payloads), 1, 2)
    as_dict, as_json = event.to_dict(), event.to_json()
    assert as_json == json.dumps(as_dict, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # The dict's own order is sorted already, at every depth.
    assert as_json == json.dumps(as_dict, separators=(",", ":"), ensure_ascii=False)
    assert "\n" not in as_json
    for key, value in as_dict.items():
        assert getattr(event, key) == value
    assert event.data == payloads[0]


def test_every_category_by_its_index():
    for index, category in enumerate(CATEGORIES):
        assert decode(pack_record(KIND_START, UUID, None, 0, "a", index), 1, 2).category == category
    assert decode(pack_record(KIND_START, UUID, None, 0, "a", 200), 1, 2).category == "unknown"


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_times_agree_with_datetime(moment):
    moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    text = rfc3339(microseconds)
    assert datetime.fromisoformat(text) == moment
    assert text.endswith("+00:00")
    fraction = text[19:-6]
    assert len(fraction) == (0 if not moment.microsecond else 7 if moment.microsecond % 1000 else 4)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (1_000, "1970-01-01T00:00:00.001+00:00"),
        (-62_135_616_600_000_000 + 1, "0000-12-31T18:30:00.000001+00:00"),
        (253_402_318_799_999_999, "+10000-01-01T04:59:59.999999+00:00"),
        (2**63 - 1, "+294247-01-10T04:00:54.775807+00:00"),
        (-(2**63), "-290308-12-21T19:59:05.224192+00:00"),
    ],
)
def test_times_outside_datetime_are_written_all_the_same(microseconds, text):
    assert rfc3339(microseconds) == text


def test_payloads_are_decoded_on_first_access_and_kept():
    event = mark(data=[1])
    assert event._payloads is None
    assert event.data is event.data
    damaged = decode(msgpack.packb([KIND_MARK, UUID, None, 0, "m", None, 0, 0, None, b"\xc1", None, None, None]), 1, 2)
    assert damaged.name == "m"
    with pytest.raises(RecordError, match="not msgpack"):
        _ = damaged.data
    with pytest.raises(RecordError):
        damaged.to_json()


def test_a_subscriber_that_changes_data_does_not_change_what_the_next_one_writes():
    event = mark(data={"a": [1]})
    event.data["a"].append("mine")
    assert event.to_dict()["data"] == {"a": [1]}
    assert '"data":{"a":[1]}' in event.to_json()
    first = event.to_dict()
    first["data"]["a"] = None
    assert event.to_dict()["data"] == {"a": [1]}


def test_a_cut_field_shows_its_marker_inline_or_packed():
    marker = {"relay_mp.cut": {"bytes": 123}}
    packed = mark(data=marker)
    inline = decode(msgpack.packb([KIND_MARK, UUID, None, 0, "m", None, 0, 0, None, marker, None, None, None]), 1, 2)
    assert packed.data == inline.data == marker
    assert '"data":{"relay_mp.cut":{"bytes":123}}' in inline.to_json()


def test_nan_and_infinities_in_a_record_become_null():
    event = mark(data=[float("nan"), {"x": float("inf")}])
    assert event.data == [None, {"x": None}]
    assert json.loads(event.to_json())["data"] == [None, {"x": None}]


@pytest.mark.parametrize("payload", [b"bytes", {1: 2}, [msgpack.ExtType(3, b"x")], {"a": {"b": b"c"}}])
def test_a_payload_that_is_no_json_is_refused_not_written(payload):
    fields = [KIND_MARK, UUID, None, 0, "m", None, 0, 0, None, msgpack.packb(payload), None, None, None]
    event = decode(msgpack.packb(fields), 1, 2)
    for read in (event.to_json, event.to_dict, lambda: event.data):
        with pytest.raises(RecordError):
            read()


def test_a_deep_payload_is_written():
    value = 1
    for _ in range(128):
        value = {"a": [value]} if _ % 2 else [value]
    event = mark(data=value)
    assert event.data == value
    assert json.loads(event.to_json())["data"] == value


def test_decode_reads_only_the_kind():
    assert type(decode(b"\x9d\x02", 1, 2)) is MarkEvent
    assert type(decode(b"\x9d\x00", 1, 2)) is ScopeEvent
    assert type(decode(b"\xdc\x00\x0d\x01", 1, 2)) is ScopeEvent


@pytest.mark.parametrize("record", [b"", b"\x9d", b"\xdc\x00", b"\x80\x00", b"\x9d\x07", b"\x9d\xcc\x02"])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(RecordError):
        decode(record, 1, 2)


def test_a_control_record_is_no_event():
    with pytest.raises(RecordError, match="no scope and no mark"):
        decode(pack_record(KIND_CONTROL, UUID, None, 0, "register"), 1, 2)


@given(st.binary(max_size=80), st.sampled_from([b"\x9d\x02", b"\x9d\x00", b"\xdc\x00\x0d\x02"]))
def test_garbage_behind_a_kind_raises_one_error(tail, head):
    event = decode(head + tail, 1, 2)
    for read in (lambda: event.name, lambda: event.uuid, event.to_dict, event.to_json):
        try:
            read()
        except RecordError:
            continue
    assert repr(event).startswith("<")


@pytest.mark.parametrize("position", range(13))
@pytest.mark.parametrize("intruder", [None, 5, "x", b"short", [1], {"a": 1}, -1, 2**64 - 1, 1.5])
def test_a_field_of_a_wrong_type_raises_one_error(position, intruder):
    fields = [KIND_START, UUID, PARENT, 0, "n", 0, 0, 0, PARENT, None, None, None, None]
    fields[position] = intruder
    try:
        event = decode(msgpack.packb(fields), 1, 2)
        for key in (
            "uuid",
            "parent_uuid",
            "timestamp",
            "name",
            "category",
            "attributes",
            "thread_id",
            "stack",
        ):
            getattr(event, key)
        event.to_json()
        event.to_dict()
    except RecordError:
        pass


def test_the_stack_comes_innermost_first():
    assert mark(stack=UUID + PARENT).stack == (UUID_TEXT, PARENT_TEXT)


def test_a_synthetic_mark_is_a_mark():
    event = MarkEvent.from_fields(
        "relay_mp.loss", uuid=UUID, timestamp_us=NOON_US, seq=9, pid=4, data={"lost": 3}, metadata={"a": None}
    )
    assert (event.name, event.data, event.seq, event.pid, event.parent_uuid) == (
        "relay_mp.loss",
        {"lost": 3},
        9,
        4,
        None,
    )
    assert event.to_dict()["timestamp"] == "2026-09-21T14:13:20.123456+00:00"


@pytest.mark.parametrize("metadata", [None, [1], {"relay_mp.log.severity": 3}, {"relay_mp.log.severity": "loud"}])
def test_no_severity_where_none_is_given(metadata):
    assert mark(metadata=metadata).severity is None


def test_events_pickle_and_say_what_they_are():
    event = mark(data={"a": 1})
    _ = event.data
    copy = pickle.loads(pickle.dumps(event))
    assert copy.to_json() == event.to_json()
    assert (copy.seq, copy.pid) == (7, 42)
    assert repr(event) == f"<MarkEvent mark 'm' uuid={UUID_TEXT} seq=7 pid=42>"
    start = decode(pack_record(KIND_START, UUID, None, 0, "a", 2), 1, 2)
    assert repr(start) == f"<ScopeEvent start of tool 'a' uuid={UUID_TEXT} seq=1 pid=2>"
    with pytest.raises(AttributeError):
        event.name = "other"


def test_canonical_uuid():
    assert canonical_uuid(UUID) == UUID_TEXT
