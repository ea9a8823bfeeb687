# cython: language_level=3, freethreading_compatible=True
"""The only binding to the native half, and the only place where a native code becomes an exception.

Data flows from `emit` into the ring (any process) and from `Reader` out of it (where the dispatcher
runs). Nothing here knows what an event means: a record is an envelope of scalars and four payloads.

When the ring is full, `emit` waits with the GIL released until the session's block_timeout has passed
(on_full="block") or gives up at once (on_full="drop", and always in the dispatcher's own thread, which
would wait for itself). What is given up is counted in the thread's registry slot.
"""
import errno as _errno
import os as _os

from relay_mp.errors import RegistryFullError, SegmentError, SessionError

include "encode.pxi"

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    int PyErr_CheckSignals() except -1


cdef extern from "process.h" nogil:
    ctypedef struct rmp_process:
        uint32_t pid
        uint64_t start_time
        uint64_t pid_namespace
    rmp_process rmp_process_self()
    uint64_t rmp_process_start_time(uint32_t pid)
    int rmp_process_liveness(rmp_process process)
    uint32_t rmp_thread_id()
    uint64_t rmp_fork_epoch()


cdef extern from "uuid7.h" nogil:
    uint64_t rmp_realtime_us()
    void rmp_uuid7(uint8_t* uuid)


cdef extern from "crc32c.h" nogil:
    uint32_t rmp_crc32c(uint32_t crc, const void* bytes, size_t length)


cdef extern from "gate.h" nogil:
    uint64_t rmp_monotonic_ns()


cdef extern from "layout.h" nogil:
    enum:
        RMP_UNIT_BYTES
        RMP_MAX_UNITS
        RMP_MIN_CAPACITY_UNITS
        RMP_RECORD_HEADER_BYTES
        RMP_SLOT_BYTES
        RMP_MAX_SLOTS
        RMP_HEADER_BYTES
        RMP_REPLY_TEXT_BYTES
        RMP_LAYOUT_VERSION
        RMP_OPEN
        RMP_SLOT_LIVE
        RMP_SLOT_TAKING
        RMP_SLOT_DEAD
    ctypedef struct rmp_pair:
        uint64_t low
        uint64_t high
    ctypedef struct rmp_header:
        uint64_t owner_start_time
        uint64_t owner_pid_namespace
        uint32_t owner_pid
        uint64_t block_timeout_ns
        uint64_t stall_timeout_ns
        uint32_t max_payload_bytes
        uint32_t drop_when_full
        uint32_t dispatcher_is_process
        char session_id[36]
        uint64_t read_pos
        uint64_t free_pos
        uint32_t session_state
        uint32_t subscribers
        uint32_t scope_locals
        uint64_t lease
        uint64_t lease_start_time
        uint64_t stalled_owner
        uint64_t subscriptions[2]
        uint64_t subscriptions_bytes
        uint64_t subscriber_errors
        uint64_t lost_unregistered
    ctypedef struct rmp_slot:
        uint64_t state
        uint64_t start_time
        uint64_t pid_namespace
        uint64_t emitted
        uint64_t lost_full
        uint64_t cut
        uint64_t lost_writer_died
        uint64_t lost_fenced
        uint64_t lost_corrupt
        uint64_t reply_seq
        uint32_t reply_code
        char reply_text[200]


cdef extern from "ring.h" nogil:
    ctypedef struct rmp_ring:
        rmp_header* header
        uint8_t* slots
        uint64_t capacity_units
        uint32_t slot_count
        uint32_t max_payload_bytes
    enum:
        RMP_OK
        RMP_FULL
        RMP_SEALED
        RMP_OVERTAKEN
        RMP_READ_EMPTY
        RMP_READ_RECORD
        RMP_READ_BLOCKED
        RMP_READ_SKIPPED
        RMP_READ_CORRUPT
        RMP_READ_BROKEN
        RMP_FENCED
    ctypedef struct rmp_reader:
        rmp_ring ring
        uint64_t cursor
        uint64_t read_pos
        uint64_t free_pos
        uint64_t fenced[64]
        uint32_t fenced_count
    ctypedef struct rmp_read:
        int kind
        int state
        uint32_t owner
        uint32_t payload_bytes
        uint64_t position
        uint64_t next
        uint64_t owner_seq
        uint64_t word
    rmp_slot* rmp_ring_slot(const rmp_ring* ring, uint32_t owner)
    int rmp_ring_write(const rmp_ring* ring, uint32_t owner, uint64_t owner_seq, const void* payload,
                       uint32_t payload_bytes)
    void rmp_ring_wait_for_space(const rmp_ring* ring, uint32_t payload_bytes, uint64_t timeout_ns)
    void rmp_ring_seal(const rmp_ring* ring)
    uint64_t rmp_ring_tail(const rmp_ring* ring)
    void rmp_ring_wait_for_delivery(const rmp_ring* ring, uint64_t position, uint64_t timeout_ns)
    void rmp_reader_open(rmp_reader* reader, const rmp_ring* ring)
    void rmp_reader_look(rmp_reader* reader, rmp_read* read)
    bint rmp_reader_copy(rmp_reader* reader, rmp_read* read, void* destination)
    void rmp_reader_advance(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_abort_dead(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_fence(rmp_reader* reader, const rmp_read* read)
    void rmp_reader_forgive(rmp_reader* reader, uint64_t position)
    void rmp_reader_delivered(rmp_reader* reader, uint64_t position)
    void rmp_reader_release(rmp_reader* reader)
    void rmp_reader_wait(rmp_reader* reader, uint64_t spin_ns, uint64_t timeout_ns)


cdef extern from "registry.h" nogil:
    void rmp_registry_mark_dead(const rmp_ring* ring, uint32_t slot, uint64_t state_seen)
    uint64_t rmp_registry_settle(const rmp_ring* ring, uint32_t slot)
    uint64_t rmp_registry_pass(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq, bint* redelivered)


cdef extern from "segment.h" nogil:
    ctypedef struct rmp_segment:
        uint8_t* base
        uint64_t bytes
        rmp_ring ring
    ctypedef struct rmp_segment_options:
        const char* session_id
        uint64_t capacity_units
        uint64_t subscriptions_bytes
        uint64_t block_timeout_ns
        uint64_t stall_timeout_ns
        uint32_t slot_count
        uint32_t max_payload_bytes
        uint32_t drop_when_full
        uint32_t dispatcher_is_process
    enum:
        RMP_SEGMENT_FOREIGN
        RMP_SEGMENT_MODE
        RMP_SEGMENT_TRUNCATED
        RMP_SEGMENT_MAGIC
        RMP_SEGMENT_VERSION
        RMP_SEGMENT_SIZES
    int rmp_segment_create(rmp_segment* segment, const char* path, const rmp_segment_options* options)
    int rmp_segment_attach(rmp_segment* segment, const char* path)
    void rmp_segment_close(rmp_segment* segment, bint in_use)
    uint8_t* rmp_segment_subscriptions(const rmp_segment* segment, unsigned copy)


cdef extern from "producer.h" nogil:
    ctypedef struct rmp_producer:
        rmp_slot* counters
        uint64_t owner_seq
        uint32_t slot
        uint32_t thread_id
        rmp_buffer buffer
    rmp_segment* rmp_attachment()
    void rmp_attachment_set(const rmp_segment* segment)
    void rmp_attachment_clear()
    void rmp_attachment_enter()
    void rmp_attachment_leave()
    rmp_producer* rmp_producer_own()


cdef extern from "atomics.h" nogil:
    uint32_t load_u32 "rmp_load_acquire"(uint32_t*)
    uint64_t load_u64 "rmp_load_acquire"(uint64_t*)
    void store_u32 "rmp_store_release"(uint32_t*, uint32_t)
    void store_u64 "rmp_store_release"(uint64_t*, uint64_t)
    uint64_t add_u64 "rmp_add_relaxed"(uint64_t*, uint64_t)
    uint64_t add_u64_ordered "rmp_add_acq_rel"(uint64_t*, uint64_t)
    bint rmp_cas_acq_rel_u64(uint64_t*, uint64_t, uint64_t)


cdef extern from *:
    """
    #include <stddef.h>
    /* Which process epoch this thread dispatches in: a fork inside a callback does not inherit it. */
    static __thread uint64_t rmp_dispatching;
    #define RMP_SLOT_FIELD(field) offsetof(rmp_slot, field)
    enum {
        rmp_at_state = RMP_SLOT_FIELD(state), rmp_at_start_time = RMP_SLOT_FIELD(start_time), rmp_at_pid_namespace = RMP_SLOT_FIELD(pid_namespace),
        rmp_at_thread_id = RMP_SLOT_FIELD(thread_id), rmp_at_retired_tail = RMP_SLOT_FIELD(retired_tail), rmp_at_emitted = RMP_SLOT_FIELD(emitted),
        rmp_at_cut = RMP_SLOT_FIELD(cut), rmp_at_lost_full = RMP_SLOT_FIELD(lost_full), rmp_at_lost_writer_died = RMP_SLOT_FIELD(lost_writer_died),
        rmp_at_lost_fenced = RMP_SLOT_FIELD(lost_fenced), rmp_at_lost_corrupt = RMP_SLOT_FIELD(lost_corrupt), rmp_at_base_emitted = RMP_SLOT_FIELD(base_emitted),
        rmp_at_base_delivered = RMP_SLOT_FIELD(base_delivered), rmp_at_base_cut = RMP_SLOT_FIELD(base_cut), rmp_at_base_lost_full = RMP_SLOT_FIELD(base_lost_full),
        rmp_at_base_lost_writer_died = RMP_SLOT_FIELD(base_lost_writer_died), rmp_at_base_lost_fenced = RMP_SLOT_FIELD(base_lost_fenced), rmp_at_base_lost_corrupt = RMP_SLOT_FIELD(base_lost_corrupt),
        rmp_at_passed = RMP_SLOT_FIELD(passed), rmp_at_passed_lost = RMP_SLOT_FIELD(passed.high),
    };
    """
    uint64_t rmp_dispatching
    enum:
        rmp_at_state, rmp_at_start_time, rmp_at_pid_namespace, rmp_at_thread_id
        rmp_at_retired_tail, rmp_at_emitted, rmp_at_cut, rmp_at_lost_full
        rmp_at_lost_writer_died, rmp_at_lost_fenced, rmp_at_lost_corrupt, rmp_at_base_emitted
        rmp_at_base_delivered, rmp_at_base_cut, rmp_at_base_lost_full, rmp_at_base_lost_writer_died
        rmp_at_base_lost_fenced, rmp_at_base_lost_corrupt, rmp_at_passed, rmp_at_passed_lost


# ---- what Python needs of the layout ----

UNIT_BYTES = RMP_UNIT_BYTES
MIN_RING_BYTES = RMP_MIN_CAPACITY_UNITS * RMP_UNIT_BYTES
MAX_EVENT_BYTES = RMP_MAX_UNITS * RMP_UNIT_BYTES - RMP_RECORD_HEADER_BYTES
MAX_PRODUCERS = RMP_MAX_SLOTS - 1
LAYOUT_VERSION = RMP_LAYOUT_VERSION
SLOT_BYTES = RMP_SLOT_BYTES
SLOT_FIELDS = {
    "state": rmp_at_state, "start_time": rmp_at_start_time, "pid_namespace": rmp_at_pid_namespace,
    "thread_id": rmp_at_thread_id, "retired_tail": rmp_at_retired_tail, "emitted": rmp_at_emitted,
    "cut": rmp_at_cut, "lost_full": rmp_at_lost_full, "lost_writer_died": rmp_at_lost_writer_died,
    "lost_fenced": rmp_at_lost_fenced, "lost_corrupt": rmp_at_lost_corrupt, "base_emitted": rmp_at_base_emitted,
    "base_delivered": rmp_at_base_delivered, "base_cut": rmp_at_base_cut, "base_lost_full": rmp_at_base_lost_full,
    "base_lost_writer_died": rmp_at_base_lost_writer_died, "base_lost_fenced": rmp_at_base_lost_fenced, "base_lost_corrupt": rmp_at_base_lost_corrupt,
    "passed": rmp_at_passed, "passed_lost": rmp_at_passed_lost,
}
STATE_CLOSED, STATE_OPEN, STATE_CLOSING = 0, 1, 2
ALIVE, DEAD, UNKNOWN = 0, 1, 2
KIND_SCOPE_START, KIND_SCOPE_END, KIND_MARK, KIND_CONTROL = 0, 1, 2, 3


# ---- processes ----

def process_self() -> tuple:
    """(pid, start time in clock ticks since boot, inode of the pid namespace) of this process."""
    cdef rmp_process own = rmp_process_self()
    return own.pid, own.start_time, own.pid_namespace


def process_start_time(pid: int) -> int:
    """Clock ticks since boot; 0 if there is no such process or no /proc."""
    return rmp_process_start_time(pid)


def process_liveness(pid: int, start_time: int, pid_namespace: int) -> int:
    """ALIVE, DEAD, or UNKNOWN where it cannot be told from here."""
    cdef rmp_process process
    process.pid = pid
    process.start_time = start_time
    process.pid_namespace = pid_namespace
    return rmp_process_liveness(process)


def fork_epoch() -> int:
    """A number that differs from the parent's in every forked child, whoever forked."""
    return rmp_fork_epoch()


def thread_id() -> int:
    """The kernel's number of the calling thread."""
    return rmp_thread_id()


def uuid7() -> bytes:
    """A new UUIDv7, 16 bytes. Any thread of any process; forked children seed anew."""
    cdef uint8_t uuid[16]
    rmp_uuid7(uuid)
    return PyBytes_FromStringAndSize(<const char*>uuid, 16)


def now_us() -> int:
    """Wall clock, microseconds since the epoch."""
    return rmp_realtime_us()


# ---- attachment ----

cdef object _resolve = None          # called once in a process that knows no session yet
cdef object _report_unregistered = None
cdef uint64_t _resolved_epoch = 0    # the process epoch in which _resolve has run


def set_hooks(resolve, report_unregistered) -> None:
    """Sets what runs when a process emits without knowing a session, and when its registry is full."""
    global _resolve, _report_unregistered
    _resolve = resolve
    _report_unregistered = report_unregistered


cdef rmp_segment* _attach_late() except? NULL:
    """Off the emit path: once per process, look for the session that the parent left word of."""
    global _resolved_epoch
    _resolved_epoch = rmp_fork_epoch()
    if _resolve is not None:
        _resolve()
    return rmp_attachment()


cdef inline rmp_segment* _attached() except? NULL:
    cdef rmp_segment* segment = rmp_attachment()
    if segment != NULL or _resolved_epoch == rmp_fork_epoch():
        return segment
    return _attach_late()


cdef inline bint _listening(rmp_segment* segment) noexcept:
    return (segment != NULL and load_u32(&segment.ring.header.session_state) == RMP_OPEN
            and load_u32(&segment.ring.header.subscribers) != 0)


def active() -> bool:
    """Whether an event emitted now would reach a subscriber."""
    return _listening(_attached())


def scope_local_active() -> bool:
    """Whether records have to carry the emitting stack."""
    cdef rmp_segment* segment = rmp_attachment()
    return segment != NULL and load_u32(&segment.ring.header.scope_locals) != 0


def set_dispatching(dispatching: bool) -> None:
    """Says whether the calling thread is the dispatcher's: it must never wait for itself."""
    global rmp_dispatching
    rmp_dispatching = rmp_fork_epoch() if dispatching else 0


def is_dispatching() -> bool:
    """Whether the calling thread is the dispatcher's (and not a fork of it)."""
    return rmp_dispatching == rmp_fork_epoch()


# ---- emit ----

cdef int _out_of_memory() except -1:
    raise MemoryError("no memory for the encoded event")


cdef inline int _checked(int code) except -1:
    return 0 if code == 0 else _out_of_memory()


cdef int _write_uuid(rmp_buffer* buffer, object uuid) except -1:
    if uuid is None:
        return _checked(rmp_write_nil(buffer))
    return _checked(rmp_write_bin(buffer, PyBytes_AS_STRING(uuid), PyBytes_GET_SIZE(uuid)))


cdef int _write_name(rmp_buffer* buffer, str name) except -1:
    cdef Py_ssize_t length
    cdef const char* text = PyUnicode_AsUTF8AndSize(<PyObject*>name, &length)
    return _checked(rmp_write_str(buffer, text, length))


cdef int _write_category(rmp_buffer* buffer, object category) except -1:
    if category is None:
        return _checked(rmp_write_nil(buffer))
    if type(category) is str:
        return _write_name(buffer, category)
    return _checked(rmp_write_int(buffer, category))


cdef int _write_payload(rmp_buffer* buffer, object value, object path) except -1:
    cdef size_t offset
    if value is None:
        return _checked(rmp_write_nil(buffer))
    _checked(rmp_bin32_begin(buffer, &offset))
    encode_value(buffer, value, path)
    return _checked(rmp_bin32_end(buffer, offset))


cdef int _cut(rmp_buffer* buffer, const size_t* ends, uint32_t limit) except -1:
    """Replaces payloads by their sizes, the largest first, until the record fits.

    `ends[0]` is where the first payload starts, `ends[i + 1]` where payload i ends.
    """
    cdef bint kept[4]
    cdef size_t total = ends[4], largest
    cdef int i, victim
    cdef rmp_buffer shorter
    for i in range(4):
        kept[i] = True
    while total > limit:
        victim, largest = -1, 40
        for i in range(4):
            if kept[i] and ends[i + 1] - ends[i] > largest:
                victim, largest = i, ends[i + 1] - ends[i]
        if victim < 0:
            break
        kept[victim] = False
        total -= largest - 40
    shorter.bytes, shorter.length, shorter.capacity = NULL, 0, 0
    try:
        _checked(rmp_write_raw(&shorter, buffer.bytes, ends[0]))
        for i in range(4):
            if kept[i]:
                _checked(rmp_write_raw(&shorter, buffer.bytes + ends[i], ends[i + 1] - ends[i]))
            else:
                _write_payload(&shorter, {"relay_mp.cut": {"bytes": ends[i + 1] - ends[i] - 5}}, "cut")
        buffer.length = 0
        _checked(rmp_write_raw(buffer, shorter.bytes, shorter.length))
    finally:
        rmp_buffer_free(&shorter)
    return 0


cdef inline uint32_t _payload_limit(const rmp_ring* ring) noexcept:
    return ring.max_payload_bytes


cdef bint _nobody_drains(const rmp_ring* ring) noexcept:
    """Whether waiting for space is waiting for nothing: the dispatcher is dead and stays dead."""
    cdef rmp_process process
    process.pid = <uint32_t>load_u64(&ring.header.lease)
    process.start_time = load_u64(&ring.header.lease_start_time)
    process.pid_namespace = ring.header.owner_pid_namespace
    if process.pid and rmp_process_liveness(process) != DEAD_CODE:
        return False
    process.pid = ring.header.owner_pid
    process.start_time = ring.header.owner_start_time
    return rmp_process_liveness(process) == DEAD_CODE


cdef int DEAD_CODE = 1


cdef int _write_waiting(const rmp_ring* shared, rmp_producer* producer, const void* payload, uint32_t length) except -1:
    """The ring was full: wait for space, GIL released, until the session's deadline."""
    cdef rmp_ring ring = shared[0]
    cdef uint32_t slot = producer.slot
    cdef uint64_t owner_seq = producer.owner_seq
    cdef uint64_t now = rmp_monotonic_ns()
    cdef uint64_t deadline = now + ring.header.block_timeout_ns
    cdef uint64_t look_for_dispatcher = now
    cdef int result = RMP_FULL
    rmp_attachment_enter()
    try:
        while now < deadline and load_u32(&ring.header.session_state) == RMP_OPEN:
            if now >= look_for_dispatcher:
                if _nobody_drains(&ring):
                    break
                look_for_dispatcher = now + 100_000_000
            with nogil:
                rmp_ring_wait_for_space(&ring, length, deadline - now)
                result = rmp_ring_write(&ring, slot, owner_seq, payload, length)
            if result != RMP_FULL:
                break
            PyErr_CheckSignals()
            now = rmp_monotonic_ns()
    finally:
        rmp_attachment_leave()
        if result == RMP_FULL:
            add_u64(&rmp_ring_slot(&ring, slot).lost_full, 1)
    return result


cdef int _commit(const rmp_ring* ring, rmp_producer* producer, rmp_buffer* buffer) except -1:
    cdef int result
    producer.owner_seq += 1
    store_u64(&producer.counters.emitted, producer.owner_seq)
    result = rmp_ring_write(ring, producer.slot, producer.owner_seq, buffer.bytes, <uint32_t>buffer.length)
    if result != RMP_FULL:
        if result == RMP_SEALED:
            add_u64(&producer.counters.lost_full, 1)
        return result
    if ring.header.drop_when_full or rmp_dispatching == rmp_fork_epoch():
        add_u64(&producer.counters.lost_full, 1)
        return result
    return _write_waiting(ring, producer, buffer.bytes, <uint32_t>buffer.length)


cdef int _emit_record(int kind, bytes uuid, object parent, int64_t timestamp_us, str name, object category,
                      unsigned int attributes, object stack, object data, object metadata, object category_profile,
                      object data_schema) except -1:
    """Encodes into the thread's buffer, then claims, copies and commits. Returns the ring's result."""
    cdef rmp_producer* producer = rmp_producer_own()
    cdef rmp_segment* segment
    cdef rmp_buffer buffer
    cdef size_t ends[5]
    cdef uint32_t limit
    cdef int result = RMP_SEALED
    if producer == NULL:
        return RMP_SEALED
    # Conversions may run user code that emits: the buffer is out of its place meanwhile.
    buffer = producer.buffer
    producer.buffer.bytes, producer.buffer.length, producer.buffer.capacity = NULL, 0, 0
    buffer.length = 0
    try:
        _checked(rmp_write_array_header(&buffer, 13))
        _checked(rmp_write_int(&buffer, kind))
        _write_uuid(&buffer, uuid)
        _write_uuid(&buffer, parent)
        _checked(rmp_write_int(&buffer, timestamp_us))
        _write_name(&buffer, name)
        _write_category(&buffer, category)
        _checked(rmp_write_int(&buffer, attributes))
        _checked(rmp_write_int(&buffer, producer.thread_id))
        _write_uuid(&buffer, stack)
        ends[0] = buffer.length
        _write_payload(&buffer, data, "data")
        ends[1] = buffer.length
        _write_payload(&buffer, metadata, "metadata")
        ends[2] = buffer.length
        _write_payload(&buffer, category_profile, "category_profile")
        ends[3] = buffer.length
        _write_payload(&buffer, data_schema, "data_schema")
        ends[4] = buffer.length
        # User code may have run: the session may have ended, or this may be a forked child now.
        segment = rmp_attachment()
        producer = rmp_producer_own()
        if segment == NULL or producer == NULL:
            return RMP_SEALED
        if producer.slot == 0:
            add_u64_ordered(&segment.ring.header.lost_unregistered, 1)
            if _report_unregistered is not None:
                _report_unregistered()
            return RMP_FULL
        limit = _payload_limit(&segment.ring)
        if buffer.length > limit:
            if ends[0] + 200 > limit:
                return _emit_record(kind, uuid, parent, timestamp_us, name[:limit // 16], None if type(category) is str
                                    else category, attributes, None, {"relay_mp.cut": {"bytes": buffer.length}},
                                    None, None, None)
            _cut(&buffer, ends, limit)
            add_u64(&producer.counters.cut, 1)
        result = _commit(&segment.ring, producer, &buffer)
        return result
    finally:
        producer = rmp_producer_own()
        if producer != NULL and producer.buffer.bytes == NULL:
            producer.buffer = buffer
        else:
            rmp_buffer_free(&buffer)


def emit(int kind, bytes uuid not None, parent, timestamp_us, int64_t not_before_us, str name not None, category,
         unsigned int attributes, stack, data, metadata, category_profile, data_schema):
    """Encodes one event and commits it to the ring: once this has returned, it survives the process.

    When the ring is full: see the module's text. Any thread of any process; fork-safe; no lock, no I/O.

    Args:
        kind: KIND_SCOPE_START, KIND_SCOPE_END or KIND_MARK.
        uuid, parent: 16 bytes; parent may be None.
        timestamp_us: microseconds since the epoch; None: now, but not before `not_before_us`.
        category: None, an index into types.CATEGORIES, or a name.
        stack: uuids of the emitting stack, 16 bytes each, innermost first, or None.

    Returns:
        The timestamp used; 0 when nobody listens, in which case nothing was looked at.

    Raises:
        PayloadError: a payload cannot be encoded; nothing was emitted.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    cdef int64_t timestamp
    if not _listening(_attached()):
        return 0
    if timestamp_us is None:
        timestamp = <int64_t>rmp_realtime_us()
        if timestamp < not_before_us:
            timestamp = not_before_us
    else:
        timestamp = timestamp_us
    _emit_record(kind, uuid, parent, timestamp, name, category, attributes, stack, data, metadata, category_profile,
                 data_schema)
    return timestamp


def emit_control(name: str, data) -> tuple:
    """Puts a request to the dispatcher into the stream, whether or not anybody subscribes.

    Returns:
        (slot, owner_seq) under which the reply will appear.

    Raises:
        SessionError: not attached, the session ended, or the ring stayed full.
        RegistryFullError: no slot left.
    """
    cdef rmp_producer* producer
    cdef int result = _emit_record(KIND_CONTROL_CODE, uuid7(), None, <int64_t>rmp_realtime_us(), name, None, 0, None,
                                   data, None, None, None)
    producer = rmp_producer_own()
    if producer != NULL and producer.slot == 0:
        raise RegistryFullError("every producer slot of the session is taken; raise max_producers (RELAY_MP_MAX_PRODUCERS)")
    if producer == NULL or result != RMP_OK:
        raise SessionError(f"the request {name!r} did not reach the dispatcher: the session has ended or its ring stayed full")
    return producer.slot, producer.owner_seq


cdef int KIND_CONTROL_CODE = 3


# ---- segments ----

cdef dict _REFUSALS = {
    RMP_SEGMENT_FOREIGN: "belongs to another user; only segments of the own uid are attached",
    RMP_SEGMENT_MODE: "is not a regular file of mode 0600; it may have been tampered with",
    RMP_SEGMENT_TRUNCATED: "is shorter than its header says; it was truncated or is still being made",
    RMP_SEGMENT_MAGIC: "is no relay_mp segment, or not a finished one",
    RMP_SEGMENT_VERSION: f"has another layout version than {RMP_LAYOUT_VERSION}; use one relay_mp version in all processes",
    RMP_SEGMENT_SIZES: "has sizes in its header that contradict each other or the file",
}


cdef int _check_segment(int code, str path, str doing) except -1:
    """Turns a native result into the exception for it."""
    if code == 0:
        return 0
    if code > 0:
        raise SegmentError(f"{path} {_REFUSALS[code]}")
    if -code == _errno.ENOENT:
        raise SegmentError(f"there is no segment {path}: its session has ended, or never was on this machine")
    if -code == _errno.ENOSPC:
        raise SegmentError(f"no room for {path} in the file system of {_os.path.dirname(path)}: "
                           "make the ring smaller (ring_bytes, RELAY_MP_RING_BYTES) or free shared memory")
    raise SegmentError(f"{doing} {path} failed: {_os.strerror(-code)} (errno {-code})")


cdef class Segment:
    """A mapped session file. Created by the owner, attached by everybody else.

    Args of `create` are validated by relay_mp._session.settings; sizes in bytes, times in nanoseconds.
    """
    cdef rmp_segment _segment
    cdef bint _open
    cdef bint _current
    cdef readonly str path

    @staticmethod
    def create(str path not None, *, str session_id not None, ring_bytes: int, max_producers: int, max_event_bytes: int,
               subscriptions_bytes: int, block_timeout_ns: int, stall_timeout_ns: int, drop_when_full: bool,
               dispatcher_is_process: bool) -> Segment:
        cdef Segment self = Segment.__new__(Segment)
        cdef rmp_segment_options options
        cdef bytes native_path = _os.fsencode(path)
        cdef bytes native_id = session_id.encode()
        options.session_id = native_id
        options.capacity_units = ring_bytes // RMP_UNIT_BYTES
        options.subscriptions_bytes = subscriptions_bytes
        options.block_timeout_ns = block_timeout_ns
        options.stall_timeout_ns = stall_timeout_ns
        options.slot_count = max_producers + 1
        options.max_payload_bytes = max_event_bytes
        options.drop_when_full = drop_when_full
        options.dispatcher_is_process = dispatcher_is_process
        _check_segment(rmp_segment_create(&self._segment, native_path, &options), path, "creating")
        self.path = path
        self._open = True
        return self

    @staticmethod
    def attach(str path not None) -> Segment:
        cdef Segment self = Segment.__new__(Segment)
        cdef bytes native_path = _os.fsencode(path)
        _check_segment(rmp_segment_attach(&self._segment, native_path), path, "attaching to")
        self.path = path
        self._open = True
        return self

    cdef rmp_header* _header(self) except NULL:
        if not self._open:
            raise SessionError(f"the session of {self.path} is closed in this process")
        return self._segment.ring.header

    def make_current(self) -> None:
        """Emits of this process go here from now on."""
        self._header()
        rmp_attachment_set(&self._segment)
        self._current = True

    def close(self) -> None:
        """Unmaps. Idempotent. The file stays until `unlink`."""
        if not self._open:
            return
        self._open = False
        if self._current:
            rmp_attachment_clear()
        else:
            rmp_segment_close(&self._segment, False)

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
    def state(self) -> int:
        return load_u32(&self._header().session_state)

    def set_state(self, state: int) -> None:
        store_u32(&self._header().session_state, state)

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
        """Sleeps, GIL released, until delivery reaches `position` or at most 50 ms."""
        cdef rmp_ring ring
        cdef uint64_t timeout_ns = <uint64_t>(max(timeout_seconds, 0.0) * 1e9)
        cdef bint done
        self._header()
        ring = self._segment.ring
        rmp_attachment_enter()
        with nogil:
            rmp_ring_wait_for_delivery(&ring, position, timeout_ns)
            done = load_u64(&ring.header.read_pos) >= position
        rmp_attachment_leave()
        return done

    # -- the dispatcher's lease --

    def lease(self) -> tuple:
        """(word, pid, start time) of who dispatches; pid 0: nobody has yet."""
        cdef rmp_header* header = self._header()
        cdef uint64_t word = load_u64(&header.lease)
        return word, word & 0xFFFFFFFF, load_u64(&header.lease_start_time)

    def take_lease(self, uint64_t seen) -> bool:
        """Becomes the dispatcher if the lease is still `seen`, whose holder the caller found dead."""
        cdef rmp_header* header = self._header()
        cdef rmp_process own = rmp_process_self()
        cdef uint64_t next_word = (((seen >> 32) + 1) << 32) | own.pid
        if not rmp_cas_acq_rel_u64(&header.lease, seen, next_word):
            return False
        store_u64(&header.lease_start_time, own.start_time)
        return True

    # -- registry --

    def registry(self) -> bytes:
        """A copy of all slots (SLOT_BYTES each, fields at SLOT_FIELDS), for NumPy to look at."""
        self._header()
        return PyBytes_FromStringAndSize(<const char*>self._segment.ring.slots,
                                         <Py_ssize_t>self._segment.ring.slot_count * RMP_SLOT_BYTES)

    @property
    def lost_unregistered(self) -> int:
        return load_u64(&self._header().lost_unregistered)

    @property
    def subscriber_errors(self) -> int:
        return load_u64(&self._header().subscriber_errors)

    def count_subscriber_error(self) -> None:
        add_u64(&self._header().subscriber_errors, 1)

    @property
    def stalled_slot(self) -> int:
        """The slot whose unfinished record delivery waits for, 0 if none."""
        return load_u64(&self._header().stalled_owner)

    def slot_state(self, uint32_t slot) -> int:
        self._check_slot(slot)
        return load_u64(&rmp_ring_slot(&self._segment.ring, slot).state)

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
        cdef rmp_slot* counters
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        return load_u64(&counters.state) >> 32, load_u64(&counters.start_time), load_u64(&counters.pid_namespace)

    def slot_losses(self, uint32_t slot) -> tuple:
        """Events lost so far through this slot: (full, writer died, fenced, corrupt)."""
        cdef rmp_slot* counters
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        return (load_u64(&counters.lost_full), load_u64(&counters.lost_writer_died), load_u64(&counters.lost_fenced),
                load_u64(&counters.lost_corrupt))

    def mark_dead(self, uint32_t slot, uint64_t state_seen) -> None:
        self._check_slot(slot)
        rmp_registry_mark_dead(&self._segment.ring, slot, state_seen)

    def settle(self, uint32_t slot) -> int:
        """Counts what a dead slot's process never delivered; returns how many events that newly is."""
        self._check_slot(slot)
        return rmp_registry_settle(&self._segment.ring, slot)

    cdef int _check_slot(self, uint32_t slot) except -1:
        self._header()
        if slot == 0 or slot >= self._segment.ring.slot_count:
            raise IndexError(f"slot {slot} is outside 1..{self._segment.ring.slot_count - 1}")
        return 0

    # -- replies to control records --

    def reply(self, uint32_t slot, uint64_t owner_seq, uint32_t code, str text not None) -> None:
        """Answers the control record `owner_seq` of `slot`."""
        cdef rmp_slot* counters
        cdef bytes encoded = text.encode("utf-8", "replace")[:RMP_REPLY_TEXT_BYTES - 1] + b"\0"
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        memcpy(counters.reply_text, PyBytes_AS_STRING(encoded), len(encoded))
        counters.reply_code = code
        store_u64(&counters.reply_seq, owner_seq)

    def read_reply(self, uint32_t slot) -> tuple:
        """(owner_seq, code, text) of the newest answer."""
        cdef rmp_slot* counters
        self._check_slot(slot)
        counters = rmp_ring_slot(&self._segment.ring, slot)
        owner_seq = load_u64(&counters.reply_seq)
        text = (<bytes>counters.reply_text[:RMP_REPLY_TEXT_BYTES]).split(b"\0", 1)[0]
        return owner_seq, counters.reply_code, text.decode("utf-8", "replace")

    # -- the dispatcher's subscriber table --

    def store_subscriptions(self, bytes table not None) -> None:
        """Writes the older of the two copies, then makes it the newer: a crash leaves one intact."""
        cdef rmp_header* header = self._header()
        cdef unsigned copy = 0 if (header.subscriptions[0] & 0xFFFFFFFF) <= (header.subscriptions[1] & 0xFFFFFFFF) else 1
        cdef uint64_t generation = max(header.subscriptions[0] & 0xFFFFFFFF, header.subscriptions[1] & 0xFFFFFFFF) + 1
        cdef uint8_t* at = rmp_segment_subscriptions(&self._segment, copy)
        cdef uint32_t crc = rmp_crc32c(0, PyBytes_AS_STRING(table), len(table))
        if at == NULL or len(table) + 4 > header.subscriptions_bytes:
            raise SessionError(f"the table of named subscribers needs {len(table)} bytes and has "
                               f"{header.subscriptions_bytes - 4}; register fewer, or with shorter arguments")
        store_u64(&header.subscriptions[copy], 0)
        memcpy(at, &crc, 4)
        memcpy(at + 4, PyBytes_AS_STRING(table), len(table))
        store_u64(&header.subscriptions[copy], (<uint64_t>len(table) << 32) | generation)

    def load_subscriptions(self) -> bytes | None:
        """The newest intact copy."""
        cdef rmp_header* header = self._header()
        cdef uint64_t word
        cdef uint32_t crc
        cdef uint8_t* at
        words = sorted(((load_u64(&header.subscriptions[i]) & 0xFFFFFFFF, i) for i in range(2)), reverse=True)
        for generation, copy in words:
            word = load_u64(&header.subscriptions[<int>copy])
            length = word >> 32
            at = rmp_segment_subscriptions(&self._segment, copy)
            if generation == 0 or at == NULL or length + 4 > header.subscriptions_bytes:
                continue
            memcpy(&crc, at, 4)
            table = PyBytes_FromStringAndSize(<const char*>at + 4, length)
            if crc == rmp_crc32c(0, PyBytes_AS_STRING(table), length):
                return table
        return None


cdef class Reader:
    """Takes records out of a segment, in order. For the holder of the lease only; one thread.

    A record stays in the ring until `done` says that its callbacks have returned.
    """
    cdef Segment _segment
    cdef rmp_reader _reader
    cdef rmp_read _blocked
    cdef uint64_t _blocked_since_ns

    def __init__(self, Segment segment not None):
        segment._header()
        self._segment = segment
        rmp_reader_open(&self._reader, &segment._segment.ring)

    def next_batch(self, int limit, double timeout_seconds) -> list:
        """Up to `limit` records: (payload, seq, next position, slot, owner_seq) each.

        Waits, GIL released, up to `timeout_seconds` (at most 50 ms) for the first. An empty list means
        that there was none; `blocked_slot` tells if one was claimed and is not finished.
        """
        cdef list batch = []
        self._segment._header()
        self._fill(batch, limit)
        if not batch:
            self._wait(timeout_seconds)
            self._segment._header()
            self._fill(batch, limit)
        return batch

    cdef int _wait(self, double timeout_seconds) except -1:
        cdef uint64_t timeout_ns = <uint64_t>(max(timeout_seconds, 0.0) * 1e9)
        if self._blocked.kind == RMP_READ_BLOCKED and timeout_ns > 2_000_000:
            timeout_ns = 2_000_000  # a dead writer is found this soon
        rmp_attachment_enter()
        with nogil:
            rmp_reader_wait(&self._reader, 5000, timeout_ns)
        rmp_attachment_leave()
        return 0

    cdef int _fill(self, list batch, int limit) except -1:
        cdef rmp_read read
        cdef bytes payload
        while limit > 0:
            rmp_reader_look(&self._reader, &read)
            if read.kind == RMP_READ_RECORD:
                payload = PyBytes_FromStringAndSize(NULL, read.payload_bytes)
                if rmp_reader_copy(&self._reader, &read, PyBytes_AS_STRING(payload)):
                    batch.append((payload, read.position * RMP_UNIT_BYTES + RMP_UNIT_BYTES - 1, read.next, read.owner,
                                  read.owner_seq))
                    limit -= 1
                else:
                    add_u64(&rmp_ring_slot(&self._reader.ring, read.owner).lost_corrupt, 1)
            elif read.kind == RMP_READ_SKIPPED and read.state == RMP_FENCED:
                pass  # counted when it was fenced
            elif read.kind == RMP_READ_EMPTY or read.kind == RMP_READ_BLOCKED or read.kind == RMP_READ_BROKEN:
                self._note_blocked(&read)
                if read.kind == RMP_READ_BROKEN:
                    raise SegmentError(f"the ring of {self._segment.path} is damaged beyond reading: its tail and its "
                                       "read position contradict each other")
                return 0
            rmp_reader_advance(&self._reader, &read)
        return 0

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
        cdef uint32_t i
        self._segment._header()
        return [(self._reader.fenced[i], self._fenced_owner(self._reader.fenced[i])) for i in range(self._reader.fenced_count)]

    cdef uint32_t _fenced_owner(self, uint64_t position) noexcept:
        cdef rmp_read read
        cdef rmp_reader at = self._reader
        at.cursor = position
        rmp_reader_look(&at, &read)
        return read.owner

    def forgive(self, uint64_t position) -> None:
        """The writer of the fenced record at `position` is dead: its space may be used again."""
        self._segment._header()
        rmp_reader_forgive(&self._reader, position)

    def begin(self, uint32_t slot, uint64_t owner_seq) -> int:
        """A record's callbacks are about to run.

        Returns:
            How many events of the same producer before it never arrived; -1 if this one was begun
            before by a dispatcher that died.
        """
        cdef bint redelivered = False
        cdef uint64_t missing
        self._segment._header()
        missing = rmp_registry_pass(&self._reader.ring, slot, owner_seq, &redelivered)
        return -1 if redelivered else <int64_t>missing

    def done(self, uint64_t next_position) -> None:
        """A record's callbacks have returned."""
        self._segment._header()
        rmp_reader_delivered(&self._reader, next_position)
        if next_position - self._reader.free_pos >= self._reader.ring.capacity_units >> 4:
            rmp_reader_release(&self._reader)

    def end_batch(self) -> None:
        """All of the batch is done, and what was skipped behind it: hand its space back."""
        self._segment._header()
        if self._reader.cursor != self._reader.read_pos:
            rmp_reader_delivered(&self._reader, self._reader.cursor)
        rmp_reader_release(&self._reader)
