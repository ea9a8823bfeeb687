# producer.h: which session this process emits to, and each thread's place in it. What each name does is said there.

from libc.stdint cimport uint32_t, uint64_t

from relay_mp._native.encode cimport rmp_buffer
from relay_mp._native.layout cimport rmp_slot
from relay_mp._native.segment cimport rmp_segment


cdef extern from "producer.h" nogil:
    ctypedef struct rmp_producer:
        uint64_t attachment
        rmp_slot* counters
        uint64_t owner_seq
        uint32_t slot
        uint32_t thread_id
        rmp_buffer buffer
    rmp_segment* rmp_attachment()
    void rmp_attachment_set(const rmp_segment* segment)
    void rmp_attachment_clear()
    rmp_segment* rmp_attachment_of(const rmp_producer* producer)
    uint64_t rmp_attachment_number()
    ctypedef struct rmp_wait:
        rmp_segment segment
        uint64_t attachment
    rmp_wait rmp_wait_begin()
    rmp_producer* rmp_wait_place(const rmp_wait* wait)
    void rmp_wait_end(rmp_wait* wait)
    bint rmp_free_threaded
    rmp_producer* rmp_producer_own()
