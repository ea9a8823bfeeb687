# encode.h: msgpack, and any other bytes, into a buffer that grows. What each name does is said there.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "encode.h" nogil:
    enum:
        RMP_ENCODE_NO_MEMORY
        RMP_ENCODE_TOO_LONG
    ctypedef struct rmp_buffer:
        uint8_t* bytes
        size_t length
        size_t capacity
    int rmp_buffer_reserve(rmp_buffer* buffer, size_t extra_bytes)
    void rmp_buffer_free(rmp_buffer* buffer)
    int rmp_write_nil(rmp_buffer* buffer)
    int rmp_write_bool(rmp_buffer* buffer, int value)
    int rmp_write_int(rmp_buffer* buffer, int64_t value)
    int rmp_write_uint(rmp_buffer* buffer, uint64_t value)
    int rmp_write_double(rmp_buffer* buffer, double value)
    int rmp_write_str(rmp_buffer* buffer, const char* bytes, size_t length_bytes)
    int rmp_write_bin(rmp_buffer* buffer, const void* bytes, size_t length_bytes)
    int rmp_write_bin_header(rmp_buffer* buffer, size_t length_bytes)
    int rmp_write_array_header(rmp_buffer* buffer, size_t count)
    int rmp_write_map_header(rmp_buffer* buffer, size_t count)
    int rmp_write_raw(rmp_buffer* buffer, const void* bytes, size_t length_bytes)
    int rmp_write_byte(rmp_buffer* buffer, uint8_t byte)
    int rmp_write_envelope(rmp_buffer* buffer, uint32_t fields, int kind, const uint8_t* uuid, const uint8_t* parent,
                           int64_t timestamp_us)
    int rmp_bin32_begin(rmp_buffer* buffer, size_t* offset)
    int rmp_bin32_end(rmp_buffer* buffer, size_t offset)
