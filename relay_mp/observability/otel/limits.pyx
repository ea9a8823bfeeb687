# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""OpenTelemetry's limits of attributes, compiled: how many there are, and how long their texts are.

    KeyValues, encoded ──▶ the first so many ──▶ their texts cut ──▶ KeyValues, encoded, and how many were left out

One pass over what otlp.pyx has written, for spans, their events and log records alike. Whoever sets no limit has no
pass: nothing else in the encoder knows of limits. Source: OpenTelemetry specification, "Attribute Limits": a text counts
by characters, in arrays and maps each by itself; keys are not cut, attributes that are beyond the count are left out.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from relay_mp._native.encode cimport rmp_buffer, rmp_buffer_free
from relay_mp.observability.otel.protobuf cimport (
    ANY_ARRAY,
    ANY_PAIRS,
    ANY_STRING,
    ARRAY_VALUES,
    HEAD,
    PAIR_VALUE,
    begin_message,
    end_message,
    put_field,
    read_varint,
    reserve,
)


cdef size_t _first_characters(const uint8_t* text, size_t size, size_t count) noexcept nogil:
    """How many bytes of a text in UTF-8 its first characters take."""
    cdef size_t at
    if size <= count:
        return size
    for at in range(size):
        if text[at] & 0xc0 != 0x80:  # where a character begins
            if not count:
                return at
            count -= 1
    return size


def make_limits(max_count, max_characters):
    """The limits; None if there are none: then nothing is done for them. See AttributeLimits for the arguments."""
    if max_count is None and max_characters is None:
        return None
    return AttributeLimits(max_count, max_characters)


cdef class AttributeLimits:
    """What is left of attributes. One thread at a time: it keeps its buffer.

    Args:
        max_count: of attributes, the first of which are kept; None: no limit.
        max_characters: of a text, wherever it is in a value; None: no limit.
    """

    def __init__(self, max_count=None, max_characters=None) -> None:
        self._max_count = -1 if max_count is None else max_count
        self._max_characters = -1 if max_characters is None else max_characters

    def __dealloc__(self):
        rmp_buffer_free(&self._shortened)

    cdef Py_ssize_t apply(self, rmp_buffer* out, size_t first) except -1:
        """Applies the limits to the attributes that are written from `first` to the buffer's end.

        Returns:
            How many were left out.
        """
        cdef Py_ssize_t dropped = 0
        if self._max_count >= 0:
            dropped = self._drop(out, first)
        if self._max_characters >= 0:
            self._shortened.length = 0
            self._copy_pairs(out.bytes + first, out.bytes + out.length)
            if self._shortened.length:
                memcpy(out.bytes + first, self._shortened.bytes, self._shortened.length)
            out.length = first + self._shortened.length
        return dropped

    cdef Py_ssize_t _drop(self, rmp_buffer* out, size_t first) noexcept:
        cdef const uint8_t* at = out.bytes + first
        cdef const uint8_t* end = out.bytes + out.length
        cdef Py_ssize_t count = 0
        cdef size_t size
        while at < end:
            if count == self._max_count:
                out.length = at - out.bytes
            at += 1
            size = read_varint(&at)
            at += size
            count += 1
        return max(count - self._max_count, 0)

    # What follows copies messages into the buffer, their texts cut. All fields in them have a length, but for numbers.

    cdef int _copy_pairs(self, const uint8_t* at, const uint8_t* end) except -1:
        """KeyValues, one behind the other: of attributes, or of a map."""
        cdef size_t size, start
        cdef uint8_t tag
        while at < end:
            tag = at[0]
            at += 1
            size = read_varint(&at)
            start = begin_message(&self._shortened)
            self._copy_pair(at, at + size)
            end_message(&self._shortened, start, tag)
            at += size
        return 0

    cdef int _copy_pair(self, const uint8_t* at, const uint8_t* end) except -1:
        """A key, which stays as it is, and a value; either may be missing."""
        cdef size_t size, start
        cdef uint8_t tag
        while at < end:
            tag = at[0]
            at += 1
            size = read_varint(&at)
            if tag == PAIR_VALUE:
                start = begin_message(&self._shortened)
                self._copy_value(at, at + size)
                end_message(&self._shortened, start, tag)
            else:
                self._copy_field(tag, at, size)
            at += size
        return 0

    cdef int _copy_value(self, const uint8_t* at, const uint8_t* end) except -1:
        """An AnyValue, which is empty or has one field."""
        cdef const uint8_t* start_at = at
        cdef size_t size, start
        cdef uint8_t tag
        if at == end:
            return 0
        tag = at[0]
        at += 1
        if tag == ANY_STRING:
            size = read_varint(&at)
            return self._copy_field(tag, at, _first_characters(at, size, self._max_characters))
        if tag == ANY_ARRAY or tag == ANY_PAIRS:
            size = read_varint(&at)
            start = begin_message(&self._shortened)
            if tag == ANY_PAIRS:
                self._copy_pairs(at, at + size)
            else:
                self._copy_values(at, at + size)
            return end_message(&self._shortened, start, tag)
        size = end - start_at
        reserve(&self._shortened, size)
        memcpy(self._shortened.bytes + self._shortened.length, start_at, size)
        self._shortened.length += size
        return 0

    cdef int _copy_values(self, const uint8_t* at, const uint8_t* end) except -1:
        """AnyValues, one behind the other: of an array."""
        cdef size_t size, start
        while at < end:
            at += 1
            size = read_varint(&at)
            start = begin_message(&self._shortened)
            self._copy_value(at, at + size)
            end_message(&self._shortened, start, ARRAY_VALUES)
            at += size
        return 0

    cdef int _copy_field(self, uint8_t tag, const uint8_t* at, size_t size) except -1:
        reserve(&self._shortened, HEAD + size)
        put_field(&self._shortened, tag, at, size)
        return 0
