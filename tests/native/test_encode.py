"""The payload encoder against msgpack and json, its conversions, and what it refuses.

Everything here goes through `pack`, which is what an event's `data` goes through.
"""

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import gc
import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import types
import typing
import uuid

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp._native.encoder import Packed, pack
from relay_mp.errors import PayloadError, RelayError

MAX_DEPTH = 128


def unpack(value):
    return msgpack.unpackb(pack(value), strict_map_key=True)


def refusal(value):
    with pytest.raises(PayloadError) as caught:
        pack(value)
    return str(caught.value)


def refused_path(value):
    return refusal(value).split(": ", 1)[0]


def unpack_unless_changed(value):
    """Where user code changes the value: either a whole payload, or the error that says so (None)."""
    try:
        return unpack(value)
    except PayloadError as failure:
        if "changed while it was encoded" not in str(failure):
            raise
        return None


def as_json_means_it(value):
    """NaN and infinities as None, tuples as lists: the model of what a payload becomes."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [as_json_means_it(item) for item in value]
    if isinstance(value, dict):
        return {key: as_json_means_it(item) for key, item in value.items()}
    return value


# Surrogates are not text; every other code point is, NUL and astral ones too.
texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [sign * 2**bits + step for bits in (5, 7, 8, 15, 16, 31, 32, 63) for sign in (-1, 1) for step in (-1, 0, 1)]
).filter(lambda number: number >= -(2**63))
payloads = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | texts,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(texts, inner),
    max_leaves=40,
)


# --- against the oracles ---------------------------------------------------------------------------


@given(payloads)
def test_json_payload_has_the_bytes_of_msgpack(value):
    assert pack(value) == msgpack.packb(as_json_means_it(value), use_bin_type=True)


@given(payloads)
def test_payload_reads_back_as_its_json_round_trip(value):
    assert unpack(value) == json.loads(json.dumps(as_json_means_it(value)))


def test_what_is_packed_is_encoded_as_what_it_holds():
    inner = {"b": [1, "é", None], "a": {}}
    assert pack(Packed(pack(inner))) == pack(inner)
    assert pack({"k": [Packed(pack(inner)), 2], "n": Packed(pack(None))}) == pack({"k": [inner, 2], "n": None})
    with pytest.raises(PayloadError, match=r"value\.k\[1\]"):
        pack({"k": [Packed(pack(inner)), object()]})
    for wrong in (None, "text", {}):
        with pytest.raises(TypeError):
            Packed(wrong)


@given(payloads)
def test_encoding_leaves_the_value_as_it_was(value):
    before = copy.deepcopy(value)
    pack(value)
    assert repr(value) == repr(before)


@given(payloads, st.sampled_from([b"", 1j, object(), 2**64, "\ud800", {1: 2}]))
def test_bad_value_is_found_below_any_good_one(value, bad):
    assert refused_path({"good": value, "bad": [value, bad]}) == "value.bad[1]"


@pytest.mark.parametrize("length", [0, 1, 31, 32, 255, 256, 65535, 65536, 300_000])
@pytest.mark.parametrize("character", ["a", "é", "€", "𝄞"])
def test_text_length_boundaries(length, character):
    # The header counts bytes of UTF-8, so wide text is tried at the same byte lengths.
    width = len(character.encode())
    text = character * (length // width) + "a" * (length % width)
    assert len(text.encode()) == length
    assert pack(text) == msgpack.packb(text)
    assert pack({text: text}) == msgpack.packb({text: text})


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65535, 65536])
def test_container_size_boundaries(count):
    items = list(range(count))
    mapping = {str(item): item for item in items}
    assert pack(items) == pack(tuple(items)) == msgpack.packb(items)
    assert pack(mapping) == msgpack.packb(mapping)


def test_huge_string_and_many_of_them():
    text = "x" * 20_000_000
    assert pack([text, text]) == msgpack.packb([text, text])


@pytest.mark.parametrize("number", [0.0, -0.0, 5e-324, sys.float_info.max, -sys.float_info.max])
def test_floats_keep_their_bits(number):
    assert pack(number) == msgpack.packb(number)


@pytest.mark.parametrize("number", [math.nan, -math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for_is_nil(number):
    assert pack({"score": [number]}) == msgpack.packb({"score": [None]})


# --- conversions -----------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = ("rgb", 255)


class Level(enum.IntEnum):
    HIGH = 3


class Role(enum.StrEnum):
    USER = "user"


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(str, enum.Enum):  # noqa: UP042
    """Its value is not its text: the value counts."""

    ITEM = "text"

    def __new__(cls, text):
        member = str.__new__(cls, text)
        member._value_ = 7
        return member


class Text(str):
    def __str__(self):
        return "not this"


class Number(int):
    def __int__(self):
        return 99


class Ratio(float):
    def __float__(self):
        return 99.0


class Point(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class User:
    name: str
    tags: list
    kind: typing.ClassVar[str] = "never shown"


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    a: int


@dataclasses.dataclass
class Anything:
    field: object


class Anywhere:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, ["rgb", 255]),
        (Level.HIGH, 3),
        (Role.USER, "user"),
        (Mode.READ | Mode.WRITE, 3),
        (Odd.ITEM, 7),
        (Text("this"), "this"),
        (Number(5), 5),
        (Ratio(0.5), 0.5),
        (Ratio("nan"), None),
        (User("ann", [Level.HIGH, ("a",)]), {"name": "ann", "tags": [3, ["a"]]}),
        (Slotted(1), {"a": 1}),
        (Point(1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset(["a"]), ["a"]),
        (set(), []),
        (collections.deque([1, 2], maxlen=2), [1, 2]),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (type("Rows", (list,), {})([1]), [1]),
        (datetime.datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=datetime.UTC), "2024-05-06T07:08:09.000010+00:00"),
        (datetime.datetime(2024, 5, 6), "2024-05-06T00:00:00"),
        (datetime.date(2024, 5, 6), "2024-05-06"),
        (datetime.time(1, 2, 3), "01:02:03"),
        (datetime.timedelta(days=1, microseconds=500_000), 86400.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (pathlib.Path("x"), "x"),
        (Anywhere("somewhere"), "somewhere"),
    ],
)
def test_converted_type(value, expected):
    assert unpack(value) == expected
    assert type(unpack(value)) is type(expected)
    assert unpack({"a": [value]}) == {"a": [expected]}


def test_ordered_dict_keeps_its_own_order():
    ordered = collections.OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    assert list(unpack(ordered)) == ["b", "a"]


def test_key_that_is_a_str_subclass_counts_by_its_characters():
    assert unpack({Role.USER: 1, Text("this"): 2, Text("thís"): 3}) == {"user": 1, "this": 2, "thís": 3}


def test_converted_values_are_found_by_path():
    assert refused_path({"user": User("ann", [1, {"x": object()}])}) == "value.user.tags[1].x"
    assert refused_path({"path": Anywhere(b"bytes")}) == "value.path"
    assert refused_path([Colour, 1]) == "value[0]"


def test_numpy_values():
    np = pytest.importorskip("numpy")
    for value, expected in [
        (np.float32(0.5), 0.5),
        (np.float32("nan"), None),
        (np.float64("inf"), None),
        (np.float16(2), 2.0),
        (np.longdouble(0.25), 0.25),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("tést"), "tést"),
        (np.datetime64("2024-05-06T07:08:09.123456789"), "2024-05-06T07:08:09.123456789"),
        (np.datetime64("2024-05-06"), "2024-05-06"),
        (np.datetime64("NaT", "s"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64("NaT", "s"), None),
        (np.arange(6).reshape(1, 2, 3), [[[0, 1, 2], [3, 4, 5]]]),
        (np.array([0.5, np.nan]), [0.5, None]),
        (np.array(7), 7),
        (np.zeros((0, 3)), []),
        (np.zeros((2, 0)), [[], []]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.asfortranarray(np.arange(4).reshape(2, 2)), [[0, 1], [2, 3]]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.array([np.longdouble(1), np.longdouble(2)]), [1.0, 2.0]),
        (np.array(["2024-05-06", "NaT"], dtype="M8[ns]"), ["2024-05-06T00:00:00.000000000", None]),
        (np.array(1500, dtype="m8[ms]"), 1.5),
        (np.array([Level.HIGH, None, {"a": (1,)}], dtype=object), [3, None, {"a": [1]}]),
        (np.ma.array([1, 2], mask=[0, 1]), [1, None]),
        (np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]), [[1, 2.5]]),
    ]:
        assert unpack({"a": [value]}) == {"a": [expected]}, repr(value)
        assert type(unpack(value)) is type(expected), repr(value)


def test_numpy_values_without_a_json_meaning_are_refused_by_path():
    np = pytest.importorskip("numpy")
    for value, path in [
        (np.complex64(1), "value"),
        (np.zeros(2, dtype=complex), "value"),
        (np.clongdouble(1), "value"),
        (np.bytes_(b"x"), "value"),
        (np.array([b"x"]), "value[0]"),
        (np.array([[1, object()]], dtype=object), "value[0][1]"),
        (np.void(b"abc"), "value"),
        (np.timedelta64(1, "Y"), "value"),
        (np.dtype("f8"), "value"),
    ]:
        assert refused_path(value) == path, repr(value)


def test_recognising_types_imports_nothing():
    script = (
        "import sys\n"
        "from relay_mp._native.encoder import pack\n"
        "class Foo: pass\n"
        "before = set(sys.modules)\n"
        "try:\n pack({'a': [Foo()]})\nexcept ValueError: pass\n"
        "assert 'numpy' not in sys.modules\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_module_double_is_not_taken_for_numpy(monkeypatch):
    for double in (None, types.SimpleNamespace(ndarray=5, generic=object())):
        monkeypatch.setitem(sys.modules, "numpy", double)
        assert unpack([{1}, datetime.date(2024, 1, 2)]) == [[1], "2024-01-02"]


# --- refusals --------------------------------------------------------------------------------------


class Foo:
    pass


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (Foo(), "value: unsupported type Foo; expected JSON types, "),
        ({"user": {"created": Foo()}}, "value.user.created: unsupported type Foo; "),
        ({"items": [1, 2, 3, Foo()]}, "value.items[3]: unsupported type Foo; "),
        ([(1, [Foo()])], "value[0][1][0]: unsupported type Foo; "),
        ({"a b": {"a.b": {"": Foo()}}}, "value['a b']['a.b']['']: unsupported type Foo; "),
        ({"größe": Foo()}, "value.größe: unsupported type Foo; "),
        ({"k" * 100: Foo()}, "value." + "k" * 61 + "...: unsupported type Foo; "),
        ({"raw": b"x"}, "value.raw: unsupported type bytes; encode it as text, "),
        ([bytearray()], "value[0]: unsupported type bytearray; encode it as text, "),
        (memoryview(b""), "value: unsupported type memoryview; encode it as text, "),
        (1j, "value: unsupported type complex; pass its real and imaginary parts"),
        (Foo, "value: unsupported type type; "),
        (len, "value: unsupported type builtin_function_or_method; "),
        (iter([]), "value: unsupported type list_iterator; "),
        ({"n": [2**64]}, "value.n[0]: 18446744073709551616 is outside -2**63..2**64-1; "),
        (-(2**63) - 1, "value: -9223372036854775809 is outside -2**63..2**64-1; "),
        pytest.param(10**5000, "value: an int of 16610 bits is outside ", id="far above"),  # str() of it is refused
        pytest.param(-(10**5000), "value: an int of 16610 bits is outside ", id="far below"),
        (Number(2**64), "value: 18446744073709551616 is outside "),
        ({"a": {1: 2}}, "value.a: unsupported key 1 of type int; keys must be str"),
        ({None: 2}, "value: unsupported key None of type NoneType; keys must be str"),
        ([{(1, 2): 2}], "value[0]: unsupported key of type tuple; keys must be str"),
        ({b"a": 2}, "value: unsupported key of type bytes; keys must be str"),
        ({10**5000: 2}, "value: unsupported key of type int; keys must be str"),
        ({"a": ["ok", "é\ud800"]}, "value.a[1]: string has a lone surrogate at index 1, "),
        ({"a": {"é\udfff": 1}}, "value.a: key 'é\\udfff' has a lone surrogate at index 1, "),
        (Text("\ud800"), "value: string has a lone surrogate at index 0, "),
    ],
)
def test_refusal_names_path_and_way_out(value, start):
    message = refusal(value)
    assert message.startswith(start)
    assert "; " in message
    message.encode()  # can be printed and logged


def test_a_decimal_gets_advice_of_its_own():
    assert "str(value)" in refusal(decimal.Decimal(1))


def test_payload_error_is_a_value_error_of_the_package():
    assert issubclass(PayloadError, ValueError)
    assert issubclass(PayloadError, RelayError)


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 2**63, 2**64 - 1])
def test_integers_at_the_limits_are_kept(number):
    assert unpack(number) == number
    assert unpack(Number(number)) == number


def nested(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: [inner],
        lambda inner: (inner,),
        lambda inner: {"a": inner},
        lambda inner: collections.deque([inner]),
        Anything,
    ],
)
def test_depth_is_allowed_up_to_the_limit_only(wrap):
    pack(nested(MAX_DEPTH, wrap))
    assert f"nested deeper than {MAX_DEPTH} levels; does it contain itself?" in refusal(nested(MAX_DEPTH + 1, wrap))


def test_cycles_are_refused_with_a_short_path():
    rows = [1]
    rows.append(rows)
    user = {"name": "ann"}
    user["self"] = user
    mutual = {"b": {}}
    mutual["b"]["a"] = mutual
    field = Anything(None)
    field.field = field
    for value, start in [
        (rows, "value[1][1][1][1][1][1] ... [1][1]: "),
        (user, "value.self.self.self.self.self.self ... .self.self: "),
        (mutual, "value.b.a.b.a.b.a ... "),
        (field, "value.field.field.field.field.field.field ... .field.field: "),
    ]:
        message = refusal(value)
        assert message.startswith(start)
        assert "does it contain itself?" in message
        assert len(message) < 200


def test_encoder_works_on_after_a_refusal():
    for _ in range(3):
        refusal({"a": [1, Foo()]})
        assert unpack({"a": [1]}) == {"a": [1]}


def test_refusals_and_conversions_leak_no_references():
    item = Foo()
    key = "a key of its own".replace("own", "ours")
    value = {key: [User("ann", [1]), (item,)]}
    before = sys.getrefcount(item), sys.getrefcount(key), sys.getrefcount(value)
    for _ in range(100):
        refusal(value)
    gc.collect()
    assert (sys.getrefcount(item), sys.getrefcount(key), sys.getrefcount(value)) == before


# --- user code that runs in the middle -------------------------------------------------------------


class Hook:
    """A payload whose conversion runs `action`, as a property or a lazy path may."""

    def __init__(self, action):
        self.action = action

    def __fspath__(self):
        self.action()
        return "hooked"


def test_dict_that_grows_while_encoded_is_refused():
    value = {}
    value["a"] = Hook(lambda: value.update((str(i), i) for i in range(1000)))
    value["b"] = 1
    assert refusal({"outer": value}).startswith("value.outer: dict changed while it was encoded; ")


def test_dict_that_shrinks_while_encoded_is_refused():
    value = {}
    value["a"] = Hook(value.clear)
    value.update((str(i), [str(i) * 50]) for i in range(100))
    assert refusal(value).startswith("value: dict changed while it was encoded; ")


def test_dict_emptied_and_refilled_to_its_size_ends_and_counts_right():
    value = {}

    def refill():
        value.clear()
        value.update({f"new{i}": [i] for i in range(2)})

    value["a"] = Hook(refill)
    value["b"] = ["old"]
    decoded = unpack_unless_changed(value)
    assert decoded is None or len(decoded) == 2


def test_dict_that_refills_itself_at_every_item_ends():
    value = {}

    def replace():
        value.clear()
        value["again"] = Hook(replace)

    replace()
    decoded = unpack_unless_changed(value)
    assert decoded is None or len(decoded) == 1


def test_value_replaced_under_its_own_encoding_stays_alive():
    value = {}
    value["a"] = [Hook(lambda: value.__setitem__("a", None)), "tail" * 10, ["x" * 100]]
    assert unpack(value) == {"a": ["hooked", "tail" * 10, ["x" * 100]]}


def test_key_replaced_under_its_own_encoding_stays_alive_for_the_message():
    value = {}

    def replace():
        value.clear()
        gc.collect()
        raise LookupError

    value["a key" + str(id(value))] = Hook(replace)
    assert refused_path(value).startswith("value['a key")


@pytest.mark.parametrize("change", ["clear", "append", "pop"])
def test_list_that_changes_while_encoded_is_refused(change):
    value = ["x" * 50 for _ in range(50)]
    value[0] = Hook(lambda: getattr(value, change)(*(["more"] if change == "append" else [])))
    assert refusal([value]).startswith("value[0]: list changed while it was encoded; ")


def test_list_items_replaced_while_encoded_are_memory_safe():
    value = [["x" * 50] for _ in range(50)]
    value[0] = [Hook(lambda: value.__setitem__(slice(None), [1] * 50)), "tail"]
    assert unpack(value) == [["hooked", "tail"], *[1] * 49]


def test_enum_and_dataclass_properties_may_mutate_and_reenter():
    holder = {}

    class Sly(enum.Enum):
        ITEM = 1

        @property
        def value(self):
            holder["new"] = pack({"nested": [1, {2}]})
            return 5

    @dataclasses.dataclass
    class Lazy:
        size: int = 0

    def size(self):
        holder.clear()
        return len(pack(["inner"] * 1000))

    Lazy.size = property(size, lambda self, value: None)

    holder["a"] = Sly.ITEM
    assert "dict changed" in refusal(holder)
    holder.clear()
    holder["b"] = Lazy()
    holder["c"] = 1
    assert "dict changed" in refusal(holder)
    assert unpack([Lazy(), Sly.ITEM]) == [{"size": len(pack(["inner"] * 1000))}, 5]


def test_conversion_that_packs_itself_does_not_disturb_the_outer_one():
    inner = []
    hook = Hook(lambda: inner.append(pack({"inner": list(range(1000))})))
    assert unpack({"before": 1, "hook": hook, "after": "x" * 1000}) == {
        "before": 1,
        "hook": "hooked",
        "after": "x" * 1000,
    }
    assert msgpack.unpackb(inner[0]) == {"inner": list(range(1000))}


def test_conversion_that_packs_without_end_is_refused_not_a_crash():
    hook = Hook(lambda: pack([hook]))
    assert "converting Hook raised" in refusal({"a": hook})


def test_finalizers_that_run_while_encoding_may_mutate():
    # Conversions allocate, so a collection may run in the middle of a dict and finalize anything.
    value = {}

    class Finalized:
        def __init__(self):
            self.itself = self

        def __del__(self):
            value["late"] = value.get("late", 0)

    value.update({str(i): {i} for i in range(2000)})
    gc.collect()
    before = gc.get_threshold()
    gc.set_threshold(20, 1, 1)
    try:
        for _ in range(20):
            value.pop("late", None)
            Finalized()
            decoded = unpack_unless_changed(value)
            assert decoded is None or len(decoded) in (2000, 2001)
    finally:
        gc.set_threshold(*before)


def test_exception_of_a_conversion_becomes_a_payload_error_with_its_cause():
    def fail():
        raise KeyError("missing")

    with pytest.raises(PayloadError, match=r"^value\.a\[0\]: converting Hook raised KeyError; ") as caught:
        pack({"a": [Hook(fail)]})
    assert isinstance(caught.value.__cause__, KeyError)


def test_unset_slot_of_a_dataclass_is_a_payload_error():
    empty = Slotted.__new__(Slotted)
    assert refusal([empty]).startswith("value[0]: converting Slotted raised AttributeError; ")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_about_the_payload_passes_through(stop):
    def fail():
        raise stop

    with pytest.raises(stop):
        pack({"a": Hook(fail)})


def test_value_that_converts_to_itself_is_refused():
    class Same(enum.Enum):
        A = 1

    Same.A._value_ = Same.A
    assert "is not a JSON type after 16 conversions" in refusal([Same.A])


def test_dict_shared_with_threads_that_change_it_never_crashes():
    value = {str(i): [str(i)] for i in range(50)}
    stop = threading.Event()

    def churn():
        turn = 0
        while not stop.is_set():
            turn += 1
            value[str(turn % 100)] = [{turn}, "x" * (turn % 60)]
            value.pop(str((turn * 7) % 100), None)

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            unpack_unless_changed(value)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "scandir"), reason="no scandir")
def test_directory_entries_are_paths(tmp_path):
    (tmp_path / "file").touch()
    with os.scandir(tmp_path) as entries:
        assert unpack(list(entries)) == [str(tmp_path / "file")]
