# text.h: numbers, uuids and JSON's texts as characters. What each name does is said there.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from relay_mp._native.encode cimport rmp_buffer


cdef extern from "text.h" nogil:
    enum:
        RMP_UUID_CHARACTERS
        RMP_MOST_DIGITS
        RMP_SHORT_DOUBLE_CHARACTERS
    void rmp_print_uuid(uint8_t* at, const uint8_t* uuid)
    size_t rmp_print_decimal(uint8_t* at, uint64_t value)
    void rmp_print_padded(uint8_t* at, uint32_t value, int count)
    size_t rmp_print_short_double(uint8_t* at, double value)
    int rmp_write_literal(rmp_buffer* out, const char* text)
    int rmp_write_json_text(rmp_buffer* out, const uint8_t* text, size_t length)
