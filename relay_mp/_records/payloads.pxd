# What the records' view calls of the payloads' reader. payloads.pyx is where it is written and explained.

from libc.stdint cimport uint8_t

cdef object read_all(const uint8_t* start, Py_ssize_t length)
