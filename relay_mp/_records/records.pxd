# What relay_mp.observability.otel.otlp, another compiled module, calls of the records' readers, without a Python call or an
# object for what a C value can say. records.pyx is where it is written and explained.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "encode.h" nogil:
    ctypedef struct rmp_buffer:
        uint8_t* bytes
        size_t length
        size_t capacity
    int rmp_buffer_reserve(rmp_buffer* buffer, size_t extra_bytes)
    void rmp_buffer_free(rmp_buffer* buffer)
    int rmp_write_raw(rmp_buffer* buffer, const void* bytes, size_t length_bytes)
    int rmp_write_byte(rmp_buffer* buffer, uint8_t byte)


cdef extern from "decode.h" nogil:
    cdef enum rmp_kind:
        RMP_KIND_NIL
        RMP_KIND_FALSE
        RMP_KIND_TRUE
        RMP_KIND_BIN
        RMP_KIND_DOUBLE
        RMP_KIND_UINT
        RMP_KIND_INT
        RMP_KIND_TEXT
        RMP_KIND_LIST
        RMP_KIND_MAP
    ctypedef struct rmp_cursor:
        const uint8_t* at
        const uint8_t* end
    uint64_t rmp_load_be32(const uint8_t* at)
    int rmp_read_head(rmp_cursor* cursor, uint8_t* kind, uint64_t* number)
    int rmp_take(rmp_cursor* cursor, uint64_t length, const uint8_t** start)
    int rmp_skip(rmp_cursor* cursor)
    bint rmp_is_ascii(const uint8_t* bytes, size_t length)


cdef enum:
    UNUSUAL = -1  # what the readers return when the bytes are not the native encoder's, or there is no memory
    FIELDS = 13

cdef struct Entry:
    const uint8_t* key
    uint32_t length
    const void* value  # what its reader makes of it

cdef void _sort(Entry* entries, uint64_t count) noexcept nogil
cdef int _check_text(const uint8_t* text, uint64_t length) except -1
cdef int _write_uuid(rmp_buffer* out, const uint8_t* uuid) noexcept nogil
cdef int _write_value(rmp_buffer* out, rmp_cursor* cursor, int depth) except -2


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
