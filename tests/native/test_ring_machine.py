"""The ring against a list.

hypothesis drives the package's C sources, call by call, through what any producers and any reader can
do: claims, commits, aborts, fences, batches, releases, restarts, and deaths. A process dies here by a
longjmp out of the test point at which it stands, which leaves in the ring just what a SIGKILL leaves: a
claim that only the tail knows, a payload half copied, a release half done. One thread plays them all, so
each run is one interleaving at the grain of the calls and test points; tests/model tries all of them at
small bounds, and tests/native/*.c runs them in parallel.

The model is a Python list of claims. Once a step it must agree with the ring in every position, in the
head of every claim and in every free unit.
"""

import ctypes
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

NATIVE = Path(__file__).parents[2] / "relay_mp" / "_native"
SOURCES = ("ring.c", "eventcount.c", "platform_linux.c", "crc32c.c")
UNIT_BYTES, HEADER_BYTES = 64, 24
OWNERS = (1, 2, 3, 4)
PAD_OWNER, SEALED_OWNER = 0xFFFF, 0xFFFE

FREE, BUSY, COMMITTED, ABORTED, FENCED, PAD = range(6)
OK, FULL, SEALED, OVERTAKEN = range(4)
DIED = -1
READ_EMPTY, READ_RECORD, READ_BLOCKED, READ_SKIPPED, READ_CORRUPT = range(5)

DRIVER = r"""
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include "crc32c.h"
#include "ring.h"
#include "testpoint.h"

enum { DIED = -1 };
static jmp_buf death;
static char point[32];
static unsigned passes_left;

static void at_point(const char *name) {
    if (passes_left && !strcmp(name, point) && --passes_left == 0) longjmp(death, 1);
}

/* The next call ends at the `pass`th pass of the point `name`, as if its process were killed there; 0: none does. */
void machine_die_at(const char *name, unsigned pass) {
    rmp_testpoint_hook = at_point;
    passes_left = pass;
    memset(point, 0, sizeof point);
    if (pass) strncpy(point, name, sizeof point - 1);
}

/* A drained ring whose next position is `base`. The slack behind it is for broken rings only. */
rmp_ring *machine_new(uint64_t capacity_units, uint32_t max_payload_bytes, uint64_t base) {
    rmp_ring *ring = calloc(1, sizeof *ring);
    size_t bytes = (3 * capacity_units + 1) * RMP_UNIT_BYTES;
    ring->header = aligned_alloc(RMP_LINE, RMP_HEADER_BYTES);
    ring->units = aligned_alloc(RMP_LINE, bytes / RMP_LINE * RMP_LINE + RMP_LINE);
    memset(ring->header, 0, RMP_HEADER_BYTES);
    memset(ring->units, 0xee, bytes);
    ring->capacity_units = capacity_units;
    ring->slot_count = 5;
    ring->max_payload_bytes = max_payload_bytes;
    ring->header->tail = (rmp_pair){base, 0};
    ring->header->read_pos = ring->header->free_pos = base;
    for (uint64_t p = base; p < base + capacity_units; p++) rmp_ring_record(ring, p)->word = rmp_word_free(p);
    return ring;
}

void machine_free(rmp_ring *ring) {
    free(ring->header);
    free(ring->units);
    free(ring);
}

rmp_reader *machine_reader(const rmp_ring *ring) {
    rmp_reader *reader = malloc(sizeof *reader);
    rmp_reader_open(reader, ring);
    return reader;
}

int machine_claim(const rmp_ring *ring, uint32_t owner, uint32_t units, uint64_t *position) {
    if (setjmp(death)) return DIED;
    return rmp_ring_claim(ring, owner, units, position);
}

int machine_commit(const rmp_ring *ring, uint32_t owner, uint64_t position, uint64_t owner_seq, const void *payload,
                   uint32_t payload_bytes) {
    if (setjmp(death)) return DIED;
    return rmp_ring_commit(ring, owner, position, owner_seq, payload, payload_bytes,
                           rmp_crc32c(0, payload, payload_bytes));
}

int machine_delivered(rmp_reader *reader, uint64_t position) {
    if (setjmp(death)) return DIED;
    rmp_reader_delivered(reader, position);
    return RMP_OK;
}

int machine_release(rmp_reader *reader) {
    if (setjmp(death)) return DIED;
    rmp_reader_release(reader);
    return RMP_OK;
}

void machine_advance(rmp_reader *reader, const rmp_read *read) { rmp_reader_advance(reader, read); }
uint32_t machine_held(const rmp_reader *reader) { return reader->fenced_count; }

/* The four positions, then the first word of every unit. */
void machine_words(const rmp_ring *ring, uint64_t *words) {
    rmp_header *header = ring->header;
    uint64_t positions[4] = {header->tail.low, header->tail.high, header->read_pos, header->free_pos};
    memcpy(words, positions, sizeof positions);
    for (uint64_t i = 0; i < ring->capacity_units; i++) words[4 + i] = rmp_ring_record(ring, i)->word;
}

void machine_flip(const rmp_ring *ring, uint64_t position, uint32_t offset) {
    ((uint8_t *)rmp_ring_record(ring, position))[offset] ^= 0x10;
}
"""


class Read(ctypes.Structure):
    """struct rmp_read."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("state", ctypes.c_int),
        ("owner", ctypes.c_uint32),
        ("payload_bytes", ctypes.c_uint32),
        ("position", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
        ("owner_seq", ctypes.c_uint64),
        ("crc", ctypes.c_uint32),
        ("word", ctypes.c_uint64),
    )


def build(folder: Path, native: Path = NATIVE) -> ctypes.CDLL:
    """The ring with its test points, as a shared library of its own."""
    driver = folder / "driver.c"
    driver.write_text(DRIVER)
    library = folder / "ring.so"
    flags = ("-std=c11", "-O1", "-g", "-shared", "-fPIC", "-fno-strict-aliasing", "-DRMP_TEST_POINTS", "-I", native)
    sources = (driver, *(native / name for name in SOURCES))
    subprocess.run(["gcc", *flags, "-o", library, *sources], check=True, timeout=120)
    return declared(ctypes.CDLL(str(library)))


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    u32, u64, pointer, result = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int
    signatures = {
        "machine_die_at": (None, ctypes.c_char_p, u32),
        "machine_new": (pointer, u64, u32, u64),
        "machine_free": (None, pointer),
        "machine_reader": (pointer, pointer),
        "machine_claim": (result, pointer, u32, u32, pointer),
        "machine_commit": (result, pointer, u32, u64, u64, ctypes.c_char_p, u32),
        "machine_delivered": (result, pointer, u64),
        "machine_release": (result, pointer),
        "machine_advance": (None, pointer, pointer),
        "machine_held": (u32, pointer),
        "machine_words": (None, pointer, pointer),
        "machine_flip": (None, pointer, u64, u32),
        "rmp_ring_abort": (result, pointer, u32, u64, u32),
        "rmp_ring_write": (result, pointer, u32, u64, ctypes.c_char_p, u32),
        "rmp_ring_seal": (None, pointer),
        "rmp_reader_look": (None, pointer, pointer),
        "rmp_reader_copy": (ctypes.c_bool, pointer, pointer, ctypes.c_char_p),
        "rmp_reader_abort_dead": (ctypes.c_bool, pointer, pointer),
        "rmp_reader_fence": (ctypes.c_bool, pointer, pointer),
        "rmp_reader_release_fenced": (None, pointer, u64),
    }
    for name, (returned, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, arguments
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on PATH")
    return build(tmp_path_factory.mktemp("ring_machine"))


def free_word(position):
    return position << 3


def head_word(state, owner, units, position):
    return state | owner << 3 | units << 19 | (position & (1 << 29) - 1) << 35


def units_for(payload_bytes):
    return (payload_bytes + HEADER_BYTES + UNIT_BYTES - 1) // UNIT_BYTES


@dataclass
class Claim:
    position: int
    units: int
    owner: int
    state: int
    seq: int = 0
    payload: bytes = b""
    crafted: bool = False
    published: bool = False
    damaged: bool = False
    delivered: bool = False
    lost: bool = False
    writer_lives: bool = True

    @property
    def end(self):
        return self.position + self.units


@dataclass
class Producer:
    owner: int
    seq: int = 0
    claim: Claim | None = None
    died_at_tail: int | None = None


def chosen(candidates, choice):
    return candidates[choice % len(candidates)]


# A size by units and by distance from a unit's end, so that each boundary is hit often.
# A crafted payload mimics heads.
sizes = st.tuples(st.integers(0, 1 << 16), st.sampled_from((0, 0, 1, 2, 40, 63)), st.booleans())
choices = st.integers(0, len(OWNERS) - 1)  # of those that can do the thing
CLAIM_POINTS = ("claim.helped", "claim.padded", "claim.claimed", "claim.published")
COMMIT_POINTS = ("commit.header", "commit.copied", "commit.overtaken", "commit.committed")


class RingMachine(RuleBasedStateMachine):
    def __init__(self, library):
        super().__init__()
        self.library = library
        self.ring = None

    # ---- set-up ----

    @initialize(
        capacity=st.sampled_from((4, 8, 16, 64)),
        lap_start=st.sampled_from((0, 1 << 29, 1 << 32, 1 << 60)),
        offset=st.integers(-64, 64),
    )
    def start(self, capacity, lap_start, offset):
        self.capacity = capacity
        self.max_payload = capacity // 2 * UNIT_BYTES - HEADER_BYTES
        base = max(lap_start + offset, 0)
        self.ring = self.library.machine_new(capacity, self.max_payload, base)
        self.reader = self.library.machine_reader(self.ring)
        self.words = (ctypes.c_uint64 * (4 + capacity))()
        self.tail = self.cursor = self.read_pos = self.free_pos = base
        self.sealed = False
        self.claims = []  # all that are not released, in order of position
        self.fetched = []  # claims copied out by the reader and not delivered
        self.producers = {owner: Producer(owner) for owner in OWNERS}
        self.committed = self.delivered = self.lost = 0

    def payload_of(self, size):
        """Its units begin as those of the next lap will have to: a release that leaves any behind is found.
        Crafted: as heads of fenced records, which nobody may take them for."""
        units, slack, crafted = size
        units = units % (self.capacity // 2) + 1
        length = max(units * UNIT_BYTES - HEADER_BYTES - slack, 0)
        words = [
            head_word(FENCED, 1, 1, self.tail + i) if crafted else free_word(self.tail + self.capacity + i)
            for i in range(units)
        ]
        image = b"".join(
            struct.pack("<Q", word) + bytes((units + slack + i + j) & 0xFF for j in range(56))
            for i, word in enumerate(words)
        )
        return image[HEADER_BYTES : HEADER_BYTES + length]

    def idle(self):
        """The producers that may claim now. A number of the dead is taken again once it may be."""
        for producer in self.producers.values():
            if producer.died_at_tail is not None and self.free_pos >= producer.died_at_tail:
                producer.died_at_tail = None
        return [p for p in self.producers.values() if p.died_at_tail is None and p.claim is None]

    def busy(self):
        return [producer for producer in self.producers.values() if producer.claim is not None]

    def dies_at(self, point, nth=1):
        self.library.machine_die_at((point or "").encode(), nth if point else 0)

    def finish_salvage(self, producer):
        if producer.claim is not None:
            producer.claim.writer_lives = False
        producer.claim = None
        producer.died_at_tail = self.tail

    # ---- the claim's rules, on the list ----

    def help(self):
        if self.claims:
            self.claims[-1].published = True

    def expect_claim(self, owner, units, dies_at=None):
        """(result, claim) that the ring has to come to as well."""
        while True:
            if self.sealed:
                return SEALED, None
            self.help()
            if dies_at == "claim.helped":
                return DIED, None
            room = self.capacity - self.tail % self.capacity
            length = min(units, room)
            if self.tail + length - self.free_pos > self.capacity:
                return FULL, None
            claim = Claim(self.tail, length, *((owner, BUSY) if length == units else (PAD_OWNER, PAD)))
            self.claims.append(claim)
            self.tail += length
            if claim.state == PAD:
                if dies_at == "claim.padded":
                    return DIED, None
                continue
            if dies_at == "claim.claimed":
                return DIED, claim
            claim.published = True
            return (DIED if dies_at == "claim.published" else OK), claim

    # ---- producers ----

    @precondition(lambda self: self.idle())
    @rule(choice=choices, size=sizes)
    def write(self, choice, size):
        producer = chosen(self.idle(), choice)
        payload = self.payload_of(size)
        producer.seq += 1
        expected, claim = self.expect_claim(producer.owner, units_for(len(payload)))
        assert self.library.rmp_ring_write(self.ring, producer.owner, producer.seq, payload, len(payload)) == expected
        if claim:
            claim.seq, claim.payload, claim.state, claim.crafted = producer.seq, payload, COMMITTED, size[2]
            self.committed += 1

    @precondition(lambda self: self.idle())
    @rule(choice=choices, size=sizes)
    def claim(self, choice, size):
        producer = chosen(self.idle(), choice)
        payload = self.payload_of(size)
        producer.seq += 1
        position = ctypes.c_uint64()
        units = units_for(len(payload))
        expected, claim = self.expect_claim(producer.owner, units)
        found = self.library.machine_claim(self.ring, producer.owner, units, ctypes.byref(position))
        assert found == expected
        if claim:
            assert position.value == claim.position
            claim.seq, claim.payload, claim.crafted = producer.seq, payload, size[2]
            producer.claim = claim

    @precondition(lambda self: self.idle())
    @rule(choice=choices, size=sizes, point=st.sampled_from(CLAIM_POINTS))
    def die_in_claim(self, choice, size, point):
        producer = chosen(self.idle(), choice)
        units = units_for(len(self.payload_of(size)))
        expected, claim = self.expect_claim(producer.owner, units, dies_at=point)
        self.dies_at(point)
        found = self.library.machine_claim(self.ring, producer.owner, units, ctypes.byref(ctypes.c_uint64()))
        self.dies_at(None)
        assert found == expected
        producer.claim = claim
        if found != FULL:  # or OK: no padding was needed, and so that point not passed
            self.finish_salvage(producer)

    @precondition(lambda self: self.busy())
    @rule(choice=choices)
    def commit(self, choice):
        self.finish(chosen(self.busy(), choice), None)

    @precondition(lambda self: self.busy())
    @rule(choice=choices, point=st.sampled_from(COMMIT_POINTS))
    def die_in_commit(self, choice, point):
        self.finish(chosen(self.busy(), choice), point)

    def finish(self, producer, dies_at):
        claim = producer.claim
        fenced = claim.state == FENCED
        dies = dies_at in ("commit.header", "commit.copied") or (dies_at == "commit.overtaken" and fenced)
        self.dies_at(dies_at)
        found = self.library.machine_commit(
            self.ring, producer.owner, claim.position, claim.seq, claim.payload, len(claim.payload)
        )
        self.dies_at(None)
        if dies:
            assert found == DIED
            self.finish_salvage(producer)
            return
        claim.state = ABORTED if fenced else COMMITTED
        self.committed += not fenced
        producer.claim = None
        if dies_at == "commit.committed":
            assert found == DIED
            self.finish_salvage(producer)
        else:
            assert found == (OVERTAKEN if fenced else OK)

    @precondition(lambda self: self.busy())
    @rule(choice=choices)
    def abort(self, choice):
        self.give_up(chosen(self.busy(), choice))

    def give_up(self, producer):
        claim = producer.claim
        expected = OVERTAKEN if claim.state == FENCED else OK
        assert self.library.rmp_ring_abort(self.ring, producer.owner, claim.position, claim.units) == expected
        claim.state = ABORTED
        producer.claim = None

    @precondition(lambda self: self.busy())
    @rule(choice=choices)
    def die(self, choice):
        self.finish_salvage(chosen(self.busy(), choice))

    # ---- the reader ----

    def claim_at(self, position):
        for claim in self.claims:
            if claim.position == position:
                return claim
        return None

    def look(self):
        read = Read()
        self.library.rmp_reader_look(self.reader, ctypes.byref(read))
        claim = self.claim_at(self.cursor)
        assert (claim is None) == (self.cursor == self.tail)
        assert read.position == self.cursor
        if claim is not None and not claim.published:
            claim.published = True  # the reader helps too
        return read, claim

    def advance(self, read):
        self.library.machine_advance(self.reader, ctypes.byref(read))
        self.cursor = read.next

    def fetch_one(self, fences=False):
        """Reads what is at the cursor. False: nothing, or a living writer's claim that it does not fence."""
        read, claim = self.look()
        if claim is None:
            assert read.kind == READ_EMPTY
            return False
        if claim.state == BUSY:
            assert (read.kind, read.owner, read.next) == (READ_BLOCKED, claim.owner, claim.end)
            if claim.writer_lives:
                return fences and self.fence(read, claim)
            assert self.library.rmp_reader_abort_dead(self.reader, ctypes.byref(read))
            claim.state = ABORTED
            return True
        if claim.state != COMMITTED:
            assert (read.kind, read.state, read.owner) == (READ_SKIPPED, claim.state, claim.owner)
            assert read.next == claim.end
        elif claim.damaged:
            self.expect_corrupt(read, claim)
        else:
            self.expect_record(read, claim)
            self.fetched.append(claim)
        self.advance(read)
        return True

    def copy(self, read):
        assert read.payload_bytes <= self.max_payload
        destination = ctypes.create_string_buffer(read.payload_bytes + 1)
        intact = self.library.rmp_reader_copy(self.reader, ctypes.byref(read), destination)
        return destination.raw[: read.payload_bytes] if intact else None

    def expect_record(self, read, claim):
        assert (read.kind, read.owner, read.owner_seq) == (READ_RECORD, claim.owner, claim.seq)
        assert self.copy(read) == claim.payload
        assert read.next == claim.end

    def expect_corrupt(self, read, claim):
        """Everything up to the next claim that can be trusted is skipped, and not a unit more."""
        if read.kind == READ_RECORD:
            assert self.copy(read) is None
        assert read.kind == READ_CORRUPT
        following = [other for other in self.claims if other.position > claim.position]
        trusted = [other.position for other in following if not other.damaged] + [self.tail]
        # The newest claim's start is known from the tail, whatever its bytes say; a seal hides it.
        newest = following[-1].position if following and not self.sealed else self.tail
        assert read.next == min(trusted[0], newest)
        for skipped in (claim, *following):
            if skipped.position < read.next and not skipped.lost:
                skipped.lost = True
                self.lost += 1

    @rule(limit=st.integers(1, 12), fences=st.booleans())
    def fetch(self, limit, fences):
        for _ in range(limit):
            if not self.fetch_one(fences):
                break

    def deliver_next(self, dies=False):
        claim = self.fetched.pop(0)
        assert not claim.delivered
        claim.delivered = True
        self.delivered += 1
        self.passed(claim.end, dies)

    def passed(self, position, dies=False):
        self.dies_at("reader.delivered" if dies else None)
        assert self.library.machine_delivered(self.reader, position) == (DIED if dies else OK)
        self.dies_at(None)
        self.read_pos = position
        if dies:
            self.restart()

    @precondition(lambda self: self.fetched)
    @rule(count=st.integers(1, 6))
    def deliver(self, count):
        for _ in range(min(count, len(self.fetched))):
            self.deliver_next()

    @precondition(lambda self: self.fetched)
    @rule()
    def deliver_and_die(self):
        self.deliver_next(dies=True)

    def release_limit(self):
        held = [c.position for c in self.claims if c.state == FENCED and c.position < self.read_pos]
        return min(held, default=self.read_pos)

    @rule()
    def release(self):
        limit = self.release_limit()
        assert self.library.machine_release(self.reader) == OK
        self.free_pos = max(limit, self.free_pos)
        self.claims = [claim for claim in self.claims if claim.position >= self.free_pos]

    @precondition(lambda self: self.release_limit() > self.free_pos)
    @rule(units=st.integers(1, 64))
    def die_in_release(self, units):
        count = self.release_limit() - self.free_pos
        point, nth = ("reader.unit_released", units) if units <= count else ("reader.released", 1)
        limit = self.release_limit()
        self.dies_at(point, nth)
        assert self.library.machine_release(self.reader) == DIED
        self.dies_at(None)
        if point == "reader.released":
            self.free_pos = limit
            self.claims = [claim for claim in self.claims if claim.position >= self.free_pos]
        self.restart()

    @rule()
    def end_batch(self):
        while self.fetched:
            self.deliver_next()
        self.passed(self.cursor)
        self.release()

    @rule(limit=st.integers(1, 12), fences=st.booleans())
    def dispatch(self, limit, fences):
        self.fetch(limit, fences)
        self.end_batch()

    @rule()
    def restart(self):
        """The reader dies, and another takes over."""
        self.reader = self.library.machine_reader(self.ring)
        self.cursor = self.read_pos
        self.fetched.clear()
        held = [c for c in self.claims if c.state == FENCED and c.position < self.read_pos]
        assert self.library.machine_held(self.reader) == len(held)

    def fence(self, read, claim):
        assert self.library.rmp_reader_fence(self.reader, ctypes.byref(read))
        claim.state = FENCED
        return True

    @rule()
    def fence_and_die(self):
        read, claim = self.look()
        if claim is not None and claim.state == BUSY:
            self.fence(read, claim)
            self.restart()

    @rule(fences=st.booleans(), aborts=st.booleans())
    def give_up_too_late(self, fences, aborts):
        """The writer is done after all between the look and the verdict: the verdict must not count."""
        read, claim = self.look()
        if claim is None or claim.state != BUSY or not claim.writer_lives:
            return
        writer = self.producers[claim.owner]
        if aborts:
            self.give_up(writer)
        else:
            self.finish(writer, None)
        verdict = self.library.rmp_reader_fence if fences else self.library.rmp_reader_abort_dead
        assert not verdict(self.reader, ctypes.byref(read))

    @precondition(lambda self: any(c.state == FENCED and not c.writer_lives for c in self.claims))
    @rule()
    def release_fenced(self):
        for claim in self.claims:
            if claim.state == FENCED and not claim.writer_lives and claim.position < self.cursor:
                self.library.rmp_reader_release_fenced(self.reader, claim.position)
                claim.state = ABORTED

    # ---- damage ----

    def waiting(self):
        """What may be damaged. Not what is crafted: a search through its payload may stop at a mimicked head."""
        candidates = [c for c in self.claims if c.state == COMMITTED and c.position >= self.read_pos]
        return [claim for claim in candidates if not claim.damaged and not claim.crafted]

    @precondition(lambda self: self.waiting())
    @rule(which=st.integers(0, 15), where=st.sampled_from(("tag", "length", "crc", "owner_seq", "payload")))
    def damage(self, which, where):
        claim = chosen(self.waiting(), which)
        offset = {"tag": 6, "length": 8, "crc": 13, "owner_seq": 17}.get(where)
        if offset is None:
            if not claim.payload:
                return
            offset = HEADER_BYTES + (which * 37) % len(claim.payload)
        self.library.machine_flip(self.ring, claim.position, offset)
        claim.damaged = True

    # ---- what holds after every step ----

    @invariant()
    def ring_is_the_list(self):
        if self.ring is None:
            return
        self.library.machine_words(self.ring, self.words)
        self.positions_agree()
        self.space_is_conserved()
        self.heads_agree()

    def positions_agree(self):
        tail, tail_claim, read_pos, free_pos = self.words[:4]
        assert (tail, read_pos, free_pos) == (self.tail, self.read_pos, self.free_pos)
        if self.claims and not self.sealed:
            newest = self.claims[-1]
            assert (tail_claim >> 32, tail_claim & 0xFFFFFFFF) == (newest.owner, newest.units)

    def space_is_conserved(self):
        position = self.free_pos
        for claim in self.claims:
            assert claim.position == position
            position = claim.end
        assert position == self.tail
        assert self.tail - self.free_pos <= self.capacity
        for position in range(self.tail, self.free_pos + self.capacity):
            assert self.words[4 + position % self.capacity] == free_word(position)

    def heads_agree(self):
        for claim in self.claims:
            found = self.words[4 + claim.position % self.capacity]
            head = head_word(claim.state, claim.owner, claim.units, claim.position)
            if claim.damaged:
                continue
            if not claim.published:
                head = free_word(claim.position)
            released = claim.position < self.read_pos and found == free_word(claim.position + self.capacity)
            assert found == head or released

    # ---- the end ----

    def teardown(self):
        if self.ring is None:
            return
        try:
            self.drain()
        finally:
            self.library.machine_free(self.ring)

    def drain(self):
        """Sealed, with every writer done or dead: all that was committed comes out, and the ring is empty."""
        self.help()
        self.library.rmp_ring_seal(self.ring)
        self.sealed = True
        for producer in self.idle():
            assert self.library.rmp_ring_write(self.ring, producer.owner, producer.seq, b"", 0) == SEALED
        for producer in self.busy():
            if producer.owner % 2:
                self.finish(producer, None)
            else:
                self.finish_salvage(producer)
        while self.fetch_one():
            pass
        assert self.cursor == self.tail
        self.release_fenced()
        self.end_batch()
        self.ring_is_the_list()
        assert (self.free_pos, self.claims) == (self.tail, [])
        assert self.committed == self.delivered + self.lost


@pytest.mark.timeout(3600)
def test_ring_is_a_list(library):
    run_state_machine_as_test(
        lambda: RingMachine(library),
        # A fence that matters takes a claim, a reader past it, and space wanted behind it: many short runs.
        settings=settings(
            max_examples=min(3 * settings.default.max_examples, 10_000),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
