# layout.h: the segment's memory. What each name does is said there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.atomics cimport rmp_pair


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
        RMP_OWNER_ARGV_BYTES
        RMP_LAYOUT_VERSION
        RMP_OPEN
        RMP_CLOSED
        RMP_BROKEN
        RMP_CAUSES
        RMP_SLOT_LIVE
        RMP_SLOT_TAKING
        RMP_SLOT_EXITED
        RMP_SLOT_DEAD
    ctypedef struct rmp_eventcount:
        pass
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
        uint32_t is_strict
        uint64_t started_us
        uint32_t owner_argv_bytes
        char owner_argv[1024]
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
        uint64_t refused_requests
    ctypedef struct rmp_slot:
        uint64_t state
        uint64_t emitted
        uint64_t lost_full
        uint64_t cut
        uint64_t replaced
        rmp_pair controls
        uint64_t lost_writer_died
        uint64_t lost_fenced
        uint64_t lost_corrupt
        rmp_pair passed
        rmp_pair poison
        uint64_t reply_seq
        uint32_t reply_code
        char reply_text[400]
