# What the reader needs of a segment. segments.pyx is where it is written and explained.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.layout cimport rmp_header
from relay_mp._native.segment cimport rmp_segment

# Where a copy of one of the segment's tables is.
ctypedef uint8_t* (*rmp_table_at)(const rmp_segment* segment, unsigned copy) noexcept nogil


cdef class Segment:
    cdef rmp_segment _segment
    cdef bint _open
    cdef bint _current
    cdef int _file
    cdef tuple _identity
    cdef bint _has_file(self)
    cdef readonly str path
    cdef rmp_header* _header(self) except NULL
    cdef int _check_slot(self, uint32_t slot) except -1
    cdef uint64_t _slot_or_none(self, uint64_t slot) noexcept
    cdef uint64_t _store_table(self, bytes table, uint64_t* words, rmp_table_at at_copy, uint64_t said) noexcept
    cdef bytes _load_table(self, uint64_t* words, rmp_table_at at_copy, uint64_t said)
    cdef uint64_t _table_room(self, const uint8_t* at, uint64_t said) noexcept
