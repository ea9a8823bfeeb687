# process.h: processes: who this is, and whether another lives. What each name does is said there.

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "process.h" nogil:
    ctypedef struct rmp_process:
        uint32_t pid
        uint64_t start_time
        uint64_t pid_namespace
    rmp_process rmp_process_self()
    int rmp_process_liveness(rmp_process process)
