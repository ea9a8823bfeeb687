# eventcount.h: waiting for news in shared memory. What each name does is said there.

from libc.stdint cimport uint64_t

from relay_mp._native.layout cimport rmp_eventcount


cdef extern from "eventcount.h" nogil:
    uint64_t rmp_monotonic_ns()
    void rmp_eventcount_call(rmp_eventcount* eventcount)
