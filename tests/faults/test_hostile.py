"""Hostile and corrupt shared memory, as the Python half sees it: bits that flip, rings that break, files that shrink.

The reader in C has its own flips (tests/native/test_corruption.c) and its fuzz target (tests/fuzz). Here the same
goes through the dispatcher to a subscriber, with the accounts that a user reads: every event that was emitted
is delivered, or counted as lost, and the stream goes on; or the session ends, with an error that says why.

A segment that shrinks: a process that has it mapped gets SIGBUS at its next look at a page that is gone, and
dies of it, as from any mapped file. The library installs no handler for it: that would be the whole process's,
and only the session's own uid can shrink the file, who could as well kill the process. Attaching refuses such
a file; the others of the session go on or die by their own looks.
"""

import json
import mmap
import os
import random
import struct
import threading
from contextlib import contextmanager

import pytest

import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver import dispatcher as dispatching
from relay_mp._deliver.dispatcher import LOSS_MARK, Dispatcher
from relay_mp._deliver.subscriptions import Subscription, Subscriptions
from relay_mp._native import core
from relay_mp._native.reader import Reader
from relay_mp._native.segments import Segment
from relay_mp._session.stats import collect

# Where the header has them: see layout.h. Each is checked by `test_the_words_are_where_the_tests_look`.
TAIL_AT, READ_POS_AT, FREE_POS_AT = 256, 384, 512
RING_BYTES = 1 << 16
SLOTS_AT = 4096

FLIPS_IN_CI, FLIPS_IN_LONG = 4_000, 200_000
SESSIONS_IN_CI, SESSIONS_IN_LONG = 80, 4_000


class Rig:
    """A segment with its dispatcher, driven step by step on the test's own thread."""

    def __init__(self, path, *, ring_bytes=RING_BYTES, max_event_bytes=8192):
        self.segment = Segment.create(
            path,
            session_id="hostile",
            ring_bytes=ring_bytes,
            max_producers=8,
            max_event_bytes=max_event_bytes,
            subscriptions_bytes=65536,
            configuration_bytes=4096,
            block_timeout_ns=0,
            stall_timeout_ns=0,
            drop_when_full=True,
            dispatcher_is_process=False,
        )
        self.path = path
        self.segment.set_state(core.STATE_OPEN)
        self.segment.make_current()
        self.events = []
        subscriptions = Subscriptions(self.segment.set_subscribers)
        subscriptions.add(Subscription("seen", self.events.append, None), lambda: self.segment.tail)
        assert self.segment.take_lease(self.segment.lease()[0])
        self.dispatcher = Dispatcher(self.segment, subscriptions)
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.ring_at = len(self.memory) - ring_bytes

    def drain(self):
        """What is there, delivered; bounded: every step of a sound dispatcher moves on."""
        core.set_dispatching(True)
        try:
            for _ in range(1000):
                self.dispatcher.step()
                if self.segment.read_pos == self.segment.tail:
                    return
            pytest.fail("the dispatcher does not come to an end")
        finally:
            core.set_dispatching(False)

    def taken(self):
        """The names delivered since the last look, without the library's own marks."""
        names = [event.name for event in self.events if event.name != LOSS_MARK]
        self.events.clear()
        return names

    def accounts(self):
        """(emitted, lost as counted), over all slots."""
        table = self.segment.slots()
        emitted = sum(
            int.from_bytes(table[at : at + 8], "little")
            for at in range(core.SLOT_FIELDS["emitted"], len(table), core.SLOT_BYTES)
        )
        slots = len(table) // core.SLOT_BYTES
        return emitted, sum(sum(self.segment.slot_losses(slot)) for slot in range(1, slots))

    def flip(self, at, bit):
        self.memory[at] ^= 1 << bit

    def close(self):
        self.memory.close()
        self.segment.close()
        core.stay_detached()
        self.segment.unlink()


@contextmanager
def rig(path):
    made = Rig(str(path))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(dispatching, "IDLE_SECONDS", 0.0)


def write_word(path, at, value):
    with open(path, "r+b", buffering=0) as file:
        file.seek(at)
        file.write(struct.pack("<Q", value))


def read_word(path, at):
    with open(path, "rb", buffering=0) as file:
        file.seek(at)
        return struct.unpack("<Q", file.read(8))[0]


def test_the_words_are_where_the_tests_look(tmp_path):
    with rig(tmp_path / "segment") as here:
        for n in range(5):
            scope.event(f"m{n}")
        here.drain()
        scope.event("one more")
        words = [struct.unpack_from("<Q", here.memory, at)[0] for at in (TAIL_AT, READ_POS_AT, FREE_POS_AT)]
        assert words == [here.segment.tail, here.segment.read_pos, here.segment.free_pos]
        assert words[0] > words[1] > 0


# ---- bits that flip in records ----


def flip_records(path, flips, seed):
    """One bit of one record that waits, again and again. Returns how many events it cost."""
    randomness = random.Random(seed)
    with rig(path) as here:
        cost = emitted = 0
        for number in range(flips):
            names = [f"{number}.{n}" for n in range(randomness.randrange(2, 9))]
            begin = here.segment.tail
            for name in names:
                scope.event(name, data={"text": "x" * randomness.randrange(200)})
            unit = randomness.randrange(begin, here.segment.tail) % (RING_BYTES // 64)
            # Half of them where it hurts, in a unit's first word; else anywhere in the unit.
            at = here.ring_at + unit * 64 + randomness.randrange(randomness.choice([8, 64]))
            here.flip(at, randomness.randrange(8))
            here.drain()
            found = here.taken()
            # No event is invented, changed or moved; those behind the damage arrive; at most one is lost.
            assert found == [name for name in names if name in found], (seed, number)
            assert len(names) - len(found) <= 1, (seed, number)
            cost += len(names) - len(found)
            emitted += len(names) + 1
            scope.event("good again")
            here.drain()
            assert here.taken() == ["good again"], (seed, number)
            assert here.accounts() == (emitted, cost), (seed, number)
        return cost


def test_a_flipped_bit_costs_one_event_which_is_counted_and_delivery_goes_on(tmp_path):
    cost = flip_records(tmp_path / "segment", FLIPS_IN_CI, seed=1)
    assert 0 < cost < FLIPS_IN_CI  # a bit of what nobody reads, behind a record's end, costs none


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_flipped_bits(tmp_path):
    for seed in range(2, 6):
        flip_records(tmp_path / f"segment{seed}", FLIPS_IN_LONG // 4, seed)


def test_a_flipped_payload_is_a_loss_mark_before_the_next_event(tmp_path):
    with rig(tmp_path / "segment") as here:
        for n in range(3):
            scope.event(f"m{n}", data="payload " + "x" * 100)
        first = here.memory.find(b"payload ", here.ring_at)
        here.flip(here.memory.find(b"payload ", first + 1) + 50, 3)
        here.drain()
        assert [event.name for event in here.events] == ["m0", LOSS_MARK, "m2"]
        assert here.events[1].data == {"pid": os.getpid(), "lost": 1, "causes": {"corrupt": 1}}


# ---- bits that flip in the header and the slots ----

HEADER_FLIPS = """
import json, random, struct, sys
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._native import core

# tail, read_pos, free_pos, eventcounts, state and counts, lease, delivering, stalled, table words
HOT = [*range(256, 272), *range(384, 392), *range(512, 520), 640, 768, 896, *range(1024, 1040), *range(1152, 1216)]

def place(randomness):
    if randomness.random() < 0.4:
        return randomness.choice(HOT)
    if randomness.random() < 0.5:
        return randomness.randrange(1400)
    return 4096 + randomness.randrange(5 * core.SLOT_BYTES)

def attempt(number, randomness):
    seen, said = [], []
    session = relay_mp.session(ring_bytes=65536, max_producers=4, max_event_bytes=8192, on_full="drop",
                               flush_timeout_seconds=0.3, directory=sys.argv[3], recovery_directory=sys.argv[3])
    try:
        subscribers.register("seen", lambda event: seen.append(event.name))
        for n in range(3):
            scope.event(f"before {n}")
        subscribers.flush(5.0)
        at, bit = place(randomness), randomness.randrange(8)
        with open(session.path, "r+b", buffering=0) as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))
        for n in range(3):
            scope.event(f"after {n}")
        for action in (subscribers.flush, session.stats, lambda: session.close(0.3)):
            try:
                action()
            except relay_mp.RelayError as error:
                assert str(error)
                said.append(type(error).__name__)
        names = [name for name in seen if not name.startswith("relay_mp.")]
        expected = [f"{when} {n}" for when in ("before", "after") for n in range(3)]
        assert names == expected[:len(names)] or names == sorted(set(names), key=expected.index), (at, bit, names)
        assert len(names) >= 3
        return len(names) == 6, said
    except BaseException:
        print(f"attempt {number}: byte {at}, bit {bit}", file=sys.stderr)
        raise
    finally:
        session.close(0.0)
        session._segment.unlink()

randomness = random.Random(int(sys.argv[1]))
complete, errors = 0, {}
for number in range(int(sys.argv[2])):
    whole, said = attempt(number, randomness)
    complete += whole
    for name in said:
        errors[name] = errors.get(name, 0) + 1
print(json.dumps([complete, errors]))
"""


def flip_headers(run_script, tmp_path, seed, count):
    out = run_script(HEADER_FLIPS, seed, count, tmp_path).stdout
    complete, errors = json.loads(out)
    print(f"{complete} of {count} streams went on whole; errors: {errors}")  # pytest -s, or a failure's
    assert complete >= count // 2
    assert list(tmp_path.glob("relay_mp-*")) == []


def test_a_flipped_bit_of_the_header_or_the_slots_hangs_and_crashes_nobody(run_script, tmp_path):
    flip_headers(run_script, tmp_path, 1, SESSIONS_IN_CI)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_flipped_bits_of_the_header(run_script, tmp_path):
    for seed in range(SESSIONS_IN_LONG // SESSIONS_IN_CI):
        flip_headers(run_script, tmp_path, 100 + seed, SESSIONS_IN_CI)


# ---- a ring that is broken ----


@pytest.fixture
def broken(request, tmp_path):
    """A session in which a word of the header was overwritten while its dispatcher was in a callback."""
    at, value = request.param
    go_on, inside = threading.Event(), threading.Event()

    def callback(event):
        inside.set()
        go_on.wait(30)

    session = relay_mp.session(ring_bytes=RING_BYTES, max_event_bytes=8192, directory=str(tmp_path))
    try:
        subscribers.register("latch", callback)
        scope.event("m")
        assert inside.wait(30)
        write_word(session.path, at, value)
        go_on.set()
        session._host._thread.join(30)
        yield session
    finally:
        go_on.set()
        session.close(0.0)
        session._segment.unlink()


BREAKS = pytest.mark.parametrize(
    "broken",
    [(TAIL_AT, 1 << 40), (TAIL_AT, 0), (TAIL_AT, (1 << 64) - 1)],
    indirect=True,
    ids=["ahead", "behind", "end"],
)


@BREAKS
def test_a_broken_ring_ends_the_dispatcher_with_an_error_that_says_so(broken, caplog):
    assert not broken._host.is_alive()
    (record,) = caplog.get_records("setup")
    assert f"{broken.path} is damaged beyond reading: its tail and its read position contradict" in record.message
    assert "what can still be read of it is delivered. The session takes no more events" in record.message
    assert not broken.is_open


@BREAKS
def test_a_flush_of_a_broken_ring_is_an_error(broken):
    with pytest.raises(relay_mp.FlushError, match="was damaged beyond reading"):
        broken.flush(30)
    with pytest.raises(relay_mp.FlushError):
        subscribers.flush(30)


@BREAKS
def test_emitting_into_a_broken_ring_does_not_block(broken):
    # With the default of 10 s each for a full ring, waiting would be over the test's timeout.
    for n in range(1000):
        scope.event(f"m{n}", data="x" * 1000)


@BREAKS
def test_closing_a_broken_ring_removes_it_and_says_what_was_lost(broken, capfd):
    scope.event("too late")
    broken.close(30)
    assert "2 events emitted, 1 delivered, 1 lost (corrupt 1)" in capfd.readouterr().err
    assert not os.path.exists(broken.path)


@BREAKS
def test_after_a_broken_ring_the_next_session_works(broken):
    names = []
    broken.close(0.0)
    with relay_mp.session():
        subscribers.register("seen", lambda event: names.append(event.name))
        scope.event("m")
        assert subscribers.flush(30).lost == 0
    assert names == ["m"]


def test_an_emit_that_waits_is_let_go_when_the_ring_is_found_broken(tmp_path):
    go_on, inside = threading.Event(), threading.Event()

    def callback(event):
        inside.set()
        go_on.wait(30)

    session = relay_mp.session(
        ring_bytes=RING_BYTES, max_event_bytes=8192, directory=str(tmp_path), block_timeout_seconds=3600
    )
    try:
        subscribers.register("latch", callback)
        scope.event("m")
        assert inside.wait(30)
        emitters = [threading.Thread(target=lambda: [scope.event("m", data="x" * 4000) for _ in range(40)])]
        emitters[0].start()
        while session.stats().ring_used_bytes < RING_BYTES - 16384:
            emitters[0].join(0.01)
        write_word(session.path, TAIL_AT, 1 << 40)
        go_on.set()
        emitters[0].join(30)
        assert not emitters[0].is_alive()
    finally:
        go_on.set()
        session.close(30)  # its dispatcher has ended by then
        session._segment.unlink()


def test_an_empty_ring_with_a_window_that_cannot_be_is_refused_not_released_for_ever(tmp_path, run_script):
    """A free_pos far behind: handing the space back would take 2**40 steps."""
    path = tmp_path / "segment"
    with rig(path) as here:
        scope.event("m")
        here.drain()
        position = 1 << 41
        for at in (TAIL_AT, READ_POS_AT):
            struct.pack_into("<Q", here.memory, at, position)
        here.segment.drop_lease()
        here.segment.set_state(core.STATE_CLOSED)
        out = run_script(
            """
import sys, relay_mp
try:
    relay_mp.recover(sys.argv[1], sys.argv[2])
except relay_mp.SegmentError as error:
    print(error)
""",
            path,
            tmp_path / "out.jsonl",
        ).stdout
    assert "damaged beyond reading" in out


def test_a_search_for_the_next_record_does_not_take_the_square_of_the_ring(tmp_path):
    """Every unit of 16 MiB looks like the head of a record of 2 MiB: half a terabyte of checksums."""
    units, payload_bytes = (16 << 20) // 64, 2 << 20
    length = (payload_bytes + 24 + 63) // 64
    path = str(tmp_path / "segment")
    segment = Segment.create(
        path,
        session_id="hostile",
        ring_bytes=16 << 20,
        max_producers=2,
        max_event_bytes=payload_bytes,
        subscriptions_bytes=0,
        configuration_bytes=0,
        block_timeout_ns=0,
        stall_timeout_ns=0,
        drop_when_full=True,
        dispatcher_is_process=False,
    )
    try:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            ring_at = len(memory) - (16 << 20)
            for position in range(units - length):
                word = 2 | 1 << 3 | length << 19 | position << 35
                struct.pack_into("<QII", memory, ring_at + position * 64, word, payload_bytes, 0)
            struct.pack_into("<QQ", memory, TAIL_AT, units - length, 1 << 32 | 1)
        assert Reader(segment).next_batch(256, 0.0) == []
    finally:
        segment.close()
        segment.unlink()


def test_a_fenced_record_whose_head_is_damaged_holds_nobody_up(tmp_path):
    with rig(tmp_path / "segment") as here:
        scope.event("first")
        begin = here.segment.tail
        scope.event("second")
        at = here.ring_at + begin * 64
        word = struct.unpack_from("<Q", here.memory, at)[0]
        struct.pack_into("<Q", here.memory, at, word & ~7 | 4)  # FENCED: its writer has not noticed yet
        here.drain()
        struct.pack_into("<Q", here.memory, at, 0x5555555555555555)
        here.dispatcher._scan()
        scope.event("third")
        here.drain()
        assert here.taken() == ["first", "third"]


@pytest.mark.parametrize(("word", "at"), [("delivering_slot", 1168), ("stalled_slot", 1176)])
def test_a_slot_number_out_of_range_does_not_end_the_accounts(tmp_path, word, at):
    with rig(tmp_path / "segment") as here:
        scope.event("m")
        struct.pack_into("<Q", here.memory, at, 7)
        assert getattr(here.segment, word) == 7
        struct.pack_into("<Q", here.memory, at, 1 << 40)
        assert getattr(here.segment, word) == 0
        assert collect(here.segment).emitted == 1


# ---- a segment that shrinks ----


def test_a_segment_that_shrinks_ends_the_processes_that_look_and_no_others(session, seen, run_script, tmp_path):
    """See the module: SIGBUS, at once, in the process whose session it was; not here, where another one is."""
    run_script(
        """
import os, subprocess, sys
import relay_mp
from relay_mp import scope, subscribers
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", id)
scope.event("m")
subscribers.flush()
subprocess.run([sys.executable, "-c", "import os, sys; os.truncate(sys.argv[1], 0)", session.path], check=True)
scope.event("m")
subscribers.flush()
""",
        tmp_path,
        environment={"RELAY_MP_SESSION": ""},
        returncode=-7,
    )
    (left,) = tmp_path.glob("relay_mp-*")
    with pytest.raises(relay_mp.SegmentError, match="shorter than its header says"):
        relay_mp.recover(left)
    scope.event("elsewhere")
    subscribers.flush()
    assert [event.name for event in seen] == ["elsewhere"]


def test_a_segment_that_shrank_is_swept_around(tmp_path, run_script, caplog):
    """The next session starts beside what is left of it."""
    path = tmp_path / f"relay_mp-{os.geteuid()}-00000000-1-1-00000000"
    path.write_bytes(b"RELAYMP1")
    path.chmod(0o600)
    with relay_mp.session(directory=str(tmp_path), recovery_directory=str(tmp_path)) as session:
        assert session.is_open
    assert f"could not sweep {path}" in caplog.text
