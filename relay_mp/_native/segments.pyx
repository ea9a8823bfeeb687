# cython: language_level=3, freethreading_compatible=True
"""A mapped session file, as Python sees it: made by the owner, attached by everybody else.

Runs in every process, off the emit path: an emit goes to the mapping that `make_current` has named, in C.

A method that has looked at `_header` may use the mapping as long as nothing else runs: it makes no object that takes part in
garbage collection, whose finalizers may close the segment, and calls no Python. What needs more says `enter_mapping`.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay_mp._native.atomics cimport (
    add_u64,
    add_u64_ordered,
    load_u32,
    load_u64,
    rmp_cas_acq_rel_pair,
    rmp_cas_u32,
    rmp_load_acquire_pair,
    rmp_pair,
    store_u32,
    store_u64,
)
from relay_mp._native.core cimport attach_to, clock_us, close_mapping, detach, enter_mapping, leave_mapping
from relay_mp._native.crc32c cimport rmp_crc32c
from relay_mp._native.eventcount cimport rmp_eventcount_call
from relay_mp._native.layout cimport (
    RMP_BROKEN,
    RMP_CLOSED,
    RMP_LAYOUT_VERSION,
    RMP_OWNER_ARGV_BYTES,
    RMP_REPLY_TEXT_BYTES,
    RMP_SLOT_BYTES,
    RMP_UNIT_BYTES,
    rmp_header,
    rmp_slot,
)
from relay_mp._native.platform cimport rmp_thread_id
from relay_mp._native.process cimport rmp_process, rmp_process_self
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from relay_mp._native.slots cimport (
    RMP_MARK_ALL,
    rmp_mark_count,
    rmp_mark_times,
    rmp_slots_count_control,
    rmp_slots_exit,
    rmp_slots_mark_dead,
    rmp_slots_owner,
    rmp_slots_settle,
    rmp_slots_take,
    rmp_slots_uncount_control,
    rmp_slots_unmarked,
    rmp_slots_write_off,
)
from relay_mp._native.ring cimport (
    RMP_FULL,
    RMP_OK,
    rmp_ring,
    rmp_ring_finish_salvage,
    rmp_ring_mark_broken,
    rmp_ring_seal,
    rmp_ring_slot,
    rmp_ring_tail,
    rmp_ring_wait_for_delivery,
    rmp_ring_write,
)
from relay_mp._native.segment cimport (
    RMP_SEGMENT_FOREIGN,
    RMP_SEGMENT_MAGIC,
    RMP_SEGMENT_MODE,
    RMP_SEGMENT_SIZES,
    RMP_SEGMENT_TRUNCATED,
    RMP_SEGMENT_VERSION,
    rmp_segment,
    rmp_segment_attach,
    rmp_segment_attach_file,
    rmp_segment_configuration,
    rmp_segment_create,
    rmp_segment_options,
    rmp_segment_subscriptions,
)

import errno as _errno
import os as _os

from relay_mp._native.encoder import set_strict
from relay_mp.errors import ConfigurationError, RegistryFullError, SegmentError, SessionError


cdef dict _REFUSALS = {
    RMP_SEGMENT_FOREIGN: "belongs to another user; only segments of the own uid are attached",
    RMP_SEGMENT_MODE: "is not a regular file of mode 0600; it may have been tampered with",
    RMP_SEGMENT_TRUNCATED: "is shorter than its header says; it was truncated or is still being made",
    RMP_SEGMENT_MAGIC: "is not a relay_mp segment, or not a finished one",
    RMP_SEGMENT_SIZES: "has sizes in its header that contradict each other or the file",
}


cdef int _check_segment(int code, str path, str doing, uint32_t found_version=0) except -1:
    """Turns a native result into the exception for it."""
    if code == 0:
        return 0
    if code == RMP_SEGMENT_VERSION:
        raise SegmentError(f"{path} has layout version {found_version}; this relay_mp has another layout version, "
                           f"{RMP_LAYOUT_VERSION}: use one relay_mp version in all processes of the session, and to look at it. "
                           "If its program has ended, the file can be removed")
    if code > 0:
        raise SegmentError(f"{path} {_REFUSALS[code]}")
    cause = OSError(-code, _os.strerror(-code), path)
    if -code == _errno.ENOENT:
        raise SegmentError(f"there is no segment {path}: its session has ended, or never was on this machine") from cause
    if -code == _errno.ENOSPC:
        raise SegmentError(f"no room for {path} in the file system of {_os.path.dirname(path)}: "
                           "make the ring smaller (ring_bytes, RELAY_MP_RING_BYTES) or free shared memory") from cause
    raise SegmentError(f"{doing} {path} failed: {_os.strerror(-code)} (errno {-code})") from cause


cdef tuple _identity_of(status):
    return status.st_dev, status.st_ino


OWNER_ARGV_BYTES = RMP_OWNER_ARGV_BYTES
"""Of the owner's command line, kept in the segment."""


cdef bytes _REPLY_CUT = " [cut; all of it is in the dispatcher's log]".encode()


cdef class Segment:
    """A mapped session file. Created by the owner, attached by everybody else.

    Args of `create` are validated by relay_mp._session.settings; sizes in bytes, times in nanoseconds.
    """
    def __cinit__(self):
        self._file = -1

    @staticmethod
    def create(str path not None, *, str session_id not None, ring_bytes: int, max_producers: int, max_event_bytes: int,
               subscriptions_bytes: int, configuration_bytes: int, block_timeout_ns: int, stall_timeout_ns: int,
               drop_when_full: bool, dispatcher_is_process: bool, max_deliveries: int = 3, strict: bool = False,
               owner_argv: bytes = b"") -> Segment:
        cdef Segment self = Segment.__new__(Segment)
        cdef rmp_segment_options options
        cdef bytes native_path = _os.fsencode(path)
        cdef bytes native_id = session_id.encode()
        cdef bytes native_argv = owner_argv
        options.session_id = native_id
        options.capacity_units = ring_bytes // RMP_UNIT_BYTES
        options.subscriptions_bytes = subscriptions_bytes
        options.configuration_bytes = configuration_bytes
        options.block_timeout_ns = block_timeout_ns
        options.stall_timeout_ns = stall_timeout_ns
        options.slot_count = max_producers + 1
        options.max_payload_bytes = max_event_bytes
        options.drop_when_full = drop_when_full
        options.dispatcher_is_process = dispatcher_is_process
        options.max_deliveries = max_deliveries
        options.is_strict = bool(strict)
        options.started_us = clock_us()
        options.owner_argv = native_argv
        options.owner_argv_bytes = <uint32_t>len(native_argv)
        _check_segment(rmp_segment_create(&self._segment, native_path, &options), path, "creating")
        self.path = path
        self._open = True
        try:
            self._file = _os.open(path, _os.O_RDWR | _os.O_CLOEXEC | _os.O_NOFOLLOW)
            self._identity = _identity_of(_os.fstat(self._file))
        except OSError as error:
            self.close()
            self.unlink()
            raise SegmentError(f"opening {path}, which was just made, failed: {error}") from error
        return self

    @staticmethod
    def attach(str path not None, descriptor: int | None = None) -> Segment:
        """With a `descriptor` of its file, the path only names it: others may have removed the name."""
        cdef Segment self = Segment.__new__(Segment)
        cdef bytes native_path = _os.fsencode(path)
        cdef int code
        if descriptor is None:
            code = rmp_segment_attach(&self._segment, native_path)
        else:
            code = rmp_segment_attach_file(&self._segment, descriptor)
        _check_segment(code, path, "attaching to", self._segment.found_version)
        self.path = path
        self._open = True
        return self

    @property
    def descriptor(self) -> int:
        """Of the file, kept by who has made it, to hand over; -1 in every other process, and when it is closed."""
        return self._file if self._has_file() else -1

    @property
    def has_name(self) -> bool:
        """Whether the maker's file is still found under its path; True where this cannot be told."""
        if self._identity is None:
            return True
        try:
            return _identity_of(_os.lstat(self.path)) == self._identity
        except FileNotFoundError:
            return False
        except OSError:
            return True

    cdef bint _has_file(self):
        # A program that has closed all descriptors, to become a daemon, may have another file at that number.
        try:
            return self._file >= 0 and _identity_of(_os.fstat(self._file)) == self._identity
        except OSError:
            return False

    cdef rmp_header* _header(self) except NULL:
        if not self._open:
            raise SessionError(f"the session of {self.path} is closed in this process")
        return self._segment.ring.header

    def make_current(self) -> None:
        """Emits of this process go here from now on."""
        self._header()
        attach_to(&self._segment)
        set_strict(session=self._header().is_strict != 0)
        self._current = True

    def close(self) -> None:
        """Unmaps. Idempotent. The file stays until `unlink`."""
        if not self._open:
            return
        self._open = False
        if self._has_file():
            _os.close(self._file)
        self._file = -1
        if self._current:
            set_strict(session=False)
            detach()
        else:
            close_mapping(&self._segment)

    def unlink(self) -> None:
        """Removes the name; mappings live on."""
        try:
            _os.unlink(self.path)
        except FileNotFoundError:
            pass

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def session_id(self) -> str:
        return (<bytes>self._header().session_id[:35]).split(b"\0", 1)[0].decode("ascii", "replace")

    @property
    def owner(self) -> tuple:
        """(pid, start time, pid namespace) of the process that made the session."""
        cdef rmp_header* header = self._header()
        return header.owner_pid, header.owner_start_time, header.owner_pid_namespace

    @property
    def started_us(self) -> int:
        """When the session began, microseconds since the epoch."""
        return self._header().started_us

    @property
    def owner_argv(self) -> tuple:
        """(as much of the owner's command line as is kept, OWNER_ARGV_BYTES at most; whether that is all of it): a zero
        byte between two arguments."""
        cdef rmp_header* header = self._header()
        cdef uint32_t said = header.owner_argv_bytes, kept = min(said, <uint32_t>RMP_OWNER_ARGV_BYTES)
        return PyBytes_FromStringAndSize(header.owner_argv, kept), kept == said

    @property
    def dispatcher_is_process(self) -> bool:
        return self._header().dispatcher_is_process != 0

    @property
    def ring_bytes(self) -> int:
        self._header()
        return self._segment.ring.capacity_units * RMP_UNIT_BYTES

    @property
    def max_event_bytes(self) -> int:
        self._header()
        return self._segment.ring.max_payload_bytes

    @property
    def stall_timeout_ns(self) -> int:
        return self._header().stall_timeout_ns

    @property
    def max_deliveries(self) -> int:
        """How often an event is delivered, if each time the dispatcher's process dies of it."""
        return max(self._header().max_deliveries, 1)

    @property
    def state(self) -> int:
        return load_u32(&self._header().session_state)

    def set_state(self, state: int) -> None:
        """A broken session stays so until it is closed."""
        cdef rmp_header* header = self._header()
        cdef uint32_t wanted = state, seen = load_u32(&header.session_state)
        while (seen != RMP_BROKEN or wanted == RMP_CLOSED) and not rmp_cas_u32(&header.session_state, seen, wanted):
            seen = load_u32(&header.session_state)

    @property
    def subscribers(self) -> int:
        return load_u32(&self._header().subscribers)

    def set_subscribers(self, subscribers: int, scope_locals: int) -> None:
        """How many registrations live, and how many of them are scope-local."""
        cdef rmp_header* header = self._header()
        store_u32(&header.subscribers, subscribers)
        store_u32(&header.scope_locals, scope_locals)

    def seal(self) -> None:
        """No event can be claimed any more; those claimed can still be committed and delivered."""
        self._header()
        rmp_ring_seal(&self._segment.ring)

    def call_dispatcher(self) -> None:
        """Ends the dispatcher's wait for news, also if it is only about to begin: it has something else to look at."""
        rmp_eventcount_call(&self._header().data)

    def mark_broken(self) -> None:
        """The ring cannot be read further: nobody waits for it any more, and no flush takes it for delivered."""
        if self.state != RMP_CLOSED:
            self.set_state(RMP_BROKEN)
        rmp_ring_mark_broken(&self._segment.ring)

    def finish_salvage(self) -> None:
        """All that can be read of a broken ring has been: it counts as drained, and what has not come as lost."""
        cdef uint32_t slot
        self._header()
        for slot in range(1, self._segment.ring.slot_count):
            rmp_slots_write_off(&self._segment.ring, slot)
        rmp_ring_finish_salvage(&self._segment.ring)

    @property
    def tail(self) -> int:
        """Position, in units, behind the newest claim."""
        self._header()
        return rmp_ring_tail(&self._segment.ring)

    @property
    def read_pos(self) -> int:
        """Everything before this position has been delivered."""
        return load_u64(&self._header().read_pos)

    @property
    def free_pos(self) -> int:
        return load_u64(&self._header().free_pos)

    def wait_delivered(self, uint64_t position, double timeout_seconds) -> bool:
        """Sleeps, GIL released, until delivery reaches `position` or at most 40 ms."""
        cdef rmp_segment segment
        cdef uint64_t timeout_ns = <uint64_t>(max(timeout_seconds, 0.0) * 1e9)
        cdef uint64_t entered
        cdef bint done
        self._header()
        segment = self._segment
        entered = enter_mapping(&segment)
        with nogil:
            rmp_ring_wait_for_delivery(&segment.ring, position, timeout_ns)
            done = load_u64(&segment.ring.header.read_pos) >= position
        leave_mapping(&segment, entered)
        return done

    # -- the dispatcher's lease --

    def lease(self) -> tuple:
        """(word, pid, start time) of who dispatches; pid 0: nobody has yet."""
        cdef rmp_pair lease = rmp_load_acquire_pair(&self._header().lease)
        return lease.low, lease.low & 0xFFFFFFFF, lease.high

    def take_lease(self, uint64_t seen) -> bool:
        """Becomes the dispatcher if the lease is still `seen`, whose holder the caller found dead."""
        cdef rmp_header* header = self._header()
        cdef rmp_process own = rmp_process_self()
        cdef rmp_pair held = rmp_load_acquire_pair(&header.lease)
        cdef rmp_pair taken
        taken.low = (((seen >> 32) + 1) << 32) | own.pid
        taken.high = own.start_time
        return held.low == seen and rmp_cas_acq_rel_pair(&header.lease, held, taken)

    def drop_lease(self) -> None:
        """Nobody dispatches any more, though the process lives. Nothing where another process holds the lease."""
        cdef rmp_header* header = self._header()
        cdef rmp_pair held = rmp_load_acquire_pair(&header.lease)
        cdef rmp_pair dropped
        if (held.low & 0xFFFFFFFF) != rmp_process_self().pid:
            return
        dropped.low = held.low >> 32 << 32
        dropped.high = 0
        rmp_cas_acq_rel_pair(&header.lease, held, dropped)

    # -- slots --

    def slots(self) -> bytes:
        """A copy of all slots (SLOT_BYTES each, fields at SLOT_FIELDS), for NumPy to look at."""
        self._header()
        return PyBytes_FromStringAndSize(<const char*>self._segment.ring.slots,
                                         <Py_ssize_t>self._segment.ring.slot_count * RMP_SLOT_BYTES)

    @property
    def events_emitted(self) -> int:
        """How many events there were so far, those that were lost too."""
        cdef rmp_slot* counters
        cdef uint64_t newest, total
        cdef uint32_t i
        self._header()
        total = load_u64(&self._header().lost_unregistered)
        for i in range(self._segment.ring.slot_count):
            counters = rmp_ring_slot(&self._segment.ring, i)
            newest = load_u64(&counters.emitted)
            total += newest - (load_u64(&counters.controls.low) - (load_u64(&counters.controls.high) > newest))
        return max(<int64_t>total, 0)

    @property
    def ring_used_bytes(self) -> int:
        """How much of the ring events take that are not delivered yet."""
        return (self.tail - self.free_pos) * RMP_UNIT_BYTES

    @property
    def events_delivered(self) -> int:
        """How many events callbacks have been given, one that they are just given too, by the dispatcher's own words."""
        cdef rmp_slot* counters
        cdef rmp_pair passed
        cdef uint64_t newest, total
        cdef uint32_t i
        self._header()
        total = rmp_mark_count(&self._segment.ring)
        for i in range(self._segment.ring.slot_count):
            counters = rmp_ring_slot(&self._segment.ring, i)
            newest = load_u64(&counters.controls.high)
            passed = rmp_load_acquire_pair(&counters.passed)
            total += passed.low - passed.high  # without those that were lost, and without requests, which are not events:
            total -= load_u64(&counters.controls.low) - (newest > passed.low)
        return max(<int64_t>total, 0)

    @property
    def lost_unregistered(self) -> int:
        return load_u64(&self._header().lost_unregistered)

    @property
    def subscriber_errors(self) -> int:
        return load_u64(&self._header().subscriber_errors)

    def count_subscriber_error(self) -> None:
        add_u64(&self._header().subscriber_errors, 1)

    @property
    def refused_requests(self) -> int:
        return load_u64(&self._header().refused_requests)

    def count_unattached(self, uint64_t events) -> None:
        """Events are lost that a process could not emit before it could attach."""
        add_u64_ordered(&self._header().lost_unregistered, events)

    def count_refused_request(self) -> None:
        add_u64(&self._header().refused_requests, 1)

    @property
    def stalled_slot(self) -> int:
        """The slot whose unfinished record delivery waits for, 0 if none."""
        return self._slot_or_none(load_u64(&self._header().stalled_owner))

    @property
    def delivering_slot(self) -> int:
        """The slot of the record whose callbacks have not returned yet, 0 if there is none."""
        return self._slot_or_none(load_u64(&self._header().delivering_slot))

    cdef uint64_t _slot_or_none(self, uint64_t slot) noexcept:
        return slot if slot < self._segment.ring.slot_count else 0

    def slot_state(self, uint32_t slot) -> int:
        self._check_slot(slot)
        return load_u64(&rmp_ring_slot(&self._segment.ring, slot).state)

    def slot_pid(self, uint32_t slot) -> int:
        """The process that has the slot, or had it last."""
        self._check_slot(slot)
        return load_u64(&rmp_ring_slot(&self._segment.ring, slot).state) >> 32

    def slot_statuses(self) -> bytes:
        """The status of each slot (enum rmp_slot_status), a byte each."""
        cdef uint32_t i
        cdef bytes statuses
        self._header()
        statuses = PyBytes_FromStringAndSize(NULL, self._segment.ring.slot_count)
        for i in range(self._segment.ring.slot_count):
            PyBytes_AS_STRING(statuses)[i] = <char>(load_u64(&rmp_ring_slot(&self._segment.ring, i).state) & 0xFF)
        return statuses

    def slot_process(self, uint32_t slot) -> tuple:
        """(pid, start time, pid namespace) of the slot's present or last owner."""
        cdef rmp_process owner
        self._check_slot(slot)
        owner = rmp_slots_owner(&self._segment.ring, slot,
                                   load_u64(&rmp_ring_slot(&self._segment.ring, slot).state))
        return owner.pid, owner.start_time, owner.pid_namespace

    def losses(self) -> tuple:
        """`slot_losses` of all slots together, and the events of threads that found no slot."""
        cdef rmp_slot* counters
        cdef uint64_t full = 0, writer_died = 0, fenced = 0, corrupt = 0, poison = 0
        cdef uint32_t i
        self._header()
        for i in range(1, self._segment.ring.slot_count):
            counters = rmp_ring_slot(&self._segment.ring, i)
            full += load_u64(&counters.lost_full)
            writer_died += load_u64(&counters.lost_writer_died)
            fenced += load_u64(&counters.lost_fenced)
            corrupt += load_u64(&counters.lost_corrupt)
            poison += rmp_load_acquire_pair(&counters.poison).low
        return full, writer_died, fenced, corrupt, poison, self.lost_unregistered

    @property
    def has_unmarked_losses(self) -> bool:
        """Whether there are losses that no mark has told yet. Of a session whose producers have ended."""
        cdef uint32_t slot
        self._header()
        if rmp_mark_times(&self._segment.ring):
            return True
        for slot in range(self._segment.ring.slot_count):
            if rmp_slots_unmarked(&self._segment.ring, slot, RMP_MARK_ALL, 0):
                return True
        return False

    def slot_losses(self, uint32_t slot) -> tuple:
        """Events lost so far through this slot: (full, writer died, fenced, corrupt, poison)."""
        cdef rmp_slot* counters
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        return (load_u64(&counters.lost_full), load_u64(&counters.lost_writer_died), load_u64(&counters.lost_fenced),
                load_u64(&counters.lost_corrupt), rmp_load_acquire_pair(&counters.poison).low)

    def mark_dead(self, uint32_t slot, uint64_t state_seen) -> None:
        self._check_slot(slot)
        rmp_slots_mark_dead(&self._segment.ring, slot, state_seen)

    def settle(self, uint32_t slot) -> int:
        """Counts what a slot's dead process, or exited thread, emitted in vain; returns how many events that newly is."""
        self._check_slot(slot)
        return rmp_slots_settle(&self._segment.ring, slot)

    cdef int _check_slot(self, uint32_t slot) except -1:
        self._header()
        if slot == 0 or slot >= self._segment.ring.slot_count:
            raise IndexError(f"slot {slot} is outside 1..{self._segment.ring.slot_count - 1}")
        return 0

    # -- requests of a process that is not in the session: the threads of one that is have slots, see core --

    def take_slot(self) -> int:
        """A slot for the calling thread, for one request: give it back by `leave_slot`.

        Raises:
            RegistryFullError: there is none.
        """
        cdef uint32_t slot
        self._header()
        slot = rmp_slots_take(&self._segment.ring, rmp_process_self(), rmp_thread_id())
        if slot == 0:
            raise RegistryFullError("every producer slot of the session is taken; raise max_producers (RELAY_MP_MAX_PRODUCERS)")
        return slot

    def put_request(self, uint32_t slot, bytes record not None) -> int:
        """Puts a control record into the stream, by a slot that the caller has taken. Never waits.

        Returns:
            Its owner_seq, under which the reply will appear; 0: the ring is full, and nothing was put there.

        Raises:
            SessionError: the session takes nothing any more, or no record of that length.
        """
        cdef rmp_slot* counters
        cdef uint64_t owner_seq
        cdef int result
        self._check_slot(slot)
        if PyBytes_GET_SIZE(record) > <Py_ssize_t>self._segment.ring.max_payload_bytes:
            raise SessionError(f"a request of {len(record)} bytes is above the session's max_event_bytes of "
                               f"{self._segment.ring.max_payload_bytes}")
        counters = rmp_ring_slot(&self._segment.ring, slot)
        rmp_slots_count_control(counters)
        owner_seq = load_u64(&counters.emitted) + 1
        store_u64(&counters.emitted, owner_seq)
        result = rmp_ring_write(&self._segment.ring, slot, owner_seq, PyBytes_AS_STRING(record),
                                <uint32_t>PyBytes_GET_SIZE(record))
        if result == RMP_OK:
            return owner_seq
        store_u64(&counters.emitted, owner_seq - 1)
        rmp_slots_uncount_control(counters)
        if result != RMP_FULL:
            raise SessionError(f"the session of {self.path} has ended: it takes no requests any more")
        return 0

    def leave_slot(self, uint32_t slot) -> None:
        """Gives back what `take_slot` gave."""
        self._check_slot(slot)
        rmp_slots_exit(&self._segment.ring, slot)

    # -- replies to control records --

    def reply(self, uint32_t slot, uint64_t owner_seq, uint32_t code, str text not None) -> bool:
        """Answers the control record `owner_seq` of `slot`. False: the text was too long, and ends in a sign of it."""
        cdef rmp_slot* counters
        cdef bint fits
        cdef bytes encoded = text.encode("utf-8", "replace")
        self._check_slot(slot)
        fits = len(encoded) < RMP_REPLY_TEXT_BYTES
        if not fits:
            encoded = encoded[:RMP_REPLY_TEXT_BYTES - 1 - len(_REPLY_CUT)].decode("utf-8", "ignore").encode() + _REPLY_CUT
        encoded += b"\0"
        counters = rmp_ring_slot(&self._segment.ring, slot)
        memcpy(counters.reply_text, PyBytes_AS_STRING(encoded), len(encoded))
        counters.reply_code = code
        store_u64(&counters.reply_seq, owner_seq)
        return fits

    def read_reply(self, uint32_t slot) -> tuple:
        """(owner_seq, code, text) of the newest answer."""
        cdef rmp_slot* counters
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        owner_seq, code = load_u64(&counters.reply_seq), counters.reply_code
        text = PyBytes_FromStringAndSize(<const char*>counters.reply_text, RMP_REPLY_TEXT_BYTES)
        return owner_seq, code, text.split(b"\0", 1)[0].decode("utf-8", "replace")

    # -- tables of two copies: the dispatcher's subscribers, the owner's configuration --

    def store_subscriptions(self, bytes table not None) -> None:
        """Keeps the dispatcher's named subscribers for the next one, if this one dies."""
        cdef rmp_header* header = self._header()
        cdef uint64_t room = self._store_table(table, header.subscriptions, rmp_segment_subscriptions,
                                               load_u64(&header.subscriptions_bytes))
        if room:
            raise SessionError(f"the table of named subscribers needs {len(table)} bytes and has "
                               f"{max(room, 4) - 4}; register fewer, or with shorter arguments")

    def load_subscriptions(self) -> bytes | None:
        """The newest intact copy."""
        cdef rmp_header* header = self._header()
        return self._load_table(header.subscriptions, rmp_segment_subscriptions, load_u64(&header.subscriptions_bytes))

    def store_configuration(self, bytes table not None) -> int:
        """Shares the owner's configuration with all processes, which look at it at their next event.

        Only the owner stores, one thread at a time.

        Returns:
            Its version, which this process has then seen.
        """
        cdef rmp_header* header = self._header()
        cdef uint64_t room = self._store_table(table, header.configuration, rmp_segment_configuration,
                                               load_u64(&header.configuration_bytes))
        cdef uint32_t version = load_u32(&header.configuration_version) + 1
        if room:
            raise ConfigurationError(
                f"the middleware and plugins that workers are to have need {len(table)} bytes and have "
                f"{max(room, 4) - 4}; register fewer, with shorter arguments, or raise configuration_bytes "
                "(RELAY_MP_CONFIGURATION_BYTES)")
        store_u32(&header.configuration_version, version if version else 1)  # released: behind the table
        return version if version else 1

    def load_configuration(self) -> tuple:
        """(version, the newest intact copy or None): at least as new as the version."""
        cdef rmp_header* header = self._header()
        cdef uint32_t version = load_u32(&header.configuration_version)
        return version, self._load_table(header.configuration, rmp_segment_configuration,
                                         load_u64(&header.configuration_bytes))

    @property
    def configuration_told(self) -> int:
        """The newest registration of which somebody has said that workers cannot have it."""
        return load_u64(&self._header().configuration_told)

    def set_configuration_told(self, uint64_t number) -> None:
        store_u64(&self._header().configuration_told, number)

    @property
    def middleware_failures(self) -> int:
        return load_u64(&self._header().middleware_failures)

    def count_middleware_failure(self) -> None:
        add_u64_ordered(&self._header().middleware_failures, 1)

    cdef uint64_t _store_table(self, bytes table, uint64_t* words, rmp_table_at at_copy, uint64_t said) noexcept:
        """Writes the older of the two copies, then makes it the newer: a crash leaves one intact.

        Returns:
            0, or the room that there is, if it is too little.
        """
        cdef unsigned copy = 0 if (words[0] & 0xFFFFFFFF) <= (words[1] & 0xFFFFFFFF) else 1
        cdef uint64_t generation = max(words[0] & 0xFFFFFFFF, words[1] & 0xFFFFFFFF) + 1
        cdef uint8_t* at = at_copy(&self._segment, copy)
        cdef uint64_t length = PyBytes_GET_SIZE(table)
        cdef uint32_t crc = rmp_crc32c(0, PyBytes_AS_STRING(table), length)
        cdef uint64_t room = self._table_room(at, said)
        if at == NULL or length + 4 > room:
            return max(room, 1)
        store_u64(&words[copy], 0)
        memcpy(at, &crc, 4)
        memcpy(at + 4, PyBytes_AS_STRING(table), length)
        store_u64(&words[copy], (length << 32) | generation)
        return 0

    cdef bytes _load_table(self, uint64_t* words, rmp_table_at at_copy, uint64_t said):
        cdef uint64_t word
        cdef uint32_t crc
        cdef uint8_t* at
        cdef int i
        cdef unsigned newer = 0 if load_u64(&words[0]) & 0xFFFFFFFF > load_u64(&words[1]) & 0xFFFFFFFF else 1
        cdef unsigned copy
        cdef uint64_t length
        cdef bytes table
        for i in range(2):
            copy = newer ^ i
            word = load_u64(&words[copy])
            length = word >> 32
            at = at_copy(&self._segment, copy)
            if word & 0xFFFFFFFF == 0 or at == NULL or length + 4 > self._table_room(at, said):
                continue
            memcpy(&crc, at, 4)
            table = PyBytes_FromStringAndSize(<const char*>at + 4, length)
            if crc == rmp_crc32c(0, PyBytes_AS_STRING(table), length):
                return table
        return None

    cdef uint64_t _table_room(self, const uint8_t* at, uint64_t said) noexcept:
        """What the header says, which may change at any time, but never beyond what this process has mapped."""
        cdef uint64_t there = <uint64_t>(self._segment.base + self._segment.bytes - at) if at != NULL else 0
        return min(said, there)
