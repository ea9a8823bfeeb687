# cython: language_level=3, freethreading_compatible=True
"""Taking records out of the ring, and to their callbacks. Runs where the dispatcher runs."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from relay_mp._native.atomics cimport add_u64, load_u64, rmp_load_acquire_pair, store_u64
from relay_mp._native.core cimport clock_us, dispatches_here, enter_mapping, leave_mapping, make_uuid7
from relay_mp._native.eventcount cimport rmp_monotonic_ns
from relay_mp._native.layout cimport RMP_CAUSES, RMP_UNIT_BYTES, rmp_mark, rmp_slot
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from relay_mp._native.slots cimport (
    RMP_MARK_ALL,
    RMP_MARK_PASSED,
    rmp_mark_begin,
    rmp_mark_done,
    rmp_mark_prepare,
    rmp_mark_times,
    rmp_slots_give_up,
    rmp_slots_missing,
    rmp_slots_pass,
    rmp_slots_unmarked,
)
from relay_mp._native.ring cimport (
    RMP_FENCED,
    RMP_READ_BLOCKED,
    RMP_READ_BROKEN,
    RMP_READ_EMPTY,
    RMP_READ_RECORD,
    RMP_READ_SKIPPED,
    rmp_read,
    rmp_reader,
    rmp_reader_abort_dead,
    rmp_reader_advance,
    rmp_reader_copy,
    rmp_reader_delivered,
    rmp_reader_fence,
    rmp_reader_look,
    rmp_reader_nap,
    rmp_reader_open,
    rmp_reader_release,
    rmp_reader_release_fenced,
    rmp_reader_rest,
    rmp_reader_salvage,
    rmp_ring_slot,
)
from relay_mp._native.segment cimport rmp_segment
from relay_mp._native.segments cimport Segment

from relay_mp.errors import SegmentError


# The dispatcher's wait for news: a spin; then naps, during which an emit costs no wake-up; and, once there was
# none for so long, a sleep that the next emit has to end, so that an idle session costs nothing.
cdef uint64_t SPIN_NS = 5000
cdef uint64_t NAPPING_NS = 20_000_000


@cython.final
@cython.no_gc  # no cycle goes through it: nothing but a batch holds it
@cython.freelist(256)
cdef class Record:
    """A record that was taken out of the ring, and its place there. Unpacks to payload, seq, next_position, slot,
    owner_seq.

    Attributes:
        payload: the record, a private copy.
        event: what the reader's `make` made of it.
        seq: its place in the stream.
        position, next_position: where it begins in the ring, and what is behind it, in units.
        slot, owner_seq: its producer, and how many that one had emitted with it.
    """
    cdef readonly bytes payload
    cdef readonly object event
    cdef readonly uint64_t position, next_position, owner_seq
    cdef readonly uint32_t slot
    cdef bint _follows  # the one before it of the same producer was read before it

    @property
    def seq(self) -> int:
        return self.position * RMP_UNIT_BYTES + RMP_UNIT_BYTES - 1

    def __iter__(self):
        return iter((self.payload, self.seq, self.next_position, self.slot, self.owner_seq))


cdef class Reader:
    """Takes records out of a segment, in order. For the holder of the lease only; one thread.

    A record stays in the ring until `done`, or `deliver`, says that its callbacks have returned.

    Args:
        segment: the segment.
        make: called as make(payload, seq, pid) for each record, as it is read; gives its event, or None where that
            is for `deliver` not to deliver.
    """
    cdef Segment _segment
    cdef rmp_reader _reader
    cdef rmp_read _blocked
    cdef uint64_t _blocked_since_ns
    cdef uint64_t _news_ns
    cdef object _make
    cdef uint64_t* _newest  # owner_seq of the newest record read, by slot; 0: none yet

    def __cinit__(self, Segment segment not None, make=None):
        segment._header()
        self._segment = segment
        self._make = make
        self._newest = <uint64_t*>calloc(segment._segment.ring.slot_count, sizeof(uint64_t))
        if self._newest == NULL:
            raise MemoryError
        rmp_reader_open(&self._reader, &segment._segment.ring)

    def __dealloc__(self):
        free(self._newest)

    def next_batch(self, int limit, double timeout_seconds) -> list:
        """Up to `limit` records, each a Record.

        Waits, GIL released, up to `timeout_seconds` for the first, or until `Segment.call_dispatcher`. An empty
        list means that there was none; `blocked_slot` tells if one was claimed and is not finished, and is
        looked at again after 2 ms.
        """
        cdef list batch = []
        cdef rmp_segment segment
        cdef uint64_t entered
        self._segment._header()
        segment = self._segment._segment
        entered = enter_mapping(&segment)
        try:
            self._fill(batch, limit)
            if not batch:
                self._wait(timeout_seconds)
                self._segment._header()
                self._fill(batch, limit)
        finally:
            leave_mapping(&segment, entered)
        if batch:
            self._news_ns = rmp_monotonic_ns()
        return batch

    cdef int _wait(self, double timeout_seconds) except -1:
        cdef uint64_t timeout_ns = <uint64_t>(max(timeout_seconds, 0.0) * 1e9)
        cdef uint64_t deadline_ns = rmp_monotonic_ns() + timeout_ns
        with nogil:
            if not rmp_reader_nap(&self._reader, self._news_ns, min(deadline_ns, self._news_ns + NAPPING_NS)):
                rmp_reader_rest(&self._reader, SPIN_NS, deadline_ns)
        return 0

    cdef int _fill(self, list batch, int limit) except -1:
        cdef rmp_read read
        cdef bytes payload
        while limit > 0:
            rmp_reader_look(&self._reader, &read)
            if read.kind == RMP_READ_RECORD:
                payload = PyBytes_FromStringAndSize(NULL, read.payload_bytes)
                if rmp_reader_copy(&self._reader, &read, PyBytes_AS_STRING(payload)):
                    batch.append(self._record(&read, payload))
                    limit -= 1
                # else: damaged, and so is what it says of its owner; the gap in that one's numbers tells
            elif read.kind == RMP_READ_SKIPPED and read.state == RMP_FENCED:
                pass  # counted when it was fenced
            elif read.kind == RMP_READ_EMPTY or read.kind == RMP_READ_BLOCKED or read.kind == RMP_READ_BROKEN:
                self._note_blocked(&read)
                if read.kind == RMP_READ_BROKEN and not batch:
                    raise SegmentError(f"the ring of {self._segment.path} is damaged beyond reading: its tail and its "
                                       "read position contradict each other")
                return 0
            rmp_reader_advance(&self._reader, &read)
        return 0

    cdef Record _record(self, const rmp_read* read, bytes payload):
        cdef Record record = Record.__new__(Record)
        cdef rmp_slot* slot
        cdef uint64_t newest
        record.payload = payload
        record.position, record.next_position = read.position, read.next
        record.slot, record.owner_seq = read.owner, read.owner_seq
        if read.owner == 0 or read.owner >= self._reader.ring.slot_count:
            return record  # `begin` says what is wrong with it
        slot = rmp_ring_slot(&self._reader.ring, read.owner)
        newest = self._newest[read.owner]
        if newest == 0:
            newest = rmp_load_acquire_pair(&slot.passed).low
        record._follows = read.owner_seq == newest + 1
        self._newest[read.owner] = read.owner_seq
        if self._make is not None:
            record.event = self._make(payload, record.seq, load_u64(&slot.state) >> 32)
        return record

    def salvage(self) -> bool:
        """From here on the ring is read without its tail, which was destroyed: see rmp_reader_salvage.

        Returns:
            Whether anything can be read.
        """
        self._segment._header()
        return rmp_reader_salvage(&self._reader)

    cdef void _note_blocked(self, rmp_read* read) noexcept:
        if read.kind != RMP_READ_BLOCKED:
            self._blocked.kind = RMP_READ_EMPTY
        elif self._blocked.kind != RMP_READ_BLOCKED or self._blocked.position != read.position:
            self._blocked = read[0]
            self._blocked_since_ns = rmp_monotonic_ns()
        store_u64(&self._reader.ring.header.stalled_owner, self._blocked.owner if self._blocked.kind == RMP_READ_BLOCKED else 0)

    @property
    def blocked_slot(self) -> int:
        """The slot whose claimed, unfinished record is next; 0 if none is."""
        return self._blocked.owner if self._blocked.kind == RMP_READ_BLOCKED else 0

    @property
    def blocked_seconds(self) -> float:
        return (rmp_monotonic_ns() - self._blocked_since_ns) / 1e9 if self.blocked_slot else 0.0

    def abort_blocked(self) -> bool:
        """The blocked record's writer is dead: give the record up. False: it was finished after all."""
        self._segment._header()
        if self._blocked.kind != RMP_READ_BLOCKED or not rmp_reader_abort_dead(&self._reader, &self._blocked):
            return False
        add_u64(&rmp_ring_slot(&self._reader.ring, self._blocked.owner).lost_writer_died, 1)
        return True

    def fence_blocked(self) -> bool:
        """The blocked record's writer is too slow: go on without it; its space stays its own."""
        self._segment._header()
        if self._blocked.kind != RMP_READ_BLOCKED or not rmp_reader_fence(&self._reader, &self._blocked):
            return False
        add_u64(&rmp_ring_slot(&self._reader.ring, self._blocked.owner).lost_fenced, 1)
        return True

    def fenced_slots(self) -> list:
        """(position, slot) of the fenced records whose writers have not noticed yet."""
        cdef uint32_t i, owner
        cdef list found = []
        self._segment._header()
        for i in range(self._reader.fenced_count):
            self._segment._header()  # again, behind each object
            owner = self._fenced_owner(self._reader.fenced[i])
            if owner:  # else: damaged meanwhile, and no fence any more
                found.append((self._reader.fenced[i], owner))
        return found

    cdef uint32_t _fenced_owner(self, uint64_t position) noexcept:
        cdef rmp_read read
        cdef rmp_reader at = self._reader
        at.cursor = position
        rmp_reader_look(&at, &read)
        return read.owner

    def release_fenced(self, uint64_t position) -> None:
        """The writer of the fenced record at `position` is dead: its space may be used again."""
        self._segment._header()
        rmp_reader_release_fenced(&self._reader, position)

    def begin(self, uint32_t slot, uint64_t owner_seq, bint gap_is_marked = False) -> int:
        """A record's callbacks are about to run.

        Args:
            gap_is_marked: whether the loss of what is missing before it has its mark in the stream.

        Returns:
            How many events of the same producer before it never arrived: unless their loss is marked, nothing has
            begun yet. Else minus the number of times that it was begun before, by dispatchers that died; mostly 0.
        """
        cdef uint64_t missing
        self._segment._check_slot(slot)
        missing = rmp_slots_missing(&self._reader.ring, slot, owner_seq)
        if missing and not gap_is_marked:
            return missing
        store_u64(&self._reader.ring.header.delivering_slot, slot)
        return -<int64_t>rmp_slots_pass(&self._reader.ring, slot, owner_seq)

    def run_end(self, list batch not None, int start, int limit, uint64_t before) -> int:
        """Where the records of a batch end that, from `start` on, need nothing but `deliver`.

        Nothing is missing between them, none was begun before, and `make` has made an event of each.

        Args:
            limit: at most so many.
            before: only those at positions before this one.
        """
        cdef int at = start, end = min(<int>len(batch), start + limit)
        cdef Record record
        self._segment._header()
        while at < end:
            record = <Record?>batch[at]
            if not record._follows or record.event is None or record.position >= before:
                break
            at += 1
        return at

    def events(self, list batch not None, int start, int end) -> list:
        """What `make` has made of the records from `start` up to `end`."""
        cdef int at
        self._segment._header()
        return [(<Record?>batch[at]).event for at in range(start, end)]

    def deliver(self, list batch not None, int start, int end, tuple callbacks not None, failed, watched, seen) -> int:
        """Calls each callback with each event of a run (see `run_end`), record by record, with `begin` and `done`.

        The records are given up for it: their events live on in callbacks only. Ends early in a child that a callback
        has forked, and before the next record once `watched.snapshot` is not `seen` any more.

        Args:
            failed: called as failed(index of the callback, event, error) for each callback that raises.
            watched, seen: what the choice of the callbacks rests on.

        Returns:
            How many records are done.
        """
        cdef Record record
        cdef object event
        cdef int at, which, count = <int>len(callbacks)
        self._segment._header()
        for at in range(start, end):
            record = <Record?>batch[at]
            self._segment._check_slot(record.slot)
            # Where nobody is called nothing comes in between.
            if (count and watched.snapshot is not seen) or rmp_slots_missing(&self._reader.ring, record.slot, record.owner_seq):
                return at - start
            event, record.event, record.payload = record.event, None, None
            store_u64(&self._reader.ring.header.delivering_slot, record.slot)
            rmp_slots_pass(&self._reader.ring, record.slot, record.owner_seq)
            for which in range(count):
                try:
                    callbacks[which](event)
                except BaseException as error:
                    failed(which, event, error)
                if not dispatches_here():
                    return at - start
            self._done(record.next_position)
        return end - start

    def give_up(self, uint32_t slot, uint64_t owner_seq) -> bool:
        """The record begun last is lost: who delivers it dies of it. False: that was said before."""
        self._segment._check_slot(slot)
        return rmp_slots_give_up(&self._reader.ring, slot, owner_seq)

    # -- marks of losses --

    def unmarked(self, uint32_t slot, uint64_t missing = 0, bint has_ended = False) -> int:
        """How many of a slot's losses have no mark yet; slot 0: of producers that found none.

        Args:
            missing: so many more, found before the record that is next.
            has_ended: counts also what was lost behind the slot's last record.
        """
        if slot:
            self._segment._check_slot(slot)
        return rmp_slots_unmarked(&self._reader.ring, slot, RMP_MARK_ALL if has_ended else RMP_MARK_PASSED, missing)

    def unmarked_slots(self, bint has_ended = False) -> list:
        """The slots whose losses have no place of their own in the stream, and no mark yet."""
        cdef uint32_t slot
        cdef list found = []
        for slot in range(self._reader.ring.slot_count):
            self._segment._header()
            if rmp_slots_unmarked(&self._reader.ring, slot, RMP_MARK_ALL if has_ended else RMP_MARK_PASSED, 0):
                found.append(slot)
        return found

    def prepare_mark(self, uint32_t slot, uint64_t count, uint64_t seq) -> None:
        """Writes a mark of so many losses down: from `begin_mark` on it outlives this dispatcher."""
        cdef uint8_t uuid[16]
        cdef int64_t now_us = clock_us()
        if slot:
            self._segment._check_slot(slot)
        make_uuid7(uuid, now_us)
        rmp_mark_prepare(&self._reader.ring, slot, count, seq, now_us, uuid)

    @property
    def mark_deliveries(self) -> int:
        """How often the mark under way was begun; 0: there is none."""
        self._segment._header()
        return rmp_mark_times(&self._reader.ring)

    @property
    def last_mark_seq(self) -> int:
        """The seq of the newest mark, whoever made it."""
        return load_u64(&self._segment._header().mark.seq)

    def begin_mark(self) -> tuple:
        """The mark's callbacks are about to run: (begun before, seq, slot, pid, timestamp, uuid, lost by cause)."""
        cdef rmp_mark mark = self._segment._header().mark
        cdef uint64_t before = rmp_mark_begin(&self._reader.ring)
        lost = tuple([mark.lost[i] for i in range(RMP_CAUSES)])
        uuid = PyBytes_FromStringAndSize(<const char*>mark.uuid, 16)
        return before, mark.seq, mark.slot, mark.pid, mark.timestamp_us, uuid, lost

    def mark_done(self) -> None:
        """The mark's callbacks have returned."""
        self._segment._header()
        rmp_mark_done(&self._reader.ring)

    def done(self, uint64_t next_position) -> None:
        """A record's callbacks have returned."""
        self._done(next_position)

    cdef int _done(self, uint64_t next_position) except -1:
        self._segment._header()
        store_u64(&self._reader.ring.header.delivering_slot, 0)
        rmp_reader_delivered(&self._reader, next_position)
        if next_position - self._reader.free_pos >= self._reader.ring.capacity_units >> 4:
            rmp_reader_release(&self._reader)
        return 0

    def end_batch(self) -> None:
        """All of the batch is done, and what was skipped behind it: hand its space back."""
        self._segment._header()
        if self._reader.cursor != self._reader.read_pos:
            rmp_reader_delivered(&self._reader, self._reader.cursor)
        rmp_reader_release(&self._reader)
