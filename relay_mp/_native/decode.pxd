# decode.h: msgpack's forms, read and never trusted. What each name does is said there.

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "decode.h" nogil:
    enum:
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
