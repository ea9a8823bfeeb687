"""The Python binding of the native half: `core.emit` in, `Reader` out, and `Segment` around them.

Each test has a segment of its own and plays the dispatcher by hand. What forks, is killed, or might crash
runs in a fresh interpreter (`run_script`), which imports this module for its helpers.
"""

import gc
import os
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_mp._native import core
from relay_mp._native.encoder import pack, set_strict
from relay_mp._native.reader import Reader
from relay_mp._native.segments import Segment
from relay_mp._session.configuration import receiving
from relay_mp.errors import ConfigurationError, PayloadError, RegistryFullError, SegmentError, SessionError

UUID = bytes(range(16))
PARENT = bytes(range(16, 32))
STACK = PARENT + UUID
WAIT_SECONDS = 30.0
STATUS_EXITED, STATUS_SETTLED = 3, 5

# What a script starts with.
SCRIPT = f"import signal, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_reader_binding import *\n"


def create(path, **options):
    options = {
        "session_id": "binding",
        "ring_bytes": 1 << 16,
        "max_producers": 16,
        "max_event_bytes": 1 << 13,
        "subscriptions_bytes": 4096,
        "configuration_bytes": 4096,
        "block_timeout_ns": 30_000_000_000,
        "stall_timeout_ns": 0,
        "drop_when_full": False,
        "dispatcher_is_process": False,
    } | options
    segment = Segment.create(str(path), **options)
    segment.set_subscribers(1, 0)
    return segment


@contextmanager
def attached(path, **options):
    """A segment of which this process is the owner, a producer and, if it wants, the dispatcher."""
    segment = create(path, **options)
    try:
        assert segment.take_lease(segment.lease()[0])
        segment.make_current()
        yield segment
    finally:
        segment.close()
        segment.unlink()


@pytest.fixture
def segment(tmp_path):
    with attached(tmp_path / "segment") as segment:
        yield segment


@pytest.fixture
def small(tmp_path):
    """4 KiB of ring, and drops."""
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=1024, drop_when_full=True) as segment:
        yield segment


def emit(name="m", data=None, *, uuid=UUID, **fields):
    arguments = {
        "kind": core.KIND_MARK,
        "parent": None,
        "timestamp_us": None,
        "not_before_us": 0,
        "category": None,
        "attributes": 0,
        "stack": None,
        "metadata": None,
        "category_profile": None,
        "data_schema": None,
    } | fields
    order = ("kind", "uuid", "parent", "timestamp_us", "not_before_us", "name", "category", "attributes", "stack")
    payloads = ("data", "metadata", "category_profile", "data_schema")
    arguments |= {"uuid": uuid, "name": name, "data": data}
    return core.emit(*(arguments[key] for key in order + payloads))


def payload(fields, index):
    return None if fields[index] is None else msgpack.unpackb(fields[index])


def drain(reader, limit=256):
    """Everything there is now, as the 13 fields each; begun, done, its space handed back."""
    found = []
    while True:
        batch = reader.next_batch(limit, 0.0)
        for record, _, next_position, slot, owner_seq in batch:
            reader.begin(slot, owner_seq, True)
            found.append(msgpack.unpackb(record))
            reader.done(next_position)
        reader.end_batch()
        if not batch:
            return found


def drain_some(reader):
    """One batch's worth: `drain` would never end beside threads that emit for ever."""
    batch = reader.next_batch(256, 0.0)
    for _, _, next_position, slot, owner_seq in batch:
        reader.begin(slot, owner_seq, True)
        reader.done(next_position)
    reader.end_batch()
    return [msgpack.unpackb(record.payload) for record in batch]


def names(reader):
    return [fields[4] for fields in drain(reader)]


def counters(segment, slot):
    """The slot's words by name."""
    table = segment.slots()
    at = slot * core.SLOT_BYTES
    return {name: struct.unpack_from("<Q", table, at + offset)[0] for name, offset in core.SLOT_FIELDS.items()}


def totals(segment):
    slots = range(1, len(segment.slots()) // core.SLOT_BYTES)
    each = [counters(segment, slot) for slot in slots]
    return {name: sum(slot[name] for slot in each) for name in core.SLOT_FIELDS}


def settle(segment):
    """What the dispatcher does about processes that have died."""
    for slot, status in enumerate(segment.slot_statuses()):
        if status in (1, 2) and core.process_liveness(*segment.slot_process(slot)) == core.DEAD:
            segment.mark_dead(slot, segment.slot_state(slot))
        if segment.slot_statuses()[slot] == 4:
            segment.settle(slot)
    marker = Reader(segment)
    for slot in marker.unmarked_slots():  # or no other process gets them
        marker.prepare_mark(slot, marker.unmarked(slot), marker.last_mark_seq + 1)
        marker.begin_mark()
        marker.mark_done()


def fork(work):
    """The pid of a child that runs `work` and ends, with a code that tells if it raised."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def wait_for(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.001)


def join(*threads):
    for thread in threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


# ------------------------------------------------------------------------------------------ records

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_all_thirteen_fields_arrive(segment):
    reader = Reader(segment)
    used = emit(
        "name é",
        {"a": [1, 2.5, None]},
        kind=core.KIND_SCOPE_END,
        parent=PARENT,
        timestamp_us=1_790_000_000_123_456,
        category=3,
        attributes=5,
        stack=STACK,
        metadata={"m": True},
        category_profile={"p": "q"},
        data_schema={"name": "n", "version": "1"},
    )
    assert used == 1_790_000_000_123_456
    ((record, seq, next_position, slot, owner_seq),) = reader.next_batch(10, 0.0)
    fields = msgpack.unpackb(record)
    assert fields[:9] == [
        core.KIND_SCOPE_END, UUID, PARENT, used, "name é", 3, 5, core.thread_id(), STACK,
    ]  # fmt: skip
    assert [payload(fields, i) for i in range(9, 13)] == [
        {"a": [1, 2.5, None]},
        {"m": True},
        {"p": "q"},
        {"name": "n", "version": "1"},
    ]
    assert len(fields) == 13
    assert (seq, owner_seq) == (core.UNIT_BYTES - 1, 1)
    assert (next_position, slot) == (segment.tail, slot)
    assert segment.slot_process(slot) == core.process_self()


def test_what_is_left_out_is_nil(segment):
    reader = Reader(segment)
    before = core.now_us()
    used = emit("m")
    (fields,) = drain(reader)
    assert before <= used <= core.now_us()
    assert fields == [core.KIND_MARK, UUID, None, used, "m", None, 0, core.thread_id(), None, None, None, None, None]


def test_a_time_that_is_not_given_is_never_before_its_bound(segment):
    ahead = core.now_us() + 10_000_000
    assert emit("m", not_before_us=ahead) == ahead


def test_a_category_may_be_a_name(segment):
    emit("m", category="mine")
    assert drain(Reader(segment))[0][5] == "mine"


@pytest.fixture
def strict():
    """What cannot be recorded is refused, not replaced."""
    set_strict(process=True)
    yield
    set_strict(process=False)


def test_nothing_is_looked_at_when_nobody_listens(segment, strict):
    segment.set_subscribers(0, 0)
    assert emit("m", object()) == 0
    segment.set_subscribers(1, 0)
    with pytest.raises(PayloadError, match="data: unsupported type object"):
        emit("m", object())
    assert segment.tail == 0


@given(values=st.lists(st.tuples(json_values, json_values), max_size=8))
def test_payloads_round_trip(tmp_path_factory, values):
    with attached(tmp_path_factory.mktemp("ring") / "segment") as segment:
        reader = Reader(segment)
        for data, metadata in values:
            emit("m", data, metadata=metadata)
        found = drain(reader)
    assert [(payload(fields, 9), payload(fields, 10)) for fields in found] == values


def test_wrong_scalars_are_refused(segment, strict):
    for wrong in ({"uuid": None}, {"uuid": "text"}, {"name": None}, {"name": 3}, {"kind": "mark"}, {"category": []}):
        with pytest.raises(TypeError):
            emit(**{"name": "m"} | wrong)
    with pytest.raises(UnicodeEncodeError):
        emit("\ud800")
    with pytest.raises(OverflowError):
        emit("m", timestamp_us=1 << 63)
    assert segment.tail == 0


# ------------------------------------------------------------------------------------------ batches


def test_a_batch_has_at_most_its_limit(segment):
    reader = Reader(segment)
    for n in range(10):
        emit(f"m{n}")
    taken = [len(reader.next_batch(4, 0.0)) for _ in range(4)]
    assert taken == [4, 4, 2, 0]
    assert segment.read_pos == 0


def test_an_empty_ring_gives_an_empty_batch(segment):
    reader = Reader(segment)
    assert reader.next_batch(10, 0.001) == []
    assert reader.next_batch(10, -1.0) == []
    assert (reader.blocked_slot, reader.blocked_seconds) == (0, 0.0)


def test_seq_grows_with_the_stream(segment):
    reader = Reader(segment)
    for n in range(200):
        emit("m", "x" * (n * 7 % 1500))
        batch = reader.next_batch(1, 0.0)
        assert batch[0].position == batch[0].seq // core.UNIT_BYTES < batch[0].next_position
        reader.done(batch[0].next_position)
        reader.end_batch()
    assert segment.tail > 200


def test_done_moves_delivery_one_record_on(segment):
    reader = Reader(segment)
    for n in range(3):
        emit(f"m{n}")
    batch = reader.next_batch(10, 0.0)
    positions = []
    for _, _, next_position, _, _ in batch:
        reader.done(next_position)
        positions.append(segment.read_pos)
    assert positions == [next_position for _, _, next_position, _, _ in batch]
    assert segment.free_pos == 0
    reader.end_batch()
    assert segment.free_pos == segment.read_pos == segment.tail


def test_a_record_that_is_not_done_is_read_by_the_next_reader(segment):
    first = Reader(segment)
    for n in range(3):
        emit(f"m{n}")
    (one, two, _) = first.next_batch(10, 0.0)
    assert first.begin(one.slot, one.owner_seq) == 0
    first.done(one.next_position)
    assert first.begin(two.slot, two.owner_seq) == 0  # and dies in its callbacks
    second = Reader(segment)
    again = second.next_batch(10, 0.0)
    assert [msgpack.unpackb(record.payload)[4] for record in again] == ["m1", "m2"]
    assert [second.begin(record.slot, record.owner_seq) for record in again] == [-1, 0]


def test_begin_tells_what_is_missing(small):
    reader = Reader(small)
    while not counters(small, 1)["lost_full"]:
        emit("m", "x" * 500)
    emit("also lost", "x" * 500)
    kept = len(drain(reader))
    emit("next")
    ((_, _, _, slot, owner_seq),) = reader.next_batch(10, 0.0)
    assert owner_seq == kept + 3
    assert [reader.begin(slot, owner_seq) for _ in range(2)] == [2, 2]  # nothing has begun
    assert counters(small, 1)["passed"] == kept
    assert reader.begin(slot, owner_seq, True) == 0
    assert counters(small, 1)["passed"] == owner_seq
    assert small.slot_losses(slot) == (2, 0, 0, 0, 0)


def test_a_reader_wakes_for_an_event(segment):
    reader = Reader(segment)
    started = threading.Event()
    found = []

    def read():
        started.set()
        wait_for(lambda: found.extend(reader.next_batch(1, 0.05)) or found)

    thread = threading.Thread(target=read)
    thread.start()
    started.wait(WAIT_SECONDS)
    emit("m")
    join(thread)
    assert len(found) == 1


def test_a_broken_tail_is_an_error(segment):
    reader = Reader(segment)
    emit("m")
    drain(reader)
    emit("m")
    with open(segment.path, "r+b") as file:
        image = file.read(4096)
        at = image.index(struct.pack("<Q", segment.tail), 128)
        file.seek(at)
        file.write(struct.pack("<Q", 1 << 40))
    with pytest.raises(SegmentError, match="damaged beyond reading"):
        reader.next_batch(10, 0.0)


def test_a_damaged_record_is_skipped_and_counted(segment):
    reader = Reader(segment)
    for n in range(3):
        emit(f"m{n}", "payload of " + "x" * 200)
    with open(segment.path, "r+b") as file:
        image = file.read()
        at = image.index(b"payload of ", image.index(b"payload of ") + 1)
        file.seek(at + 100)
        file.write(b"?")
    assert names(reader) == ["m0", "m2"]
    assert segment.slot_losses(1) == (0, 0, 0, 1, 0)


# ------------------------------------------------------------------------------------------ sizes


def test_an_event_at_the_limit_arrives_whole(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=1 << 23, max_event_bytes=(1 << 22) - 4096) as segment:
        reader = Reader(segment)
        emit("m", "")
        overhead = len(reader.next_batch(1, 0.0)[0].payload)
        # A string's head is 4 bytes longer in str 32 than in fixstr.
        for length in range(segment.max_event_bytes - overhead - 6, segment.max_event_bytes - overhead + 4):
            emit("m", "x" * length)
            (record,) = reader.next_batch(1, 0.0)
            fields = msgpack.unpackb(record.payload)
            whole = payload(fields, 9) == "x" * length
            fits = overhead + 4 + length <= segment.max_event_bytes
            assert whole == fits
            assert len(record.payload) <= segment.max_event_bytes
            reader.done(record.next_position)
            reader.end_batch()
        assert counters(segment, 1)["cut"] > 0


def test_the_largest_payload_is_cut_first(segment):
    reader = Reader(segment)
    emit("m", "d" * 3000, metadata={"k": "m" * 6000}, category_profile={"p": 1})
    (fields,) = drain(reader)
    assert payload(fields, 9) == "d" * 3000
    assert payload(fields, 10) == {"k": {"relay_mp.cut": {"bytes": len(pack("m" * 6000))}}}
    assert payload(fields, 11) == {"p": 1}
    assert counters(segment, 1)["cut"] == 1


def test_as_many_are_cut_as_it_takes(segment):
    reader = Reader(segment)
    emit("m", "d" * 9000, parent=PARENT, metadata="m" * 20000, category_profile="p" * 9000, data_schema="s" * 100)
    (fields,) = drain(reader)
    assert fields[1:3] == [UUID, PARENT]
    for index, value in ((9, "d" * 9000), (10, "m" * 20000), (11, "p" * 9000)):
        assert payload(fields, index) == {"relay_mp.cut": {"bytes": len(pack(value))}}
    assert payload(fields, 12) == "s" * 100
    assert counters(segment, 1)["cut"] == 1


@pytest.mark.parametrize("name_length", [7000, 100_000])
def test_a_name_over_the_limit_is_cut_and_counted(segment, name_length):
    reader = Reader(segment)
    emit("é" * name_length, {"k": 1}, category="c" * 3000)
    emit("after")
    first, second = drain(reader)
    assert first[1] == UUID
    assert first[4] == ("é" * name_length)[: len(first[4])] != ""
    assert second[4] == "after"
    assert counters(segment, 1)["cut"] == 1


def test_an_event_may_be_half_the_ring(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=2024) as segment:
        reader = Reader(segment)
        for n in range(50):
            emit(str(n), "x" * 1800)
            assert names(reader) == [str(n)]


# ------------------------------------------------------------------------------------------ a full ring


def test_on_full_drop_returns_and_counts(small):
    reader = Reader(small)
    emitted = 300
    for n in range(emitted):
        assert emit(str(n), "x" * 100) > 0
    kept = names(reader)
    assert kept == [str(n) for n in range(len(kept))]
    assert counters(small, 1)["emitted"] == emitted
    assert small.slot_losses(1) == (emitted - len(kept), 0, 0, 0, 0)
    emit("after")
    assert names(reader) == ["after"]


def test_on_full_block_gives_up_at_the_deadline(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=1024, block_timeout_ns=20_000_000) as segment:
        reader = Reader(segment)
        while not segment.slot_losses(1)[0]:
            emit("m", "x" * 500)
        assert segment.slot_losses(1) == (1, 0, 0, 0, 0)
        assert len(drain(reader)) == counters(segment, 1)["emitted"] - 1


def test_on_full_block_waits_for_space(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=1024) as segment:
        reader = Reader(segment)
        thread = threading.Thread(target=lambda: [emit(str(n), "x" * 500) for n in range(100)])
        thread.start()
        found = []
        wait_for(lambda: found.extend(names(reader)) or len(found) == 100)
        join(thread)
        assert found == [str(n) for n in range(100)]
        assert totals(segment)["lost_full"] == 0


def fill(segment):
    """Until one event more of this size, 9 units, would have to wait: so does a larger one."""
    while segment.tail - segment.free_pos + 9 <= segment.ring_bytes // core.UNIT_BYTES:
        emit("m", "x" * 450)


def test_a_seal_ends_the_wait_and_the_accounts_stay_even(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=1024) as segment:
        fill(segment)
        threads = [threading.Thread(target=emit, args=("late", "x" * 1000)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: totals(segment)["emitted"] == counters(segment, 1)["emitted"] + 2)
        segment.seal()
        join(*threads)
        delivered = names(Reader(segment))
        assert "late" not in delivered
        assert totals(segment)["emitted"] == len(delivered) + totals(segment)["lost_full"]


def test_an_emit_after_the_seal_is_outside_the_session(segment):
    emit("m")
    segment.seal()
    emit("late")
    assert names(Reader(segment)) == ["m"]
    assert (counters(segment, 1)["emitted"], segment.slot_losses(1)) == (1, (0, 0, 0, 0, 0))


def test_the_dispatchers_own_thread_never_waits(tmp_path):
    with attached(tmp_path / "segment", ring_bytes=4096, max_event_bytes=1024) as segment:
        core.set_dispatching(True)
        try:
            for _ in range(100):
                emit("m", "x" * 500)
        finally:
            core.set_dispatching(False)
        assert segment.slot_losses(1)[0] > 0


def test_an_emit_that_waits_for_a_dead_dispatcher_and_owner_gives_up(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
path = sys.argv[1]
def own():
    segment = create(path, ring_bytes=4096, max_event_bytes=1024)
    segment.take_lease(segment.lease()[0])
os.waitpid(fork(own), 0)
segment = Segment.attach(path)
segment.make_current()
while not segment.slot_losses(1)[0]:
    emit("m", "x" * 500)
segment.unlink()
""",
        tmp_path / "segment",
    )


def test_a_signal_handler_may_emit_while_the_interrupted_emit_waits(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1], ring_bytes=4096, max_event_bytes=1024) as segment:
    reader = Reader(segment)
    found = []
    def handle(*_):
        found.extend(drain(reader))
        emit("handler")
    signal.signal(signal.SIGALRM, handle)
    fill(segment)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    emit("waits", "x" * 1000)
    found.extend(drain(reader))
    names = [fields[4] for fields in found]
    assert sorted(name for name in names if name != "m") == ["handler", "waits"], names
    assert sum(segment.slot_losses(1)) == 0, segment.slot_losses(1)
""",
        tmp_path / "segment",
    )


# ------------------------------------------------------------------------------------------ user code in between


class Hook:
    """A value whose conversion runs `work`; its own encoding is a string."""

    def __init__(self, work):
        self.work = work

    def __fspath__(self):
        self.work()
        return "converted"


def test_a_conversion_may_emit(segment):
    reader = Reader(segment)
    emit("outer", [1, Hook(lambda: emit("inner", Hook(lambda: emit("innermost", "x" * 4000)))), "y" * 4000])
    found = drain(reader)
    assert [fields[4] for fields in found] == ["innermost", "inner", "outer"]
    assert payload(found[2], 9) == [1, "converted", "y" * 4000]
    assert [payload(found[i], 9) for i in range(2)] == ["x" * 4000, "converted"]


def test_a_conversion_that_raises_leaves_nothing_in_strict_mode(segment, strict):
    def fail():
        emit("inner")
        raise RuntimeError("no")

    reader = Reader(segment)
    with pytest.raises(PayloadError, match=r"data\[1\]"):
        emit("outer", [1, Hook(fail)])
    assert names(reader) == ["inner"]
    emit("after")
    assert names(reader) == ["after"]
    assert sum(segment.slot_losses(1)) == 0


def test_a_conversion_that_raises_is_replaced_and_counted(segment):
    def fail():
        emit("inner")
        raise RuntimeError("no")

    reader = Reader(segment)
    emit("outer", [1, Hook(fail)])
    inner, outer = drain(reader)
    assert (inner[4], outer[4]) == ("inner", "outer")
    assert payload(outer, 9) == [1, {"relay_mp.unrecorded": {"type": "Hook"}}]
    assert counters(segment, 1)["replaced"] == 1
    assert sum(segment.slot_losses(1)) == 0


def test_a_conversion_may_close_the_session(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
segment = create(sys.argv[1])
segment.make_current()
emit("m", [Hook(segment.close), "x" * 5000])
segment.unlink()
assert emit("m") == 0
with attached(sys.argv[1]) as segment:
    reader = Reader(segment)
    emit("after")
    assert names(reader) == ["after"]
""",
        tmp_path / "segment",
    )


def test_a_conversion_may_change_the_session(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
first, second = create(sys.argv[1]), create(sys.argv[1] + "2")
def change():
    first.close()
    second.make_current()
first.make_current()
emit("m", Hook(change))
assert names(Reader(second)) == ["m"]
first.unlink(); second.close(); second.unlink()
""",
        tmp_path / "segment",
    )


def test_a_conversion_may_fork(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1]) as segment:
    reader = Reader(segment)
    emit("first")
    children = []
    emit("both", Hook(lambda: children.append(os.fork())))
    if not children[0]:
        emit("child")
        os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    emit("last")
    found = drain(reader)
    assert sorted(fields[4] for fields in found) == ["both", "both", "child", "first", "last"]
    threads = {fields[7] for fields in found if fields[4] != "both"}
    assert len(threads) == 2
    assert totals(segment)["emitted"] == 5
    settle(segment)
    for slot in (1, 2):
        own = counters(segment, slot)
        assert own["emitted"] == own["passed"] and own["passed_lost"] == 0, own
""",
        tmp_path / "segment",
    )


# ------------------------------------------------------------------------------------------ threads and processes


def test_eight_threads_emit(segment):
    reader = Reader(segment)

    def work(number):
        for n in range(500):
            emit(f"{number}", n)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    found = []
    wait_for(lambda: found.extend(drain(reader)) or len(found) == 4000)
    join(*threads)
    for number in range(8):
        own = [fields for fields in found if fields[4] == str(number)]
        assert [payload(fields, 9) for fields in own] == list(range(500))
        assert len({fields[7] for fields in own}) == 1
    assert len({fields[7] for fields in found}) == 8
    assert (totals(segment)["emitted"], totals(segment)["lost_full"]) == (4000, 0)


def test_a_thousand_short_threads_share_sixteen_slots(segment):
    reader = Reader(segment)
    found = []
    for _ in range(250):
        threads = [threading.Thread(target=emit, args=(str(len(found) + i),)) for i in range(4)]
        for thread in threads:
            thread.start()
        join(*threads)
        found.extend(drain(reader))
    assert len(found) == 1000
    assert (segment.lost_unregistered, totals(segment)["emitted"]) == (0, 1000)
    # A thread gives its slot back as the last thing it does, after `join` has returned.
    deadline = time.monotonic() + WAIT_SECONDS
    while not set(segment.slot_statuses()[1:]) <= {0, STATUS_EXITED}:
        assert time.monotonic() < deadline, segment.slot_statuses()
        time.sleep(0.001)


def test_events_without_a_slot_are_counted(segment):
    go, ready = threading.Event(), threading.Semaphore(0)

    def work():
        emit("m")
        ready.release()
        go.wait(WAIT_SECONDS)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
        assert ready.acquire(timeout=WAIT_SECONDS)
    emit("no slot")
    assert segment.lost_unregistered == 1
    with pytest.raises(RegistryFullError, match="max_producers"):
        core.emit_control("register", {})
    go.set()
    join(*threads)
    assert names(Reader(segment)) == ["m"] * 16
    emit("a slot")
    assert names(Reader(segment)) == ["a slot"]


def test_a_child_forked_from_a_threaded_emitter_emits(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1], ring_bytes=1 << 20) as segment:
    reader = Reader(segment)
    stop = threading.Event()
    def work():
        while not stop.is_set():
            emit("parent", "x" * 100)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    found, children = [], []
    for n in range(12):
        children.append(fork(lambda: [emit(f"child {n}", i) for i in range(50)]))
        found.extend(drain_some(reader))
    for child in children:
        wait_for(lambda: found.extend(drain_some(reader)) or os.waitpid(child, os.WNOHANG)[0] == child)
    stop.set()
    for thread in threads:
        wait_for(lambda: found.extend(drain_some(reader)) or not thread.is_alive())
    found.extend(drain(reader))
    settle(segment)
    for n in range(12):
        assert [payload(f, 9) for f in found if f[4] == f"child {n}"] == list(range(50))
    all = totals(segment)
    lost = sum(all[c] for c in all if c.startswith("lost"))
    assert (all["emitted"], lost, segment.lost_unregistered) == (len(found), 0, 0)
""",
        tmp_path / "segment",
    )


KILLED = (
    SCRIPT
    + """
how = sys.argv[2]
with attached(sys.argv[1], ring_bytes=1 << 16, max_producers=8) as segment:
    reader = Reader(segment)
    blocked = 0
    expected = {}
    def deliver():
        global blocked
        batch = reader.next_batch(256, 0.0)
        for record, _, next_position, slot, owner_seq in batch:
            fields = msgpack.unpackb(record)
            missing = reader.begin(slot, owner_seq)
            assert missing == 0, missing
            n = payload(fields, 9)
            assert n["n"] == expected.get(fields[4], 0) and n["x"] == "x" * (n["n"] % 700)
            expected[fields[4]] = n["n"] + 1
            reader.done(next_position)
        reader.end_batch()
        slot = reader.blocked_slot
        if not slot:
            return len(batch)
        assert segment.stalled_slot == slot
        process = segment.slot_process(slot)
        if core.process_liveness(*process) == core.DEAD:
            segment.mark_dead(slot, segment.slot_state(slot))
            blocked += reader.abort_blocked()
            return 1
        return len(batch)
    def work(name):
        n = 0
        while True:
            emit(name, {"n": n, "x": "x" * (n % 700)})
            n += 1
    for round in range(int(sys.argv[3])):
        name = str(round)
        child = fork(lambda: work(name))
        wait_for(lambda: deliver() and expected.get(name, 0) > 5 + round % 40)
        if how == "stop":
            os.kill(child, signal.SIGSTOP)
            os.waitpid(child, os.WUNTRACED)
            while deliver(): pass
            if reader.blocked_slot:
                assert reader.blocked_seconds >= 0
                assert segment.slot_process(reader.blocked_slot)[0] == child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while deliver(): pass
        assert reader.blocked_slot == 0
        settle(segment)
    assert segment.free_pos == segment.tail
    all = totals(segment)
    lost = {c: n for c, n in all.items() if c.startswith("lost")}
    assert all["emitted"] == sum(expected.values()) + sum(lost.values()), (all, sum(expected.values()))
    assert all["passed_lost"] == sum(lost.values())
    # It dies between its counting and its claim, or between its claim and its commit; nothing else is lost.
    assert lost["lost_writer_died"] == sum(lost.values()) <= int(sys.argv[3]), lost
    emit("survivor", {"n": 0, "x": ""})
    deliver()
    assert expected["survivor"] == 1
    print(blocked, "of", sys.argv[3], "died inside a claim")
"""
)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_killed_writer_wedges_nobody_and_is_counted(run_script, tmp_path, how):
    print(run_script(KILLED, tmp_path / "segment", how, 60).stdout)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_killed_writers(run_script, tmp_path):
    print(run_script(KILLED, tmp_path / "segment", "kill", 800).stdout)


# ------------------------------------------------------------------------------------------ lease, replies, table


def test_the_lease_goes_to_one(segment):
    word, pid, start_time = segment.lease()
    assert (pid, start_time) == core.process_self()[:2]
    assert not segment.take_lease(0)
    assert segment.take_lease(word)
    assert not segment.take_lease(word)
    assert segment.lease()[0] >> 32 == (word >> 32) + 1


def test_a_request_is_answered(segment):
    reader = Reader(segment)
    segment.set_subscribers(0, 0)  # requests pass when nobody listens
    slot, owner_seq = core.emit_control("register", {"name": "n"})
    assert segment.read_reply(slot) == (0, 0, "")
    ((record, _, _, *sender),) = reader.next_batch(1, 0.0)
    fields = msgpack.unpackb(record)
    assert (fields[0], fields[4], payload(fields, 9)) == (core.KIND_CONTROL, "register", {"name": "n"})
    assert sender == [slot, owner_seq]
    assert segment.reply(slot, owner_seq, 2, "no: é") is True
    assert segment.read_reply(slot) == (owner_seq, 2, "no: é")


CUT = " [cut; all of it is in the dispatcher's log]"


@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_a_reply_that_is_cut_says_so(segment, character):
    """At the bound, whatever a character's length: never within one."""
    room = 399
    for length in range(room // len(character.encode()) - 30, room + 30):
        text = character * length
        fits = len(text.encode()) <= room
        assert segment.reply(1, 1, 0, text) is fits
        found = segment.read_reply(1)[2]
        assert found == text if fits else found.endswith(CUT)
        kept = found.removesuffix(CUT)
        assert text.startswith(kept)
        assert fits or len((kept + character + CUT).encode()) > room


def test_a_request_that_cannot_be_sent_is_an_error(segment):
    segment.seal()
    with pytest.raises(SessionError, match="did not reach"):
        core.emit_control("register", {})


def test_slots_out_of_range_are_an_error(segment):
    reader = Reader(segment)
    for slot in (0, 17, 1 << 31):
        for call in (
            segment.slot_state,
            segment.slot_process,
            segment.slot_losses,
            segment.settle,
            segment.read_reply,
            lambda slot: segment.mark_dead(slot, 2),
            lambda slot: reader.give_up(slot, 1),
            lambda slot: reader.unmarked(slot or 17),  # 0: threads without a slot
            lambda slot: reader.prepare_mark(slot or 17, 1, 1),
            lambda slot: segment.reply(slot, 1, 0, ""),
        ):
            with pytest.raises(IndexError):
                call(slot)


def test_the_subscriber_table_is_replaced_whole(segment):
    assert segment.load_subscriptions() is None
    for n in range(20):
        table = bytes([n]) * (n * 100)
        segment.store_subscriptions(table)
        assert segment.load_subscriptions() == table
    other = Segment.attach(segment.path)
    assert other.load_subscriptions() == table
    other.close()
    with pytest.raises(SessionError, match="register fewer"):
        segment.store_subscriptions(bytes(4093))
    assert segment.load_subscriptions() == table


def test_a_torn_table_leaves_the_one_before(segment):
    segment.store_subscriptions(b"older" * 100)
    segment.store_subscriptions(b"newer" * 100)
    with open(segment.path, "r+b") as file:
        at = file.read().index(b"newer")
        file.seek(at + 7)
        file.write(b"?")
        file.flush()
        assert segment.load_subscriptions() == b"older" * 100
        file.seek(0)
        file.seek(file.read().index(b"older") + 9)
        file.write(b"?")
    assert segment.load_subscriptions() is None
    segment.store_subscriptions(b"new")
    assert segment.load_subscriptions() == b"new"


def test_the_configuration_is_replaced_whole_and_has_a_version(segment):
    assert segment.load_configuration() == (0, None)
    for n in range(1, 20):
        table = bytes([n]) * (n * 100)
        assert segment.store_configuration(table) == n
        assert segment.load_configuration() == (n, table)
    other = Segment.attach(segment.path)
    assert other.load_configuration() == (19, table)
    other.close()
    assert segment.load_subscriptions() is None
    with pytest.raises(ConfigurationError, match="need 4093 bytes and have 4092.*configuration_bytes"):
        segment.store_configuration(bytes(4093))
    assert segment.load_configuration() == (19, table)
    assert segment.store_configuration(bytes(4092)) == 20


def test_a_torn_configuration_leaves_the_one_before(segment):
    segment.store_configuration(b"older" * 100)
    segment.store_configuration(b"newer" * 100)
    with open(segment.path, "r+b") as file:
        file.seek(file.read().index(b"newer") + 7)
        file.write(b"?")
    assert segment.load_configuration() == (2, b"older" * 100)


def test_a_changed_configuration_is_heeded_before_the_next_event(segment):
    calls = []

    def sync():
        calls.append(segment.load_configuration())
        core.set_configuration_seen(calls[-1][0])

    core.set_configuration_hook(sync)
    try:
        core.active()
        assert calls == [(0, None)]  # a segment that is new to this process may have one
        segment.store_configuration(b"one")
        for ask in (core.active, lambda: emit("m")):
            calls.clear()
            ask()
            ask()
            assert calls == [(segment.load_configuration()[0], b"one")]
            segment.store_configuration(b"one")
    finally:
        core.set_configuration_hook(receiving.sync)


# ------------------------------------------------------------------------------------------ counters, closing


def test_counters_of_a_thread_go_on_where_its_slots_last_owner_stopped(segment):
    reader = Reader(segment)
    for _ in range(40):  # more than twice around 16 slots
        thread = threading.Thread(target=lambda: [emit("m") for _ in range(3)])
        thread.start()
        join(thread)
        drain(reader)
    all = totals(segment)
    assert (all["emitted"], all["passed"]) == (120, 120)
    assert all["base_emitted"] < 120
    assert all["base_delivered"] == all["base_emitted"]


def test_state_and_subscribers_are_seen_by_all(segment):
    other = Segment.attach(segment.path)
    try:
        assert (other.state, other.subscribers, other.session_id) == (core.STATE_OPEN, 1, "binding")
        assert other.owner == core.process_self()
        assert core.active()
        assert not core.scope_local_active()
        other.set_subscribers(2, 1)
        assert (segment.subscribers, core.scope_local_active()) == (2, True)
        other.set_state(core.STATE_CLOSING)
        assert not core.active()
        assert emit("m", object()) == 0
    finally:
        other.close()


READER_CALLS = {
    "next_batch": (1, 0.0),
    "abort_blocked": (),
    "fence_blocked": (),
    "fenced_slots": (),
    "release_fenced": (0,),
    "begin": (1, 1),
    "events": ([], 0, 0),
    "run_end": ([], 0, 1, 1),
    "deliver": ([], 0, 0, (), None, None, None),
    "give_up": (1, 1),
    "unmarked": (1,),
    "prepare_mark": (1, 1, 1),
    "done": (1,),
    "end_batch": (),
}
SEGMENT_CALLS = {
    "make_current": (),
    "set_state": (1,),
    "set_subscribers": (1, 0),
    "seal": (),
    "wait_delivered": (1, 0.0),
    "lease": (),
    "take_lease": (0,),
    "slots": (),
    "count_subscriber_error": (),
    "count_unattached": (1,),
    "put_request": (1, b""),
    "leave_slot": (1,),
    "slot_state": (1,),
    "slot_pid": (1,),
    "slot_statuses": (),
    "slot_process": (1,),
    "slot_losses": (1,),
    "mark_dead": (1, 2),
    "settle": (1,),
    "reply": (1, 1, 0, ""),
    "read_reply": (1,),
    "store_subscriptions": (b"",),
    "load_subscriptions": (),
    "store_configuration": (b"",),
    "load_configuration": (),
    "set_configuration_told": (1,),
    "count_middleware_failure": (),
}
SAFE_AFTER_CLOSE = {
    *("close", "unlink", "is_open", "path", "create", "attach", "descriptor", "has_name"),
    *("blocked_slot", "blocked_seconds"),
}


def expect_closed(thing, calls):
    public = {name for name in dir(thing) if not name.startswith("_")}
    for name in sorted(public - SAFE_AFTER_CLOSE):
        # A property raises where it is looked up, a method where it is called.
        with pytest.raises(SessionError, match="is closed in this process"):
            getattr(thing, name)(*calls.get(name, ()))


@pytest.mark.parametrize("current", [True, False])
def test_every_call_on_a_closed_segment_is_an_error(run_script, tmp_path, current):
    run_script(
        SCRIPT
        + f"""
segment = create(sys.argv[1])
if {current}: segment.make_current()
reader = Reader(segment)
emit("m"); reader.next_batch(10, 0.0)
segment.close(); segment.close()
assert not segment.is_open and segment.path == sys.argv[1]
assert segment.descriptor == -1 and segment.has_name  # its file is there until it is unlinked
expect_closed(segment, SEGMENT_CALLS)
expect_closed(reader, READER_CALLS)
assert (reader.blocked_slot, reader.blocked_seconds) == (0, 0.0)
with pytest.raises(SessionError):
    Reader(segment)
assert emit("m") == 0 and not core.active() and not core.scope_local_active()
with pytest.raises(SessionError):
    core.emit_control("register", {{}})
segment.unlink(); segment.unlink()
""",
        tmp_path / "segment",
    )


def test_an_unmade_segment_or_reader_is_an_error(run_script):
    run_script(
        SCRIPT
        + """
segment = Segment()
with pytest.raises(SessionError):
    segment.state
with pytest.raises((SessionError, AttributeError, TypeError)):
    Reader.__new__(Reader).next_batch(1, 0.0)
"""
    )


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("waiter", ["reader.next_batch(1, 0.05)", "segment.wait_delivered(1 << 40, 0.05)"])
def test_closing_under_a_waiting_thread_is_an_error_there(run_script, tmp_path, current, waiter):
    run_script(
        SCRIPT
        + f"""
segment = create(sys.argv[1])
if {current}: segment.make_current()
reader = Reader(segment)
ended = []
def wait():
    try:
        while True: {waiter}
    except SessionError:
        ended.append(True)
threads = [threading.Thread(target=wait) for _ in range(1 if "reader" in {waiter!r} else 3)]
for thread in threads: thread.start()
time.sleep(0.1)  # any moment will do
segment.close(); segment.unlink()
join(*threads)
assert len(ended) == len(threads)
""",
        tmp_path / "segment",
    )


def test_closing_under_an_emit_that_waits_for_space(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
segment = create(sys.argv[1], ring_bytes=4096, max_event_bytes=1024)
segment.take_lease(segment.lease()[0])
segment.make_current()
fill(segment)
threads = [threading.Thread(target=emit, args=("m", "x" * 1000)) for _ in range(3)]
for thread in threads: thread.start()
wait_for(lambda: totals(segment)["emitted"] == counters(segment, 1)["emitted"] + 3)
segment.close(); segment.unlink()
join(*threads)
""",
        tmp_path / "segment",
    )


def test_no_descriptor_and_no_memory_is_kept(tmp_path):
    def maps():
        return Path("/proc/self/maps").read_text().count(str(tmp_path / "segment"))

    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with attached(tmp_path / "segment") as segment:
            emit("m")
            drain(Reader(segment))
            assert len(os.listdir("/proc/self/fd")) == descriptors + 1  # the owner keeps one
        gc.collect()
    assert maps() == 0
    assert not (tmp_path / "segment").exists()


def test_bad_segments_are_refused(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(SegmentError, match="there is no segment"):
        Segment.attach(str(missing))
    with attached(tmp_path / "segment") as segment:
        with pytest.raises(SegmentError, match="File exists"):
            create(segment.path)
        image = Path(segment.path).read_bytes()
    for change, message in (
        (lambda b: b[:100], "shorter"),
        (lambda b: b[:-4096], "shorter"),
        (lambda b: b"\0" * 8 + b[8:], "not a relay_mp segment"),
        (lambda b: b[:8] + b"\x63" + b[9:], "layout version"),
        (lambda b: b + bytes(4096), "contradict"),
    ):
        path = tmp_path / "bad"
        path.write_bytes(change(image))
        path.chmod(0o600)
        with pytest.raises(SegmentError, match=message):
            Segment.attach(str(path))
        path.unlink()
    for options in ({"ring_bytes": 5000}, {"max_producers": 1 << 17}, {"max_event_bytes": 1 << 16}):
        with pytest.raises(SegmentError):
            create(tmp_path / "never", **options)
    assert not (tmp_path / "never").exists()


def test_an_exception_in_a_signal_handler_interrupts_a_wait_for_space(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1], ring_bytes=4096, max_event_bytes=1024) as segment:
    fill(segment)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    def raise_it(*_): raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, raise_it)
    with pytest.raises(KeyboardInterrupt):
        emit("m", "x" * 1000)
    assert segment.slot_losses(1)[0] == 1
    reader = Reader(segment)
    drain(reader)
    emit("after")
    assert names(reader) == ["after"]
""",
        tmp_path / "segment",
    )


def test_hostile_sizes_do_not_crash_an_emit(run_script, tmp_path):
    """A limit so small that no marker fits: settings refuse it, an attached header may still say it."""
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1], max_event_bytes=64) as segment:
    try:
        emit("name", "x" * 100)
    except (PayloadError, SessionError, RecursionError):
        pass
""",
        tmp_path / "segment",
    )


def test_wrong_envelope_types_do_not_crash(run_script, tmp_path):
    run_script(
        SCRIPT
        + """
with attached(sys.argv[1]) as segment:
    for wrong in ("text", 7, object(), [1], 3.5):
        for field in ("parent", "stack"):
            with pytest.raises(TypeError):
                emit("m", **{field: wrong})
    assert segment.tail == 0
""",
        tmp_path / "segment",
    )
