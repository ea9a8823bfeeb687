# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""OpenTelemetry's spans in protobuf, compiled: written straight from records and attributes, without messages.

Runs where the dispatcher runs, below `otel_traces`, for every event. Only what a span is made of is known here: which
attributes it has is the projections' business. An attribute's value is a Python one, or, as bytes, an AnyValue that is
encoded already: that is how `flatten` gives the payloads, from the record's msgpack, with no Python object made of them.

    record ──flatten──▶ {key: AnyValue} ──SpanEncoder──▶ the field `spans` of ScopeSpans

Fields are in the order of their numbers, as the official encoder writes them, and so the bytes are the same;
tests/observability/test_otlp_encoding.py holds that. Source: opentelemetry-proto 1.x, trace.proto and common.proto;
Protocol Buffers, Encoding. The extra `otel` is not needed.
"""

from libc.math cimport isfinite
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay_mp._records cimport (
    RMP_KIND_DOUBLE,
    RMP_KIND_FALSE,
    RMP_KIND_INT,
    RMP_KIND_MAP,
    RMP_KIND_NIL,
    RMP_KIND_TEXT,
    RMP_KIND_TRUE,
    RMP_KIND_UINT,
    Entry,
    RecordView,
    UNUSUAL,
    _check_text,
    _sort,
    _write_value,
    rmp_buffer,
    rmp_buffer_free,
    rmp_buffer_reserve,
    rmp_cursor,
    rmp_read_head,
    rmp_skip,
    rmp_take,
    rmp_write_byte,
    rmp_write_raw,
)

from relay_mp.observability.otel_values import MAX_KEYS as _MAX_KEYS, clean, json_text


cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    object PyBytes_FromStringAndSize(const char* bytes, Py_ssize_t size)
    object PyUnicode_DecodeUTF8(const char* bytes, Py_ssize_t size, const char* errors)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1


cdef enum:
    HEAD = 11  # bytes before a message: its tag, and a varint of 64 bits
    MOST_KEYS = 64
    # Tags: the field's number, and how it is written: 0 varint, 1 eight bytes, 2 length and bytes.
    ANY_STRING = 0x0a
    ANY_BOOL = 0x10
    ANY_INT = 0x18
    ANY_DOUBLE = 0x21
    ANY_ARRAY = 0x2a
    ARRAY_VALUES = 0x0a
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
    # Span.flags: W3C's sampled bit; that it is known whether the parent is remote; and that it is.
    LOCAL = 0x101
    REMOTE = 0x301


assert _MAX_KEYS == MOST_KEYS


# ------------------------------------------------------------------------------------- protobuf's forms

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


cdef inline void _field(rmp_buffer* out, uint8_t tag, const void* bytes, size_t count) noexcept nogil:
    """A field that is bytes, a text or a message. There is room."""
    _number(out, tag, count)
    memcpy(out.bytes + out.length, bytes, count)
    out.length += count


cdef int _reserve(rmp_buffer* out, size_t count) except -1:
    if rmp_buffer_reserve(out, count):
        raise MemoryError("no memory for a span")
    return 0


cdef object _framed(rmp_buffer* out, uint8_t tag):
    """What is in the buffer behind the first HEAD bytes, as a field."""
    cdef size_t size = out.length - HEAD
    cdef size_t start = HEAD - 1 - _varint_bytes(size)
    out.bytes[start] = tag
    _varint(out.bytes + start + 1, size)
    return PyBytes_FromStringAndSize(<const char*>out.bytes + start, <Py_ssize_t>(out.length - start))


# ------------------------------------------------------------------------------------ payloads as values

cdef object _text_value(rmp_buffer* out, const uint8_t* text, uint64_t length):
    if _check_text(text, length):
        return None
    out.length = 0
    _reserve(out, HEAD + length)
    _field(out, ANY_STRING, text, length)
    return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)


cdef object _json_value(rmp_buffer* out, rmp_cursor* cursor):
    out.length = HEAD
    if _write_value(out, cursor, 0) or _check_text(out.bytes + HEAD, out.length - HEAD):
        return None
    return _framed(out, ANY_STRING)


cdef object _value(rmp_buffer* out, rmp_cursor* cursor):
    """A packed value as an AnyValue; None: it is unusual."""
    cdef rmp_cursor start = cursor[0]
    cdef uint8_t kind
    cdef uint64_t number
    cdef const uint8_t* text
    cdef double real
    if rmp_read_head(cursor, &kind, &number):
        return None
    if kind == RMP_KIND_TEXT:
        return None if rmp_take(cursor, number, &text) else _text_value(out, text, number)
    out.length = 0
    _reserve(out, HEAD)
    if kind == RMP_KIND_TRUE or kind == RMP_KIND_FALSE:
        _number(out, ANY_BOOL, kind == RMP_KIND_TRUE)
    elif kind == RMP_KIND_INT or (kind == RMP_KIND_UINT and not number >> 63):
        _number(out, ANY_INT, number)
    elif kind == RMP_KIND_DOUBLE:
        memcpy(&real, &number, 8)
        if not isfinite(real):
            return None
        _fixed64(out, ANY_DOUBLE, number)
    else:
        cursor[0] = start
        return _json_value(out, cursor)
    return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)


cdef object _key(rmp_buffer* out, str prefix, Entry* entry):
    """The prefix, a dot and the member's key."""
    cdef Py_ssize_t size
    cdef const char* before = PyUnicode_AsUTF8AndSize(prefix, &size)
    out.length = 0
    _reserve(out, size + 1 + entry.length)
    memcpy(out.bytes, before, size)
    out.bytes[size] = 46
    memcpy(out.bytes + size + 1, entry.key, entry.length)
    return PyUnicode_DecodeUTF8(<const char*>out.bytes, size + 1 + entry.length, NULL)


cdef bint _members(dict found, str prefix, rmp_buffer* out, rmp_cursor* cursor, uint64_t count, dict own) except -1:
    """Adds a map's members. False: it is unusual."""
    cdef Entry[MOST_KEYS] entries
    cdef uint64_t i, number
    cdef uint8_t kind
    for i in range(count):
        if rmp_read_head(cursor, &kind, &number) or kind != RMP_KIND_TEXT or rmp_take(cursor, number, &entries[i].key):
            return False
        if _check_text(entries[i].key, number):
            return False
        entries[i].length, entries[i].value = <uint32_t>number, cursor.at
        if rmp_skip(cursor):
            return False
    if cursor.at != cursor.end:
        return False
    _sort(entries, count)
    for i in range(count):
        cursor.at = <const uint8_t*>entries[i].value
        name = None if own is None else own.get(PyUnicode_DecodeUTF8(<const char*>entries[i].key, entries[i].length, NULL))
        if name is not None and cursor.at[0] == RMP_KIND_NIL:
            continue
        value = _value(out, cursor)
        if value is None:
            return False
        found[_key(out, prefix, &entries[i]) if name is None else name] = value
    return True


def flatten(dict found not None, str prefix not None, RecordView event not None, int index, dict own=None) -> bool:
    """Adds an event's payload as attributes: a map's members one by one, anything else as it is, as `add_flat` does.

    Args:
        found: where to, by key; the values are encoded.
        prefix: of the keys.
        event: the event.
        index: the payload's place among the record's fields.
        own: members with names of their own: of a payload that is a map, or else is left out.

    Returns:
        False where it is for `add_flat` to do, whatever has been added: what the native encoder has not written, and
        what nests deep, has many members or none, or is no finite number.
    """
    cdef rmp_cursor cursor
    cdef rmp_buffer out
    cdef uint64_t number
    cdef uint8_t kind
    if not event._is_usual():
        return False
    if event._head_of(index, &cursor, &number) == RMP_KIND_NIL:
        return True
    cursor.end = cursor.at + number
    cdef rmp_cursor start = cursor
    if rmp_read_head(&cursor, &kind, &number) or kind == RMP_KIND_NIL or (own is not None and kind != RMP_KIND_MAP):
        return False
    if kind == RMP_KIND_MAP and (own is not None or number) and number > MOST_KEYS:
        return False
    out.bytes, out.length, out.capacity = NULL, 0, 0
    try:
        if kind == RMP_KIND_MAP and (number or own is not None):
            return _members(found, prefix, &out, &cursor, number, own)
        cursor = start
        value = _value(&out, &cursor)
        if value is None or cursor.at != cursor.end:
            return False
        found[prefix] = value
        return True
    finally:
        rmp_buffer_free(&out)


# ------------------------------------------------------------------------------------------------ spans

cdef class SpanEncoder:
    """Writes spans. One thread at a time: it keeps its buffers.

    Args:
        max_bytes: of one string; longer ones are cut, see `otel_values.clean`.
    """

    cdef rmp_buffer _out, _scratch
    cdef Py_ssize_t _max_bytes

    def __init__(self, Py_ssize_t max_bytes) -> None:
        self._max_bytes = max_bytes

    def __dealloc__(self):
        rmp_buffer_free(&self._out)
        rmp_buffer_free(&self._scratch)

    cdef object _clean(self, text, const char** at, Py_ssize_t* size):
        """The text's UTF-8, and what holds it."""
        try:
            at[0] = PyUnicode_AsUTF8AndSize(text, size)
            if size[0] <= self._max_bytes:
                return text
        except UnicodeEncodeError:
            pass
        text = clean(text, self._max_bytes)
        at[0] = PyUnicode_AsUTF8AndSize(text, size)
        return text

    cdef int _text(self, rmp_buffer* out, uint8_t tag, text) except -1:
        cdef const char* at = NULL
        cdef Py_ssize_t size = 0
        held = self._clean(text, &at, &size)
        _reserve(out, HEAD + size)
        _field(out, tag, at, size)
        return 0

    cdef int _array(self, rmp_buffer* out, tuple texts) except -1:
        cdef rmp_buffer array, item
        array.bytes, array.length, array.capacity = NULL, 0, 0
        item.bytes, item.length, item.capacity = NULL, 0, 0
        try:
            for text in texts:
                item.length = 0
                self._text(&item, ANY_STRING, text)
                _reserve(&array, HEAD + item.length)
                _field(&array, ARRAY_VALUES, item.bytes, item.length)
            _reserve(out, HEAD + array.length)
            _field(out, ANY_ARRAY, array.bytes, array.length)
        finally:
            rmp_buffer_free(&array)
            rmp_buffer_free(&item)
        return 0

    cdef int _any(self, rmp_buffer* out, value) except -1:
        """A value as an AnyValue."""
        cdef int overflow = 0
        cdef int64_t whole
        cdef double real
        cdef uint64_t bits
        kind = type(value)
        _reserve(out, HEAD)
        if kind is str:
            return self._text(out, ANY_STRING, value)
        if kind is bytes:
            return self._encoded(out, value)
        if kind is bool:
            _number(out, ANY_BOOL, value is True)
            return 0
        if kind is int:
            whole = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                _number(out, ANY_INT, <uint64_t>whole)
                return 0
        elif kind is float:
            real = value
            memcpy(&bits, &real, 8)
            _fixed64(out, ANY_DOUBLE, bits)
            return 0
        elif kind is tuple:
            return self._array(out, value)
        return self._text(out, ANY_STRING, json_text(value))

    cdef int _encoded(self, rmp_buffer* out, bytes value) except -1:
        """One that is encoded already; a text may be too long, and this is where it is known."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(value), at = 1
        cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(value)
        if size > self._max_bytes and start[0] == ANY_STRING:
            while start[at] > 0x7f:
                at += 1
            return self._text(out, ANY_STRING, value[at + 1 :].decode())
        _reserve(out, size)
        memcpy(out.bytes + out.length, start, size)
        out.length += size
        return 0

    cdef int _attributes(self, rmp_buffer* out, uint8_t tag, dict attributes) except -1:
        """KeyValues. Those that are None are left out."""
        cdef const char* key_at = NULL
        cdef Py_ssize_t key_bytes = 0
        cdef size_t value_bytes, pair_bytes
        for key, value in attributes.items():
            if value is None:
                continue
            self._scratch.length = 0
            self._any(&self._scratch, value)
            held = self._clean(key, &key_at, &key_bytes)
            value_bytes = self._scratch.length
            pair_bytes = 1 + _varint_bytes(value_bytes) + value_bytes
            if key_bytes:
                pair_bytes += 1 + _varint_bytes(key_bytes) + key_bytes
            _reserve(out, HEAD + pair_bytes)
            _number(out, tag, pair_bytes)
            if key_bytes:
                _field(out, PAIR_KEY, key_at, key_bytes)
            _field(out, PAIR_VALUE, self._scratch.bytes, value_bytes)
        return 0

    cdef int _begin(self) except -1:
        self._out.length = 0
        _reserve(&self._out, HEAD)
        self._out.length = HEAD
        return 0

    def event(self, str name not None, time_us, dict attributes not None) -> bytes:
        """A Span.Event, as the field `events` of a span.

        Args:
            name: its name.
            time_us: microseconds since the epoch.
            attributes: by key.
        """
        cdef rmp_buffer* out = &self._out
        cdef uint64_t time_ns = _ns(time_us)
        self._begin()
        _reserve(out, HEAD)
        if time_ns:
            _fixed64(out, EVENT_TIME, time_ns)
        if name:
            self._text(out, EVENT_NAME, name)
        self._attributes(out, EVENT_ATTRIBUTES, attributes)
        return _framed(out, SPAN_EVENTS)

    def span(
        self, RecordView event not None, place, str name not None, int kind,
        start_us, end_us, dict attributes not None, list events not None, tuple status,
    ) -> bytes:
        """A span, as the field `spans` of ScopeSpans.

        Args:
            event: a scope's start or end, or a mark; the last 8 bytes of its uuid are the span's id.
            place: the trace's 16 bytes; the parent span's 8, or None; and whether that is another program's.
            name: its name.
            kind: its Span.SpanKind.
            start_us, end_us: microseconds since the epoch; an end before the start is at the start.
            attributes: by key.
            events: what `event` gave.
            status: None, or a code of Status.StatusCode and a message.
        """
        cdef rmp_buffer* out = &self._out
        cdef uint64_t start_ns = _ns(start_us), end_ns = max(start_ns, _ns(end_us))
        cdef bytes trace, parent_span, uuid = event._read_field(1)
        trace, parent_span, is_remote = place
        if trace is None or PyBytes_GET_SIZE(trace) != 16:
            raise ValueError(f"a trace's id is {trace!r}; expected 16 bytes")
        if parent_span is not None and PyBytes_GET_SIZE(parent_span) != 8:
            raise ValueError(f"a parent's span id is {parent_span!r}; expected 8 bytes")
        self._begin()
        _reserve(out, 64)
        _field(out, SPAN_TRACE, PyBytes_AS_STRING(trace), 16)
        _field(out, SPAN_ID, PyBytes_AS_STRING(uuid) + 8, 8)
        if parent_span is not None:
            _field(out, SPAN_PARENT, PyBytes_AS_STRING(parent_span), 8)
        if name:
            self._text(out, SPAN_NAME, name)
        _reserve(out, 32)
        if kind:
            _number(out, SPAN_KIND, <uint64_t>kind)
        if start_ns:
            _fixed64(out, SPAN_START, start_ns)
        if end_ns:
            _fixed64(out, SPAN_END, end_ns)
        self._attributes(out, SPAN_ATTRIBUTES, attributes)
        cdef bytes mark
        for mark in events:
            _reserve(out, PyBytes_GET_SIZE(mark))
            memcpy(out.bytes + out.length, PyBytes_AS_STRING(mark), PyBytes_GET_SIZE(mark))
            out.length += PyBytes_GET_SIZE(mark)
        if status is not None:
            self._status(out, status[0], status[1])
        _reserve(out, 16)
        self._flags(out, REMOTE if is_remote else LOCAL)
        return _framed(out, SPANS)

    cdef int _status(self, rmp_buffer* out, int code, str message) except -1:
        self._scratch.length = 0
        _reserve(&self._scratch, HEAD)
        if message:
            self._text(&self._scratch, STATUS_MESSAGE, message)
        _reserve(&self._scratch, HEAD)
        if code:
            _number(&self._scratch, STATUS_CODE, <uint64_t>code)
        _reserve(out, HEAD + self._scratch.length)
        _field(out, SPAN_STATUS, self._scratch.bytes, self._scratch.length)
        return 0

    cdef void _flags(self, rmp_buffer* out, uint32_t flags) noexcept:
        """Field 16, whose tag takes two bytes: four bytes, least first."""
        cdef int i
        out.bytes[out.length], out.bytes[out.length + 1] = 0x85, 0x01
        for i in range(4):
            out.bytes[out.length + 2 + i] = <uint8_t>(flags >> 8 * i)
        out.length += 6
