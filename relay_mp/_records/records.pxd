# What other compiled modules use of a record's view, without a Python call or an object for what a C value can say.
# records.pyx is where it is written and explained.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.decode cimport rmp_cursor
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef enum:
    UNUSUAL = -1  # what the readers return when the bytes are not the native encoder's, or there is no memory
    FIELDS = 13


cdef class RecordView:
    cdef readonly bytes _record
    cdef readonly object seq, pid
    cdef readonly bint redelivered
    cdef uint32_t[FIELDS] _at   # where the fields are; the first 0: nobody has looked yet, or the record is unusual
    cdef object _unusual        # the fields of an unusual record; None: nobody has looked yet
    cdef readonly list _payloads  # those that somebody has asked for; None: nobody has yet
    cdef bint _is_usual(self) except -1
    cdef int _head_of(self, int index, rmp_cursor* cursor, uint64_t* number) except -1
    cdef object _read_field(self, int index)
    cdef object _read_payload(self, int index)
    cdef object _payload(self, int index)


cdef enum:
    FIXARRAY_13 = 0x9d
    NO_KIND = 256


cdef inline int kind_of(bytes record) noexcept:
    """A record's kind, if it starts as the native encoder's do; else NO_KIND."""
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(record)
    return <int>start[1] if PyBytes_GET_SIZE(record) >= 2 and start[0] == FIXARRAY_13 else NO_KIND
