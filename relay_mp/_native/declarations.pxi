# What the C half offers, as Cython has to be told. Included textually by core.pyx.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
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
    int rmp_process_liveness(rmp_process process)
    uint32_t rmp_thread_id()
    uint64_t rmp_fork_epoch()
    bint rmp_boot_id(char* id, size_t room)


cdef extern from "uuid7.h" nogil:
    uint64_t rmp_realtime_us()
    void rmp_uuid7(uint8_t* uuid, uint64_t now_us)


cdef extern from "crc32c.h" nogil:
    uint32_t rmp_crc32c(uint32_t crc, const void* bytes, size_t length)


cdef extern from "eventcount.h" nogil:
    ctypedef struct rmp_eventcount:
        pass
    uint64_t rmp_monotonic_ns()
    void rmp_eventcount_call(rmp_eventcount* eventcount)


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
        RMP_CLOSED
        RMP_BROKEN
        RMP_CAUSES
        RMP_SLOT_LIVE
        RMP_SLOT_TAKING
        RMP_SLOT_EXITED
        RMP_SLOT_DEAD
    ctypedef struct rmp_pair:
        uint64_t low
        uint64_t high
    ctypedef struct rmp_mark:
        uint64_t seq
        uint64_t begun
        uint64_t slot
        uint64_t pid
        uint64_t timestamp_us
        uint8_t uuid[16]
        uint64_t lost[5]
    ctypedef struct rmp_header:
        uint64_t owner_start_time
        uint64_t owner_pid_namespace
        uint32_t owner_pid
        uint64_t block_timeout_ns
        uint64_t stall_timeout_ns
        uint32_t max_payload_bytes
        uint32_t drop_when_full
        uint32_t dispatcher_is_process
        uint32_t max_deliveries
        char session_id[36]
        uint64_t read_pos
        uint64_t free_pos
        uint32_t session_state
        uint32_t subscribers
        uint32_t scope_locals
        uint32_t configuration_version
        rmp_eventcount data
        rmp_pair lease
        uint64_t stalled_owner
        uint64_t delivering_slot
        uint64_t subscriptions[2]
        uint64_t subscriptions_bytes
        uint64_t subscriber_errors
        uint64_t lost_unregistered
        rmp_mark mark
        uint64_t configuration[2]
        uint64_t configuration_bytes
        uint64_t configuration_told
        uint64_t middleware_failures
    ctypedef struct rmp_slot:
        uint64_t state
        uint64_t emitted
        uint64_t lost_full
        uint64_t cut
        rmp_pair controls
        uint64_t lost_writer_died
        uint64_t lost_fenced
        uint64_t lost_corrupt
        rmp_pair passed
        rmp_pair poison
        uint64_t reply_seq
        uint32_t reply_code
        char reply_text[400]


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
    void rmp_ring_mark_broken(const rmp_ring* ring)
    void rmp_ring_finish_salvage(const rmp_ring* ring)
    uint64_t rmp_ring_tail(const rmp_ring* ring)
    void rmp_ring_wait_for_delivery(const rmp_ring* ring, uint64_t position, uint64_t timeout_ns)
    void rmp_reader_open(rmp_reader* reader, const rmp_ring* ring)
    void rmp_reader_look(rmp_reader* reader, rmp_read* read)
    bint rmp_reader_salvage(rmp_reader* reader)
    bint rmp_reader_copy(rmp_reader* reader, rmp_read* read, void* destination)
    void rmp_reader_advance(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_abort_dead(rmp_reader* reader, const rmp_read* read)
    bint rmp_reader_fence(rmp_reader* reader, const rmp_read* read)
    void rmp_reader_release_fenced(rmp_reader* reader, uint64_t position)
    void rmp_reader_delivered(rmp_reader* reader, uint64_t position)
    void rmp_reader_release(rmp_reader* reader)
    void rmp_reader_rest(rmp_reader* reader, uint64_t spin_ns, uint64_t until_ns)
    bint rmp_reader_nap(rmp_reader* reader, uint64_t since_ns, uint64_t until_ns)


cdef extern from "slots.h" nogil:
    rmp_process rmp_slots_owner(const rmp_ring* ring, uint32_t slot, uint64_t state_seen)
    void rmp_slots_mark_dead(const rmp_ring* ring, uint32_t slot, uint64_t state_seen)
    uint64_t rmp_slots_settle(const rmp_ring* ring, uint32_t slot)
    void rmp_slots_write_off(const rmp_ring* ring, uint32_t slot)
    uint64_t rmp_slots_missing(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    void rmp_slots_count_control(rmp_slot* slot)
    void rmp_slots_uncount_control(rmp_slot* slot)
    uint32_t rmp_slots_pass(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    bint rmp_slots_give_up(const rmp_ring* ring, uint32_t slot, uint64_t owner_seq)
    enum:
        RMP_MARK_PASSED
        RMP_MARK_ALL
    uint64_t rmp_slots_unmarked(const rmp_ring* ring, uint32_t slot, int part, uint64_t missing)
    void rmp_mark_prepare(const rmp_ring* ring, uint32_t slot, uint64_t count, uint64_t seq, uint64_t timestamp_us,
                          const uint8_t* uuid)
    uint64_t rmp_mark_begin(const rmp_ring* ring)
    uint64_t rmp_mark_times(const rmp_ring* ring)
    uint64_t rmp_mark_count(const rmp_ring* ring)
    void rmp_mark_done(const rmp_ring* ring)


cdef extern from "segment.h" nogil:
    ctypedef struct rmp_segment:
        uint8_t* base
        uint64_t bytes
        rmp_ring ring
    ctypedef struct rmp_segment_options:
        const char* session_id
        uint64_t capacity_units
        uint64_t subscriptions_bytes
        uint64_t configuration_bytes
        uint64_t block_timeout_ns
        uint64_t stall_timeout_ns
        uint32_t slot_count
        uint32_t max_payload_bytes
        uint32_t drop_when_full
        uint32_t dispatcher_is_process
        uint32_t max_deliveries
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
    uint8_t* rmp_segment_configuration(const rmp_segment* segment, unsigned copy)


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
    bint rmp_attachment_in_use()
    bint rmp_free_threaded
    rmp_producer* rmp_producer_own()


cdef extern from "atomics.h" nogil:
    uint32_t load_u32 "rmp_load_acquire"(uint32_t*)
    uint32_t load_u32_relaxed "rmp_load_relaxed"(uint32_t*)
    uint64_t load_u64 "rmp_load_acquire"(uint64_t*)
    void store_u32 "rmp_store_release"(uint32_t*, uint32_t)
    void store_u64 "rmp_store_release"(uint64_t*, uint64_t)
    uint64_t add_u64 "rmp_add_relaxed"(uint64_t*, uint64_t)
    uint64_t add_u64_ordered "rmp_add_acq_rel"(uint64_t*, uint64_t)
    rmp_pair rmp_load_acquire_pair(const rmp_pair*)
    bint rmp_cas_u32 "rmp_cas_acq_rel_u32"(uint32_t*, uint32_t, uint32_t)
    bint rmp_cas_acq_rel_pair(rmp_pair*, rmp_pair, rmp_pair)


cdef extern from *:
    """
    #include <stddef.h>
    /* Which process epoch this thread dispatches in: a fork inside a callback does not inherit it. */
    static __thread uint64_t rmp_dispatching;
    #ifdef Py_GIL_DISABLED
    #define RMP_WITHOUT_GIL 1
    #else
    #define RMP_WITHOUT_GIL 0
    #endif
    #define RMP_SLOT_FIELD(field) offsetof(rmp_slot, field)
    enum {
        rmp_at_state = RMP_SLOT_FIELD(state), rmp_at_start_time = RMP_SLOT_FIELD(start_time), rmp_at_pid_namespace = RMP_SLOT_FIELD(pid_namespace),
        rmp_at_thread_id = RMP_SLOT_FIELD(thread_id), rmp_at_retired_tail = RMP_SLOT_FIELD(retired_tail), rmp_at_emitted = RMP_SLOT_FIELD(emitted),
        rmp_at_cut = RMP_SLOT_FIELD(cut), rmp_at_controls = RMP_SLOT_FIELD(controls), rmp_at_control_seq = RMP_SLOT_FIELD(controls.high),
        rmp_at_base_controls = RMP_SLOT_FIELD(base_controls), rmp_at_lost_full = RMP_SLOT_FIELD(lost_full), rmp_at_lost_writer_died = RMP_SLOT_FIELD(lost_writer_died),
        rmp_at_lost_fenced = RMP_SLOT_FIELD(lost_fenced), rmp_at_lost_corrupt = RMP_SLOT_FIELD(lost_corrupt), rmp_at_base_emitted = RMP_SLOT_FIELD(base_emitted),
        rmp_at_base_delivered = RMP_SLOT_FIELD(base_delivered), rmp_at_base_cut = RMP_SLOT_FIELD(base_cut), rmp_at_base_lost_full = RMP_SLOT_FIELD(base_lost_full),
        rmp_at_base_lost_writer_died = RMP_SLOT_FIELD(base_lost_writer_died), rmp_at_base_lost_fenced = RMP_SLOT_FIELD(base_lost_fenced), rmp_at_base_lost_corrupt = RMP_SLOT_FIELD(base_lost_corrupt),
        rmp_at_passed = RMP_SLOT_FIELD(passed), rmp_at_passed_lost = RMP_SLOT_FIELD(passed.high),
        rmp_at_lost_poison = RMP_SLOT_FIELD(poison.low), rmp_at_base_lost_poison = RMP_SLOT_FIELD(base_lost_poison),
    };
    """
    uint64_t rmp_dispatching
    bint RMP_WITHOUT_GIL
    enum:
        rmp_at_state, rmp_at_start_time, rmp_at_pid_namespace, rmp_at_thread_id
        rmp_at_retired_tail, rmp_at_emitted, rmp_at_cut, rmp_at_lost_full
        rmp_at_lost_writer_died, rmp_at_lost_fenced, rmp_at_lost_corrupt, rmp_at_base_emitted
        rmp_at_base_delivered, rmp_at_base_cut, rmp_at_base_lost_full, rmp_at_base_lost_writer_died
        rmp_at_base_lost_fenced, rmp_at_base_lost_corrupt, rmp_at_passed, rmp_at_passed_lost, rmp_at_controls, rmp_at_control_seq, rmp_at_base_controls
        rmp_at_lost_poison, rmp_at_base_lost_poison
