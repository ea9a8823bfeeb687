# segment.h: a session's file in shared memory. What each name does is said there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.ring cimport rmp_ring


cdef extern from "segment.h" nogil:
    ctypedef struct rmp_segment:
        uint8_t* base
        uint64_t bytes
        uint32_t* users
        rmp_ring ring
        uint32_t found_version
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
        uint32_t is_strict
        uint64_t started_us
        uint32_t owner_argv_bytes
        const char* owner_argv
    enum:
        RMP_SEGMENT_FOREIGN
        RMP_SEGMENT_MODE
        RMP_SEGMENT_TRUNCATED
        RMP_SEGMENT_MAGIC
        RMP_SEGMENT_VERSION
        RMP_SEGMENT_SIZES
    int rmp_segment_create(rmp_segment* segment, const char* path, const rmp_segment_options* options)
    int rmp_segment_attach(rmp_segment* segment, const char* path)
    int rmp_segment_attach_file(rmp_segment* segment, int file)
    void rmp_segment_keep(const rmp_segment* segment)
    void rmp_segment_close(rmp_segment* segment, bint range_stays)
    uint8_t* rmp_segment_subscriptions(const rmp_segment* segment, unsigned copy)
    uint8_t* rmp_segment_configuration(const rmp_segment* segment, unsigned copy)
