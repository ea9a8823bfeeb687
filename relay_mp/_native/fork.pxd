# fork.h: whether the memory of this process has come into being by a fork. What each name does is said there.

from libc.stdint cimport uint64_t


cdef extern from "fork.h" nogil:
    uint64_t rmp_fork_epoch()
