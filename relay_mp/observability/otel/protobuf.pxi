# Protobuf's forms, written and read, and the tags of OTLP's messages. Included textually by otlp.pyx.

cdef enum:
    HEAD = 11  # bytes before a message: its tag, and a varint of 64 bits
    HEADS = 4 * HEAD  # before a text as an attribute: of the KeyValue, its key, the AnyValue and the text itself
    MOST_KEYS = 64
    # Tags: the field's number, and how it is written: 0 varint, 1 eight bytes, 2 length and bytes.
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
    EVENT_TIME = 0x09
    EVENT_NAME = 0x12
    EVENT_ATTRIBUTES = 0x1a
    STATUS_MESSAGE = 0x12
    STATUS_CODE = 0x18
    SPAN_TRACE = 0x0a
    SPAN_ID = 0x12
    SPAN_PARENT = 0x22
    SPAN_NAME = 0x2a
    SPAN_KIND = 0x30
    SPAN_START = 0x39
    SPAN_END = 0x41
    SPAN_ATTRIBUTES = 0x4a
    SPAN_EVENTS = 0x5a
    SPAN_STATUS = 0x7a
    SPANS = 0x12
    RECORD_TIME = 0x09
    RECORD_SEVERITY = 0x10
    RECORD_SEVERITY_TEXT = 0x1a
    RECORD_BODY = 0x2a
    RECORD_ATTRIBUTES = 0x32
    RECORD_FLAGS = 0x45
    RECORD_TRACE = 0x4a
    RECORD_SPAN = 0x52
    RECORD_OBSERVED = 0x59
    RECORD_NAME = 0x62
    LOG_RECORDS = 0x12
    SAMPLED = 0x01  # LogRecord.flags: W3C's sampled bit
    # Span.flags: W3C's sampled bit; that it is known whether the parent is remote; and that it is.
    LOCAL = 0x101
    REMOTE = 0x301


cdef inline int _varint(uint8_t* at, uint64_t value) noexcept nogil:
    cdef int count = 0
    while value > 0x7f:
        at[count] = <uint8_t>(value & 0x7f | 0x80)
        value >>= 7
        count += 1
    at[count] = <uint8_t>value
    return count + 1


cdef inline int _varint_bytes(uint64_t value) noexcept nogil:
    cdef int count = 1
    while value > 0x7f:
        value >>= 7
        count += 1
    return count


cdef inline void _number(rmp_buffer* out, uint8_t tag, uint64_t value) noexcept nogil:
    """A field that is a varint. There is room."""
    out.bytes[out.length] = tag
    out.length += 1 + _varint(out.bytes + out.length + 1, value)


cdef inline uint64_t _ns(time_us) except? 0:
    """Microseconds since the epoch as protobuf's nanoseconds, or the nearest that it has."""
    cdef int overflow = 0
    cdef int64_t us = PyLong_AsLongLongAndOverflow(time_us, &overflow)
    if overflow > 0 or us > <int64_t>(UINT64_MAX // 1000):
        return UINT64_MAX
    return 0 if overflow or us < 0 else <uint64_t>us * 1000


cdef inline void _fixed64(rmp_buffer* out, uint8_t tag, uint64_t value) noexcept nogil:
    """A field of eight bytes, least first. There is room."""
    cdef int i
    out.bytes[out.length] = tag
    for i in range(8):
        out.bytes[out.length + 1 + i] = <uint8_t>(value >> 8 * i)
    out.length += 9


cdef inline void _fixed32(rmp_buffer* out, uint8_t tag, uint32_t value) noexcept nogil:
    """A field of four bytes, least first. There is room."""
    cdef int i
    out.bytes[out.length] = tag
    for i in range(4):
        out.bytes[out.length + 1 + i] = <uint8_t>(value >> 8 * i)
    out.length += 5


cdef inline void _field(rmp_buffer* out, uint8_t tag, const void* bytes, size_t count) noexcept nogil:
    """A field that is bytes, a text or a message. There is room."""
    _number(out, tag, count)
    memcpy(out.bytes + out.length, bytes, count)
    out.length += count


cdef int _reserve(rmp_buffer* out, size_t count) except -1:
    if rmp_buffer_reserve(out, count):
        raise MemoryError("no memory for a span")
    return 0


cdef inline size_t _open(rmp_buffer* out) except? 0:
    """Begins a field that is a message. Returns where its content begins; `_close` puts tag and length before it."""
    _reserve(out, 2)
    out.length += 2
    return out.length


cdef inline int _close(rmp_buffer* out, size_t start, uint8_t tag) except -1:
    """Ends a field that `_open` has begun. Most are so short that their length takes the one byte there is for it."""
    cdef size_t size = out.length - start
    cdef int more = _varint_bytes(size) - 1
    if more:
        _reserve(out, more)
        memmove(out.bytes + start + more, out.bytes + start, size)
        out.length += more
    out.bytes[start - 2] = tag
    _varint(out.bytes + start - 1, size)
    return 0


cdef object _framed(rmp_buffer* out, uint8_t tag):
    """What is in the buffer behind the first HEAD bytes, as a field."""
    cdef size_t size = out.length - HEAD
    cdef size_t start = HEAD - 1 - _varint_bytes(size)
    out.bytes[start] = tag
    _varint(out.bytes + start + 1, size)
    return PyBytes_FromStringAndSize(<const char*>out.bytes + start, <Py_ssize_t>(out.length - start))


cdef struct Pair:
    # A KeyValue that is written.
    const uint8_t* key
    size_t key_length
    const uint8_t* value  # the AnyValue
    size_t value_length
    size_t end


cdef inline size_t _read_varint(const uint8_t** at) noexcept nogil:
    cdef size_t value = 0
    cdef int shift = 0
    while at[0][0] > 0x7f:
        value |= <size_t>(at[0][0] & 0x7f) << shift
        shift += 7
        at[0] += 1
    value |= <size_t>at[0][0] << shift
    at[0] += 1
    return value


cdef Pair _read_pair(const rmp_buffer* out, size_t start) noexcept nogil:
    cdef Pair pair
    cdef const uint8_t* at = out.bytes + start + 1
    cdef size_t size = _read_varint(&at)
    pair.end = <size_t>(at - out.bytes) + size
    pair.key, pair.key_length = at, 0
    if at[0] == PAIR_KEY:
        at += 1
        pair.key_length = _read_varint(&at)
        pair.key = at
        at += pair.key_length
    at += 1
    pair.value_length = _read_varint(&at)
    pair.value = at
    return pair
