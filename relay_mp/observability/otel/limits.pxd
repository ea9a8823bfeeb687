# How many attributes there may be and how long their texts may be, applied to what is written. See limits.pyx.

from libc.stdint cimport uint8_t

from relay_mp._native.encode cimport rmp_buffer


cdef class AttributeLimits:
    cdef Py_ssize_t _max_count, _max_characters  # -1: none
    cdef rmp_buffer _shortened

    cdef Py_ssize_t apply(self, rmp_buffer* out, size_t first) except -1

    cdef Py_ssize_t _drop(self, rmp_buffer* out, size_t first) noexcept
    cdef int _copy_pairs(self, const uint8_t* at, const uint8_t* end) except -1
    cdef int _copy_pair(self, const uint8_t* at, const uint8_t* end) except -1
    cdef int _copy_value(self, const uint8_t* at, const uint8_t* end) except -1
    cdef int _copy_values(self, const uint8_t* at, const uint8_t* end) except -1
    cdef int _copy_field(self, uint8_t tag, const uint8_t* at, size_t size) except -1
