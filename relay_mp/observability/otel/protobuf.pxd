# Protobuf's forms, written and read, and the tags of values. Source: Protocol Buffers, Encoding; common.proto.

from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from relay_mp._native.encode cimport rmp_buffer, rmp_buffer_reserve
from relay_mp._native.python cimport PyBytes_FromStringAndSize, PyLong_AsLongLongAndOverflow


cdef enum:
    HEAD = 11  # bytes before a message: its tag, and a varint of 64 bits
    # Tags of AnyValue, ArrayValue, KeyValueList and KeyValue: the field's number, and how it is written: 0 varint,
    # 1 eight bytes, 2 length and bytes.
    ANY_STRING = 0x0a
    ANY_BOOL = 0x10
    ANY_INT = 0x18
    ANY_DOUBLE = 0x21
    ANY_ARRAY = 0x2a
    ANY_PAIRS = 0x32
    ARRAY_VALUES = 0x0a
    PAIRS_VALUES = 0x0a
    PAIR_KEY = 0x0a
    PAIR_VALUE = 0x12


cdef inline int put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    cdef int count = 0
    while value > 0x7f:
        at[count] = <uint8_t>(value & 0x7f | 0x80)
        value >>= 7
        count += 1
    at[count] = <uint8_t>value
    return count + 1


cdef inline int varint_bytes(uint64_t value) noexcept nogil:
    cdef int count = 1
    while value > 0x7f:
        value >>= 7
        count += 1
    return count


cdef inline void put_number(rmp_buffer* out, uint8_t tag, uint64_t value) noexcept nogil:
    """A field that is a varint. There is room."""
    out.bytes[out.length] = tag
    out.length += 1 + put_varint(out.bytes + out.length + 1, value)


cdef inline uint64_t nanoseconds(time_us) except? 0:
    """Microseconds since the epoch as protobuf's nanoseconds, or the nearest that it has."""
    cdef int overflow = 0
    cdef int64_t us = PyLong_AsLongLongAndOverflow(<PyObject*>time_us, &overflow)
    if overflow > 0 or us > <int64_t>(UINT64_MAX // 1000):
        return UINT64_MAX
    return 0 if overflow or us < 0 else <uint64_t>us * 1000


cdef inline void put_fixed64(rmp_buffer* out, uint8_t tag, uint64_t value) noexcept nogil:
    """A field of eight bytes, least first. There is room."""
    cdef int i
    out.bytes[out.length] = tag
    for i in range(8):
        out.bytes[out.length + 1 + i] = <uint8_t>(value >> 8 * i)
    out.length += 9


cdef inline void put_fixed32(rmp_buffer* out, uint8_t tag, uint32_t value) noexcept nogil:
    """A field of four bytes, least first. There is room."""
    cdef int i
    out.bytes[out.length] = tag
    for i in range(4):
        out.bytes[out.length + 1 + i] = <uint8_t>(value >> 8 * i)
    out.length += 5


cdef inline void put_field(rmp_buffer* out, uint8_t tag, const void* bytes, size_t count) noexcept nogil:
    """A field that is bytes, a text or a message. There is room."""
    put_number(out, tag, count)
    memcpy(out.bytes + out.length, bytes, count)
    out.length += count


cdef inline int reserve(rmp_buffer* out, size_t count) except -1:
    if rmp_buffer_reserve(out, count):
        raise MemoryError("no memory for a message")
    return 0


cdef inline size_t begin_message(rmp_buffer* out) except? 0:
    """Begins a field that is a message. Returns where its content begins; `end_message` puts tag and length before it."""
    reserve(out, 2)
    out.length += 2
    return out.length


cdef inline int end_message(rmp_buffer* out, size_t start, uint8_t tag) except -1:
    """Ends what `begin_message` has begun. Most are so short that their length takes the one byte there is for it."""
    cdef size_t size = out.length - start
    cdef int more = varint_bytes(size) - 1
    if more:
        reserve(out, more)
        memmove(out.bytes + start + more, out.bytes + start, size)
        out.length += more
    out.bytes[start - 2] = tag
    put_varint(out.bytes + start - 1, size)
    return 0


cdef inline object framed(rmp_buffer* out, uint8_t tag):
    """What is in the buffer behind the first HEAD bytes, as a field."""
    cdef size_t size = out.length - HEAD
    cdef size_t start = HEAD - 1 - varint_bytes(size)
    out.bytes[start] = tag
    put_varint(out.bytes + start + 1, size)
    return PyBytes_FromStringAndSize(<const char*>out.bytes + start, <Py_ssize_t>(out.length - start))


cdef inline size_t read_varint(const uint8_t** at) noexcept nogil:
    cdef size_t value = 0
    cdef int shift = 0
    while at[0][0] > 0x7f:
        value |= <size_t>(at[0][0] & 0x7f) << shift
        shift += 7
        at[0] += 1
    value |= <size_t>at[0][0] << shift
    at[0] += 1
    return value
