"""A record's line of JSON, written natively: to the byte what goes by way of Python objects, or nothing."""

import json
import math
import random
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay_mp._native.encoder import pack
from relay_mp._records.json_line import event_line, json_line, json_lines, payload_json
from relay_mp._records.payloads import read_payload
from relay_mp.errors import RecordError
from relay_mp.events import ORIGIN_KEY, MarkEvent, ScopeEvent, _text, canonical_payload, decode, pack_record

UUID = bytes(range(16))
DEEPEST = 256
MICROSECONDS = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4 * 10**15) | st.integers(0, 10**6).map(lambda n: n * 1000)
)
TEXT = st.text(max_size=20) | st.text('\x00\x08\t\n\x0c\r\x1f"\\/\x7f\x80é\u2028\ud7ff\ue000\U0001f600', max_size=20)
EDGES = [0, 127, 128, 2**16, 2**32, -32, -33, 1e16, 1e-7]
NUMBERS = st.floats() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from(EDGES)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(TEXT, inner, max_size=40),
    max_leaves=30,
)


class Strict(MarkEvent):
    """An event whose record has to be in the native encoder's form."""

    def _decode_unusual(self):
        raise LookupError("the record is unusual")

    def fields(self):
        return [self._field(index) for index in range(13)]


def usual_fields(record):
    """None if the record is in another form, or damaged."""
    try:
        return Strict(record, 1, 1).fields()
    except LookupError:
        return None


def both(record):
    """What the native half and Python give for one record: (line, line); None for what Python refuses."""
    event = (ScopeEvent if record[1] < 2 else MarkEvent)(record, 1, 1)
    native = json_line(record, isinstance(event, ScopeEvent))
    try:
        return native, f"{_text(event)}\n".encode()
    except RecordError:
        return native, None


@given(
    kind=st.sampled_from([0, 1, 2]),
    parent=st.none() | st.binary(min_size=16, max_size=16),
    timestamp_us=MICROSECONDS,
    name=TEXT,
    category=st.none() | st.integers(-3, 20) | TEXT,
    attributes=st.integers(0, 40),
    stack=st.none() | st.binary(max_size=40),
    data=VALUES,
    metadata=VALUES,
    schema=VALUES,
)
def test_any_event_is_written_as_python_writes_it(
    kind, parent, timestamp_us, name, category, attributes, stack, data, metadata, schema
):
    record = pack_record(
        kind, UUID, parent, timestamp_us, name, category, attributes, 7, stack, data, metadata, None, schema
    )
    assert Strict(record, 1, 1).fields() == msgpack.unpackb(record)
    native, python = both(record)
    assert native in (python, None)
    usual = (type(category) is not int or category >= 0) and category != ""
    assert (native is not None) == usual or kind < 2 or category is None
    if native is not None:
        assert json.loads(native) == decode(record, 1, 1).to_dict()


@given(VALUES)
def test_a_payload_as_the_native_encoder_writes_it(value):
    fields = [2, UUID, None, 10**15, "m", None, 0, 7, None, pack(value), None, pack(value), None]
    native, python = both(msgpack.packb(fields))
    assert native == python
    assert native is not None
    event = decode(msgpack.packb(fields), 1, 1)
    text = json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    assert [payload_json(event, place) for place in (9, 10, 11)] == [text, "null", text]


@pytest.mark.parametrize("deep", [16, 17, 200])
def test_what_is_nested_deep_goes_the_long_way_and_reads_the_same(deep):
    value = 1
    for level in range(deep):
        value = [value] if level % 2 else {"k": value}
    event = decode(pack_record(2, UUID, None, 1, "m", data=value), 1, 1)
    assert (json_line(event._record, False) is None) == (deep > 16)
    assert (payload_json(event, 9) is None) == (deep > 16)
    assert json.loads(event.to_json()) == event.to_dict()
    assert event.to_json_line() == f"{event.to_json()}\n".encode()


# A float that has few digits, one beside it, and any.
FEW_DIGITS = st.builds(lambda digits, places: digits / 10**places, st.integers(-(10**16), 10**16), st.integers(0, 22))
BESIDE = st.builds(math.nextafter, FEW_DIGITS, st.sampled_from([-math.inf, math.inf]))
LIMITS = [0.0, -0.0, 1e-4, 9.999e-5, 1e15, 1e16, 999999999999999.0, 999999999999999.9, 0.1 + 0.2, 2.0**53, 5e-324, 0.5]


def written_floats(values):
    line = json_line(pack_record(2, UUID, None, 1, "m", data=values), False)
    return line[line.index(b"[") + 1 : line.index(b"]")].decode().split(",")


@given(st.lists(FEW_DIGITS | BESIDE | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@example([*LIMITS, *(math.nextafter(limit, inf) for limit in LIMITS for inf in (-math.inf, math.inf))])
@settings(max_examples=500)
def test_a_float_is_written_as_repr_writes_it(values):
    assert written_floats(values) == [repr(value) for value in values]


def test_floats_of_every_number_of_digits_are_written_as_repr_writes_them():
    draw = random.Random(1)
    for places in range(23):
        decimals = [draw.randrange(10 ** draw.randrange(1, 17)) / 10**places for _ in range(1000)]
        values = [near for value in decimals for near in (value, -value, math.nextafter(value, math.inf))]
        assert written_floats(values) == [repr(value) for value in values]


@pytest.mark.long
def test_a_million_floats_are_written_as_repr_writes_them():
    draw = random.Random(2)
    for _ in range(2000):
        values = [
            draw.choice([1, -1]) * round(draw.uniform(0, 10 ** draw.randrange(-4, 17)), draw.randrange(18))
            for _ in range(500)
        ]
        values += [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(500)]
        values = [value for value in values if math.isfinite(value)]
        assert written_floats(values) == [repr(value) for value in values]


# ------------------------------------------------------------------------------------------- lines of several events

NO_LIMIT = 1 << 40


def marks(count, **fields):
    fields = {"data": {"number": 1.5, "text": 'a"b'}, **fields}
    return [decode(pack_record(2, UUID, None, 10**15 + 400_000 * n, f"m{n}", **fields), n, 1) for n in range(count)]


def own_lines(events):
    return [event.to_json_line() for event in events]


def test_lines_are_those_of_the_events_one_behind_the_other():
    events = marks(5)
    events[1:1] = [decode(pack_record(kind, UUID, UUID, -1, "s\n", 3, 1), 9, 1) for kind in (0, 1)]
    events += marks(2, data="é\U0001f600" * 100) + marks(1, data=None)
    lines = own_lines(events)
    assert json_lines(events, NO_LIMIT, NO_LIMIT) == (b"".join(lines), len(lines))
    assert json_lines([], NO_LIMIT, NO_LIMIT) == (b"", 0)


# ------------------------------------------------------------------------------------------- lines that have an origin

MEMBERS = st.dictionaries(TEXT | st.sampled_from(["relay_mp.origi", "relay_mp.origin2", "s", "", ORIGIN_KEY]), VALUES)


@given(
    kind=st.sampled_from([0, 1, 2]),
    metadata=st.none() | MEMBERS | st.dictionaries(TEXT, st.none(), min_size=23, max_size=40) | VALUES,
    seq=st.integers(0, 2**64 - 1),
    pid=st.integers(0, 2**32),
    thread_id=st.integers(0, 2**32),
)
def test_an_origin_is_a_member_of_the_metadata_in_its_place(kind, metadata, seq, pid, thread_id):
    event = decode(pack_record(kind, UUID, None, 1, "m", None, 0, thread_id, metadata=metadata), seq, pid)
    expected = event.to_dict()
    plain = {} if expected["metadata"] is None else expected["metadata"]
    if isinstance(plain, dict) and ORIGIN_KEY not in plain:
        origin = {"pid": pid, "seq": seq, "session": 's"1', "thread_id": thread_id}
        expected["metadata"] = dict(sorted({**plain, ORIGIN_KEY: origin}.items()))
    line = json.dumps(expected, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    assert event_line(event, b's"1') == event._line_with_origin('s"1') == line
    assert json_lines([event] * 3, NO_LIMIT, NO_LIMIT, b's"1') == (line * 3, 3)
    assert event_line(event) == event.to_json_line()


def test_an_origin_is_in_a_line_that_is_not_written_natively():
    event = decode(pack_record(2, UUID, None, 1, "m", data=nested(20), thread_id=3), 1, 2)
    assert json_line(event._record, False) is None
    line = json.loads(event_line(event, b"s"))
    assert line["metadata"] == {ORIGIN_KEY: {"pid": 2, "seq": 1, "session": "s", "thread_id": 3}}
    assert line["data"] == event.data


def nested(levels):
    return [nested(levels - 1)] if levels else 1


def test_what_is_not_written_natively_is_written_by_the_event():
    class Other:
        def to_json_line(self):
            return b"other\n"

    unusual = decode(msgpack.packb([2, UUID, None, 1, "m", None, 0, 7, None, *[None] * 3, {"relay_mp.cut": 1}]), 1, 1)
    events = [*marks(1), *marks(2, data=nested(20)), unusual, Other(), *marks(1)]
    assert [json_line(event._record, False) is None for event in events[1:4]] == [True] * 3
    assert json_lines(events, NO_LIMIT, NO_LIMIT) == (b"".join(own_lines(events)), 6)


def test_an_event_that_raises_ends_the_lines():
    damaged = decode(damaged_payload(b"\xc1"), 1, 1)
    events = marks(3)
    assert json_lines([*events, damaged, *events], NO_LIMIT, NO_LIMIT) == (b"".join(own_lines(events)), 3)
    assert json_lines([damaged, *events], NO_LIMIT, NO_LIMIT) == (b"", 0)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("lines", [1, 2, 3])
def test_lines_are_bounded(lines, more):
    events = marks(5)
    own = own_lines(events)
    size = sum(map(len, own[:lines]))
    fitting = lines - (more < 0)
    assert json_lines(events, size + more, NO_LIMIT) == (b"".join(own[:fitting]), fitting)
    reaching = lines + (more > 0)
    assert json_lines(events, NO_LIMIT, size + more) == (b"".join(own[:reaching]), reaching)


def damaged_payload(packed):
    return msgpack.packb([2, UUID, None, 1, "m", None, 0, 7, None, packed, None, None, None])


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x01\x01",
        b"\x93\x01",
        b"\x81\xa1a",
        b"\x81\x01\x02",
        b"\xa1\xff",
        b"\xa3\xed\xa0\x80",  # a lone surrogate
        b"\xc4\x01a",
        b"\xd4\x01a",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ],
)
def test_a_damaged_payload_is_refused_as_before(packed):
    record = damaged_payload(packed)
    assert json_line(record, False) is None
    event = decode(record, 1, 1)
    assert payload_json(event, 9) is None
    for read in (event.to_json, event.to_json_line):
        with pytest.raises(RecordError):
            read()


def test_of_a_key_that_is_there_twice_the_last_counts():
    record = damaged_payload(b"\x82\xa1a\x01\xa1a\x02")
    assert json_line(record, False) is None
    assert '"data":{"a":2}' in decode(record, 1, 1).to_json()


def test_a_float_of_32_bits_is_read():
    event = decode(damaged_payload(b"\xca" + struct.pack(">f", 0.5)), 1, 1)
    assert '"data":0.5' in event.to_json()


@given(st.binary(max_size=80), st.booleans(), st.integers(0, 60))
@example(b"", True, 0)
def test_bytes_that_are_no_record_give_no_line(noise, is_scope, at):
    record = pack_record(2, UUID, UUID, 1, "name", None, 3, 7, None, {"k": [1, "x"]}, {"b": 1, "a": 2})
    json_line(noise, is_scope)
    for mutated in (record[:at], record[:at] + noise, record[:at] + noise + record[at + len(noise) :]):
        fields = usual_fields(mutated)
        assert fields is None or fields == msgpack.unpackb(mutated)
        line = json_line(mutated, is_scope)
        if line is not None:
            kind = ScopeEvent if is_scope else MarkEvent
            assert line.decode() == _text(kind(mutated, 1, 1)) + "\n"


# ---- payloads as Python objects: what msgpack gives, put in order; or refused by both ----

ODD = [
    b"\xca\x3f\x00\x00\x00", b"\xcb\x7f\xf0" + bytes(6), b"\xd3" + bytes(8), b"\xc1",
    b"\xc4\x01a", b"\xd4\x01a", b"\xc7\x00\x05", b"\x82\xa1a\x01\xa1a\x02", b"\x81\x01\x02",
    b"\xd9\x00", b"\xda\x00\x01a", b"\xdb\x00\x00\x00\x01a", b"\xa1\xff",
    b"\xdc\x00\x01\x01", b"\xdd\x00\x00\x00\x01\x01", b"\xde\x00\x01\xa1a\x01", b"\xdf\x00\x00\x00\x01\xa1a\x01",
]  # fmt: skip
PACKED = VALUES.map(msgpack.packb) | st.binary(max_size=40) | st.sampled_from(ODD)


def read_by_msgpack(packed):
    try:
        unpacked = msgpack.unpackb(packed)
    except Exception as error:
        raise RecordError(str(error)) from error
    return canonical_payload(unpacked)


def read_or_refusal(packed):
    """What the native reader and what msgpack with a walk over its objects say, as texts: keys in their order."""
    found = []
    for read in (read_payload, read_by_msgpack):
        try:
            found.append(repr(read(packed)))
        except RecordError:
            found.append(None)
    return found


@given(PACKED)
@example(b"")
def test_a_payload_is_read_as_msgpack_reads_it(packed):
    native, python = read_or_refusal(packed)
    assert native == python


@given(VALUES, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.integers(0, 10**6))
def test_a_damaged_payload_is_read_as_msgpack_reads_it(value, changes, cut):
    packed = bytearray(msgpack.packb([value, {"k": value}]))
    for at, byte in changes:
        packed[at % len(packed)] = byte
    for damaged in (bytes(packed), bytes(packed[: cut % len(packed)])):
        native, python = read_or_refusal(damaged)
        assert native == python


@pytest.mark.parametrize("wrap", [b"\x91", b"\x81\xa1k"])
def test_a_payload_is_read_down_to_its_bound(wrap):
    value = read_payload(wrap * DEEPEST + b"\x05")
    for _ in range(DEEPEST):
        value = value["k"] if isinstance(value, dict) else value[0]
    assert value == 5
    with pytest.raises(RecordError, match=f"nests deeper than {DEEPEST}"):
        read_payload(wrap * (DEEPEST + 1) + b"\x05")


def test_open_lists_never_ask_for_more_than_there_are_bytes():
    """Each level claims all that is left: taken at their word, 200 of them would take 400 MB."""
    size = 250_000
    claims = b"".join(b"\xdd" + struct.pack(">I", size - 5 * (level + 1)) for level in range(200))
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match="ends inside of a list"):
            read_payload(claims + b"\xc0" * (size - len(claims)))
        assert tracemalloc.get_traced_memory()[1] < 16 * size
    finally:
        tracemalloc.stop()


def test_many_keys_in_any_order_are_sorted_and_of_equal_ones_the_last_counts():
    names = [f"{n * 7919 % 1000:x}" for n in range(1000)] + ["a", "b"]
    packed = b"\xde" + struct.pack(">H", len(names))
    packed += b"".join(msgpack.packb(name) + msgpack.packb(number) for number, name in enumerate(names))
    read = read_payload(packed)
    assert list(read) == sorted(set(names))
    assert read == {name: number for number, name in enumerate(names)}


def test_keys_that_share_a_place_among_the_known_ones_are_told_apart():
    keys = [f"key{n}" for n in range(2000)] + ["é", "x" * 32, "x" * 33, ""]
    for _ in range(2):
        for key in keys:
            assert read_payload(msgpack.packb({key: 1})) == {key: 1}


def test_a_record_that_starts_otherwise_is_decoded_all_the_same():
    fields = msgpack.unpackb(pack_record(2, UUID, None, 1, "m"))
    record = b"\xdc\x00\x0d" + msgpack.packb(fields)[1:]
    assert decode(record, 1, 2).name == "m"
