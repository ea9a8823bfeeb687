# What otlp.pyx and spans.pyx, other compiled modules, call of the memory of traces. places.pyx is where it is written and
# explained.

from relay_mp._records.records cimport RecordView


cdef class Place:
    cdef readonly bytes trace, parent_span
    cdef readonly bint is_remote


cdef class Traces:
    cdef dict _open
    cdef readonly object _ended
    cdef Py_ssize_t _max_open
    cdef object _ttl_us
    cdef object _oldest_us  # no ended one has ended before
    cdef int _forget(self, now_us) except -1
    cdef object _of_ended(self, bytes uuid, now_us)
    cpdef Place place(self, RecordView event)
    cpdef Place begin(self, RecordView event)
    cpdef object end(self, bytes uuid, now_us)
