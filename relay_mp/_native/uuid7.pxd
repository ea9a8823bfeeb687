# uuid7.h: ids, and the wall clock that is in them. What each name does is said there.

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "uuid7.h" nogil:
    uint64_t rmp_realtime_us()
    void rmp_uuid7(uint8_t* uuid, uint64_t now_us)
