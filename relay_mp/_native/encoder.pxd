# What the core calls of the encoder. encoder.pyx is where it is written and explained.

from libc.stdint cimport uint64_t

from relay_mp._native.encode cimport rmp_buffer

cdef uint64_t conversions_run
cdef int encode_name(rmp_buffer* buffer, str name) except -1
cdef int encode_value(rmp_buffer* buffer, object value, object path) except -1
