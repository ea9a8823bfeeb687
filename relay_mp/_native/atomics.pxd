# atomics.h: memory that other threads and processes see. What each name does is said there.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "atomics.h" nogil:
    ctypedef struct rmp_pair:
        uint64_t low
        uint64_t high
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
