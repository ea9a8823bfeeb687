# crc32c.h: records' checksums. What each name does is said there.

from libc.stdint cimport uint32_t


cdef extern from "crc32c.h" nogil:
    uint32_t rmp_crc32c(uint32_t crc, const void* bytes, size_t length)
