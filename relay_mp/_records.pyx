# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Records read, compiled: the object that an event is before anybody looks at it, and its line of JSON.

Runs where the dispatcher runs, below `relay_mp.events`, which says what an event means; here are the two
things that happen to every event. `RecordView` is its state: made by one native call, without `__init__`.
`json_line` goes from the record's msgpack to ATOF's JSON without a Python object in between: 14 us became 1.

`json_line` gives None for whatever the native encoder does not write (damaged bytes, keys twice, types that
are no JSON, times before 1970 or after 9999, payloads of great depth). Then `relay_mp.events` goes by way of
Python objects, which says exactly what is wrong; where both give a line it is the same, to the byte, and
tests/test_records.py holds that.
"""

cimport cython
from cpython.object cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy, strlen

from relay_mp.types import CATEGORIES as _CATEGORIES, attribute_names


cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    object PyBytes_FromStringAndSize(const char* bytes, Py_ssize_t size)
    object PyUnicode_DecodeUTF8(const char* bytes, Py_ssize_t size, const char* errors)
    char* PyOS_double_to_string(double value, char format_code, int precision, int flags, int* kind) except NULL
    void PyMem_Free(void* memory)
    int Py_DTSF_ADD_DOT_0


cdef extern from "encode.h" nogil:
    ctypedef struct rmp_buffer:
        uint8_t* bytes
        size_t length
        size_t capacity
    int rmp_buffer_reserve(rmp_buffer* buffer, size_t extra_bytes)
    void rmp_buffer_free(rmp_buffer* buffer)
    int rmp_write_raw(rmp_buffer* buffer, const void* bytes, size_t length_bytes)
    int rmp_write_byte(rmp_buffer* buffer, uint8_t byte)


cdef uint8_t FIXARRAY_13 = 0x9d


cdef class RecordView:
    """A record with its place in the stream. Events derive from it; see `relay_mp.events`."""

    cdef readonly bytes _record
    cdef public object _fields, _payloads
    cdef public object seq, pid
    cdef public bint redelivered

    def __init__(self, bytes record not None, seq, pid, bint redelivered=False) -> None:
        self._record = record
        self.seq = seq
        self.pid = pid
        self.redelivered = redelivered


cdef extern from *:
    """
    static PyObject *rmp_no_arguments;
    /* kind.__new__(kind), for a kind that derives from RecordView and defines no __new__ */
    static PyObject *rmp_new(PyObject *kind) {
        if (rmp_no_arguments == NULL && (rmp_no_arguments = PyTuple_New(0)) == NULL) return NULL;
        return ((PyTypeObject *)kind)->tp_new((PyTypeObject *)kind, rmp_no_arguments, NULL);
    }
    """
    object rmp_new(object kind)


def view(tuple classes not None, bytes record not None, seq, pid, bint redelivered=False):
    """The event of a record, of the class that the record's kind has in `classes`, as calling it gives.

    Returns:
        None where the record does not start as the native encoder's do, or its kind has no class.
    """
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(record)
    cdef RecordView made
    if PyBytes_GET_SIZE(record) < 2 or start[0] != FIXARRAY_13 or start[1] >= len(classes):
        return None
    made = rmp_new(classes[start[1]])
    made._record = record
    made.seq = seq
    made.pid = pid
    made.redelivered = redelivered
    return made


# --------------------------------------------------------------------------------- msgpack, read

# What the functions below return when the bytes are not the native encoder's, or there is no memory.
cdef enum:
    UNUSUAL = -1
    DEEPEST = 16  # levels of payload: a map is walked over once for each that it is in
    FEW = 24      # keys of a map that need no memory of their own

cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    uint8_t seen  # all bytes of all texts, or-ed: whether there is more than ASCII

cdef struct Entry:
    const uint8_t* key
    uint32_t length
    const uint8_t* value


cdef inline uint64_t _big_endian(const uint8_t* at, int count) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(count):
        value = value << 8 | at[i]
    return value


cdef inline int _head(Cursor* cursor, uint8_t* tag, uint64_t* argument) noexcept nogil:
    """One value's first byte, and the number behind it: an integer, a float's bits, a length or a count.

    Small forms become their large ones: 0xcf and 0xd3 integers, 0xdb text, 0xdd array, 0xdf map, 0xc6 bin.
    """
    cdef uint8_t first
    cdef int width
    if cursor.at >= cursor.end:
        return UNUSUAL
    first = cursor.at[0]
    cursor.at += 1
    tag[0] = first
    argument[0] = 0
    if first < 0x80:
        tag[0], argument[0] = 0xcf, first
        return 0
    if first < 0x90:
        tag[0], argument[0] = 0xdf, first & 0x0f
        return 0
    if first < 0xa0:
        tag[0], argument[0] = 0xdd, first & 0x0f
        return 0
    if first < 0xc0:
        tag[0], argument[0] = 0xdb, first & 0x1f
        return 0
    if first >= 0xe0:
        tag[0], argument[0] = 0xd3, <uint64_t><int64_t>(<signed char>first)
        return 0
    if first == 0xc0 or first == 0xc2 or first == 0xc3:
        return 0
    if first >= 0xcc and first <= 0xcf:
        width, tag[0] = 1 << (first - 0xcc), 0xcf
    elif first >= 0xd0 and first <= 0xd3:
        width, tag[0] = 1 << (first - 0xd0), 0xd3
    elif first == 0xcb:
        width = 8
    elif first >= 0xd9 and first <= 0xdb:
        width, tag[0] = 1 << (first - 0xd9), 0xdb
    elif first >= 0xc4 and first <= 0xc6:
        width, tag[0] = 1 << (first - 0xc4), 0xc6
    elif first == 0xdc or first == 0xdd:
        width, tag[0] = 2 << (first - 0xdc), 0xdd
    elif first == 0xde or first == 0xdf:
        width, tag[0] = 2 << (first - 0xde), 0xdf
    else:
        return UNUSUAL
    if cursor.end - cursor.at < width:
        return UNUSUAL
    argument[0] = _big_endian(cursor.at, width)
    if tag[0] == 0xd3 and width < 8 and argument[0] >> (8 * width - 1):
        argument[0] |= ~<uint64_t>0 << (8 * width)
    cursor.at += width
    return 0


cdef inline int _take(Cursor* cursor, uint64_t length, const uint8_t** start) noexcept nogil:
    if <uint64_t>(cursor.end - cursor.at) < length:
        return UNUSUAL
    start[0] = cursor.at
    cursor.at += length
    return 0


cdef int _skip(Cursor* cursor) noexcept nogil:
    """Over one value, however deep: counts what is left to pass instead of descending."""
    cdef uint64_t left = 1
    cdef uint64_t argument
    cdef uint8_t tag
    cdef const uint8_t* start
    while left:
        left -= 1
        if _head(cursor, &tag, &argument):
            return UNUSUAL
        if tag == 0xdb or tag == 0xc6:
            if _take(cursor, argument, &start):
                return UNUSUAL
        elif tag == 0xdd:
            left += argument
        elif tag == 0xdf:
            left += 2 * argument
    return 0


cdef enum:
    NIL = 1
    INT = 2
    TEXT = 4
    BIN = 8
    UUID = 16

# kind, uuid, parent_uuid, timestamp_us, name, category, attributes, thread_id, stack, and four payloads
cdef int[13] _ALLOWED = [
    INT, UUID, NIL | UUID, INT, TEXT, NIL | INT | TEXT, INT, INT, NIL | BIN, NIL | BIN, NIL | BIN, NIL | BIN, NIL | BIN
]


cdef object _field(Cursor* cursor, int allowed):
    """One field as a Python object; Ellipsis if its type is not allowed."""
    cdef uint8_t tag
    cdef uint64_t argument
    cdef const uint8_t* start
    if _head(cursor, &tag, &argument):
        return ...
    if tag == 0xc0 and allowed & NIL:
        return None
    if tag == 0xcf and allowed & INT:
        return argument
    if tag == 0xd3 and allowed & INT:
        return <int64_t>argument
    if tag == 0xc6 and (allowed & BIN or (allowed & UUID and argument == 16)) and not _take(cursor, argument, &start):
        return PyBytes_FromStringAndSize(<const char*>start, <Py_ssize_t>argument)
    if tag == 0xdb and allowed & TEXT and not _take(cursor, argument, &start):
        try:
            return PyUnicode_DecodeUTF8(<const char*>start, <Py_ssize_t>argument, NULL)
        except UnicodeDecodeError:
            return ...
    return ...


def read_fields(bytes record not None) -> list[Any] | None:
    """The 13 fields of a record, its payloads still packed. None: not all are as the native encoder writes them."""
    cdef Cursor cursor
    cdef list fields = []
    cdef uint8_t tag
    cdef uint64_t count
    cdef object field
    cdef int index
    cursor.at = <const uint8_t*>PyBytes_AS_STRING(record)
    cursor.end = cursor.at + PyBytes_GET_SIZE(record)
    if _head(&cursor, &tag, &count) or tag != 0xdd or count != 13:
        return None
    for index in range(13):
        field = _field(&cursor, _ALLOWED[index])
        if field is ...:
            return None
        fields.append(field)
    return fields if cursor.at == cursor.end else None


# --------------------------------------------------------------------------------- JSON, written

cdef inline int _raw(rmp_buffer* out, const char* text) noexcept nogil:
    return rmp_write_raw(out, text, strlen(text))


cdef int _write_number(rmp_buffer* out, uint64_t magnitude, bint negative) noexcept nogil:
    cdef char digits[24]
    cdef int at = 24
    while True:
        at -= 1
        digits[at] = 48 + magnitude % 10
        magnitude //= 10
        if magnitude == 0:
            break
    if negative:
        at -= 1
        digits[at] = 45
    return rmp_write_raw(out, &digits[at], 24 - at)


cdef int _write_digits(rmp_buffer* out, uint64_t value, int count) noexcept nogil:
    cdef char digits[8]
    cdef int at
    for at in range(count - 1, -1, -1):
        digits[at] = 48 + value % 10
        value //= 10
    return rmp_write_raw(out, digits, count)


cdef int _write_escape(rmp_buffer* out, uint8_t byte) noexcept nogil:
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef char text[6]
    text[0] = 92
    if byte == 34 or byte == 92:
        text[1] = byte
    elif byte == 10:
        text[1] = b"n"
    elif byte == 13:
        text[1] = b"r"
    elif byte == 9:
        text[1] = b"t"
    elif byte == 12:
        text[1] = b"f"
    elif byte == 8:
        text[1] = b"b"
    else:
        text[1], text[2], text[3] = b"u", b"0", b"0"
        text[4], text[5] = hexadecimal[byte >> 4], hexadecimal[byte & 15]
        return rmp_write_raw(out, text, 6)
    return rmp_write_raw(out, text, 2)


cdef int _write_text(rmp_buffer* out, Cursor* cursor, const uint8_t* text, size_t length) noexcept nogil:
    cdef size_t run = 0, i
    cdef uint8_t byte, seen = 0
    if rmp_buffer_reserve(out, length + 2) or rmp_write_byte(out, 34):
        return UNUSUAL
    for i in range(length):
        byte = text[i]
        seen |= byte
        if byte < 32 or byte == 34 or byte == 92:
            if rmp_write_raw(out, text + run, i - run) or _write_escape(out, byte):
                return UNUSUAL
            run = i + 1
    cursor.seen |= seen
    if rmp_write_raw(out, text + run, length - run):
        return UNUSUAL
    return rmp_write_byte(out, 34)


cdef int _write_double(rmp_buffer* out, uint64_t bits) except -2:
    cdef double value
    cdef char* text
    cdef int failed
    memcpy(&value, &bits, 8)
    if not isfinite(value):
        return _raw(out, b"null")
    text = PyOS_double_to_string(value, b"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    failed = _raw(out, text)
    PyMem_Free(text)
    return failed


cdef inline int _order(const Entry* a, const Entry* b) noexcept nogil:
    """By code points, as Python sorts: UTF-8 keeps that order."""
    cdef int order = memcmp(a.key, b.key, min(a.length, b.length))
    return order if order else (a.length > b.length) - (a.length < b.length)


cdef int _compare(const void* a, const void* b) noexcept nogil:
    return _order(<const Entry*>a, <const Entry*>b)


cdef void _sort(Entry* entries, uint64_t count) noexcept nogil:
    cdef Entry moved
    cdef uint64_t i, at
    if count > FEW:
        qsort(entries, count, sizeof(Entry), _compare)
        return
    for i in range(1, count):
        moved = entries[i]
        at = i
        while at > 0 and _order(&entries[at - 1], &moved) > 0:
            entries[at] = entries[at - 1]
            at -= 1
        entries[at] = moved


cdef int _write_entries(rmp_buffer* out, Cursor* cursor, Entry* entries, uint64_t count, int depth) except -2:
    cdef uint64_t argument, i
    cdef uint8_t tag
    cdef const uint8_t* after
    for i in range(count):
        if _head(cursor, &tag, &argument) or tag != 0xdb or _take(cursor, argument, &entries[i].key):
            return UNUSUAL
        entries[i].length = <uint32_t>argument
        entries[i].value = cursor.at
        if _skip(cursor):
            return UNUSUAL
    after = cursor.at
    _sort(entries, count)
    for i in range(count):
        if i and _order(&entries[i - 1], &entries[i]) == 0:
            return UNUSUAL
        if rmp_write_byte(out, 44 if i else 123) or _write_text(out, cursor, entries[i].key, entries[i].length):
            return UNUSUAL
        cursor.at = entries[i].value
        if rmp_write_byte(out, 58) or _write_value(out, cursor, depth):
            return UNUSUAL
    cursor.at = after
    return rmp_write_byte(out, 125)


cdef int _write_map(rmp_buffer* out, Cursor* cursor, uint64_t count, int depth) except -2:
    cdef Entry few[FEW]
    cdef Entry* entries = few
    cdef int failed
    if count == 0:
        return _raw(out, b"{}")
    if count > <uint64_t>(cursor.end - cursor.at):
        return UNUSUAL
    if count > FEW:
        entries = <Entry*>malloc(count * sizeof(Entry))
        if entries == NULL:
            return UNUSUAL
    try:
        failed = _write_entries(out, cursor, entries, count, depth)
    finally:
        if entries != few:
            free(entries)
    return failed


cdef int _write_array(rmp_buffer* out, Cursor* cursor, uint64_t count, int depth) except -2:
    cdef uint64_t i
    if rmp_write_byte(out, 91):
        return UNUSUAL
    for i in range(count):
        if (i and rmp_write_byte(out, 44)) or _write_value(out, cursor, depth):
            return UNUSUAL
    return rmp_write_byte(out, 93)


cdef int _write_value(rmp_buffer* out, Cursor* cursor, int depth) except -2:
    cdef uint8_t tag
    cdef uint64_t argument
    cdef const uint8_t* text
    if depth > DEEPEST or _head(cursor, &tag, &argument):
        return UNUSUAL
    if tag == 0xdb:
        return UNUSUAL if _take(cursor, argument, &text) else _write_text(out, cursor, text, argument)
    if tag == 0xcf:
        return _write_number(out, argument, False)
    if tag == 0xd3:
        return _write_number(out, 0 - argument if argument >> 63 else argument, argument >> 63)
    if tag == 0xcb:
        return _write_double(out, argument)
    if tag == 0xc0:
        return _raw(out, b"null")
    if tag == 0xc2:
        return _raw(out, b"false")
    if tag == 0xc3:
        return _raw(out, b"true")
    if tag == 0xdd:
        return _write_array(out, cursor, argument, depth + 1)
    if tag == 0xdf:
        return _write_map(out, cursor, argument, depth + 1)
    return UNUSUAL


cdef int _write_payload(rmp_buffer* out, Cursor* record) except -2:
    """One payload field of the record: nil, or a bin that holds one value and nothing else."""
    cdef uint8_t tag
    cdef uint64_t length
    cdef Cursor payload
    if _head(record, &tag, &length):
        return UNUSUAL
    if tag == 0xc0:
        return _raw(out, b"null")
    payload.seen = 0
    if tag != 0xc6 or _take(record, length, &payload.at):
        return UNUSUAL
    payload.end = payload.at + length
    if _write_value(out, &payload, 0) or payload.at != payload.end:
        return UNUSUAL
    record.seen |= payload.seen
    return 0


cdef int _write_uuid(rmp_buffer* out, const uint8_t* uuid) noexcept nogil:
    cdef const char* hexadecimal = b"0123456789abcdef"
    cdef char text[38]
    cdef int i, at = 1
    text[0] = 34
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            text[at] = 45
            at += 1
        text[at] = hexadecimal[uuid[i] >> 4]
        text[at + 1] = hexadecimal[uuid[i] & 15]
        at += 2
    text[37] = 34
    return rmp_write_raw(out, text, 38)


cdef int _write_time(rmp_buffer* out, uint64_t timestamp_us) noexcept nogil:
    """RFC 3339 in UTC, with 0, 3 or 6 digits of fraction. Howard Hinnant's civil_from_days, from 1970 on."""
    cdef uint64_t second = timestamp_us // 1000000, fraction_us = timestamp_us % 1000000
    cdef uint64_t days = second // 86400 + 719468, second_of_day = second % 86400
    cdef uint64_t era = days // 146097, day_of_era = days % 146097
    cdef uint64_t year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    cdef uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint64_t shifted_month = (5 * day_of_year + 2) // 153
    cdef uint64_t month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    cdef int failed = _write_digits(out, year_of_era + era * 400 + (month <= 2), 4) or rmp_write_byte(out, 45)
    failed = failed or _write_digits(out, month, 2) or rmp_write_byte(out, 45)
    failed = failed or _write_digits(out, day_of_year - (153 * shifted_month + 2) // 5 + 1, 2) or rmp_write_byte(out, 84)
    failed = failed or _write_digits(out, second_of_day // 3600, 2) or rmp_write_byte(out, 58)
    failed = failed or _write_digits(out, second_of_day // 60 % 60, 2) or rmp_write_byte(out, 58)
    failed = failed or _write_digits(out, second_of_day % 60, 2)
    if fraction_us:
        failed = failed or rmp_write_byte(out, 46)
        failed = failed or (_write_digits(out, fraction_us, 6) if fraction_us % 1000
                            else _write_digits(out, fraction_us // 1000, 3))
    return failed or _raw(out, b"+00:00")


# --------------------------------------------------------------------------------- the line of an event

cdef struct Envelope:
    uint64_t timestamp_us
    const uint8_t* uuid
    const uint8_t* parent  # NULL: none
    const uint8_t* name
    uint64_t name_bytes
    const uint8_t* category
    uint64_t category_bytes
    uint64_t attributes
    uint8_t kind

cdef uint64_t LATEST_US = 253402300800 * 1000000  # the year 10000

cdef tuple _category_texts = tuple(name.encode() for name in _CATEGORIES)
cdef bytes _unknown = b"unknown"
cdef tuple _attribute_texts = tuple(
    ("[" + ",".join(f'"{name}"' for name in attribute_names(bits)) + "]").encode() for bits in range(32)
)


cdef int _read_category(Cursor* cursor, Envelope* envelope, bint is_scope) except -2:
    cdef uint8_t tag
    cdef uint64_t argument
    cdef bytes known
    if _head(cursor, &tag, &argument):
        return UNUSUAL
    envelope.category = NULL
    if tag == 0xdb:
        envelope.category_bytes = argument
        return UNUSUAL if argument == 0 else _take(cursor, argument, &envelope.category)
    if tag == 0xc0 and not is_scope:
        return 0
    if tag != 0xcf and tag != 0xc0:
        return UNUSUAL
    known = _category_texts[argument] if tag == 0xcf and argument < <uint64_t>len(_category_texts) else _unknown
    envelope.category = <const uint8_t*>PyBytes_AS_STRING(known)
    envelope.category_bytes = <uint64_t>PyBytes_GET_SIZE(known)
    return 0


cdef int _read_uuid(Cursor* cursor, const uint8_t** uuid) noexcept nogil:
    cdef uint8_t tag
    cdef uint64_t argument
    uuid[0] = NULL
    if _head(cursor, &tag, &argument):
        return UNUSUAL
    if tag == 0xc0:
        return 0
    return UNUSUAL if tag != 0xc6 or argument != 16 else _take(cursor, 16, uuid)


cdef int _read_envelope(Cursor* cursor, Envelope* envelope, bint is_scope) except -2:
    """The nine fields before the payloads."""
    cdef uint8_t tag
    cdef uint64_t argument
    cdef const uint8_t* stack
    if _head(cursor, &tag, &argument) or tag != 0xdd or argument != 13:
        return UNUSUAL
    if _head(cursor, &tag, &argument) or tag != 0xcf or argument > 2:
        return UNUSUAL
    envelope.kind = <uint8_t>argument
    if _read_uuid(cursor, &envelope.uuid) or envelope.uuid == NULL or _read_uuid(cursor, &envelope.parent):
        return UNUSUAL
    if _head(cursor, &tag, &envelope.timestamp_us) or tag != 0xcf or envelope.timestamp_us >= LATEST_US:
        return UNUSUAL
    if _head(cursor, &tag, &envelope.name_bytes) or tag != 0xdb or _take(cursor, envelope.name_bytes, &envelope.name):
        return UNUSUAL
    if _read_category(cursor, envelope, is_scope):
        return UNUSUAL
    if _head(cursor, &tag, &envelope.attributes) or tag != 0xcf:
        return UNUSUAL
    if _head(cursor, &tag, &argument) or tag != 0xcf:
        return UNUSUAL
    if _head(cursor, &tag, &argument) or (tag != 0xc0 and (tag != 0xc6 or _take(cursor, argument, &stack))):
        return UNUSUAL
    return 0


cdef int _write_line(rmp_buffer* out, Cursor* record, bint is_scope) except -2:
    cdef Envelope envelope
    cdef Cursor metadata
    cdef bytes attributes
    if _read_envelope(record, &envelope, is_scope) or _raw(out, b'{"atof_version":"0.1",'):
        return UNUSUAL
    if is_scope:
        attributes = _attribute_texts[envelope.attributes & 31]
        if (_raw(out, b'"attributes":') or _raw(out, PyBytes_AS_STRING(attributes)) or rmp_write_byte(out, 44)):
            return UNUSUAL
    if _raw(out, b'"category":'):
        return UNUSUAL
    if envelope.category == NULL:
        if _raw(out, b"null"):
            return UNUSUAL
    elif _write_text(out, record, envelope.category, envelope.category_bytes):
        return UNUSUAL
    # The record has data, metadata, category_profile, data_schema; the JSON has them by the alphabet.
    cdef const uint8_t* data_at = record.at
    if _skip(record):
        return UNUSUAL
    cdef const uint8_t* metadata_at = record.at
    if _skip(record) or _raw(out, b',"category_profile":') or _write_payload(out, record):
        return UNUSUAL
    cdef const uint8_t* schema_at = record.at
    record.at = data_at
    if _raw(out, b',"data":') or _write_payload(out, record):
        return UNUSUAL
    record.at = schema_at
    if _raw(out, b',"data_schema":') or _write_payload(out, record) or record.at != record.end:
        return UNUSUAL
    record.at = metadata_at
    if _raw(out, b',"kind":"scope","metadata":' if is_scope else b',"kind":"mark","metadata":') or _write_payload(out, record):
        return UNUSUAL
    if _raw(out, b',"name":') or _write_text(out, record, envelope.name, envelope.name_bytes) or _raw(out, b',"parent_uuid":'):
        return UNUSUAL
    if _raw(out, b"null") if envelope.parent == NULL else _write_uuid(out, envelope.parent):
        return UNUSUAL
    if is_scope and _raw(out, b',"scope_category":"end"' if envelope.kind == 1 else b',"scope_category":"start"'):
        return UNUSUAL
    if _raw(out, b',"timestamp":"') or _write_time(out, envelope.timestamp_us) or _raw(out, b'","uuid":'):
        return UNUSUAL
    if _write_uuid(out, envelope.uuid):
        return UNUSUAL
    return _raw(out, b"}\n")


def json_line(bytes record not None, bint is_scope) -> bytes | None:
    """A record's event in canonical ATOF 0.1: one line of UTF-8 with its line break. None: not written here.

    Args:
        record: the record.
        is_scope: whether its event is a ScopeEvent, else a MarkEvent.
    """
    cdef rmp_buffer out
    cdef Cursor cursor
    out.bytes, out.length, out.capacity = NULL, 0, 0
    cursor.at = <const uint8_t*>PyBytes_AS_STRING(record)
    cursor.end = cursor.at + PyBytes_GET_SIZE(record)
    cursor.seen = 0
    try:
        if _write_line(&out, &cursor, is_scope):
            return None
        if cursor.seen & 0x80:
            try:
                PyUnicode_DecodeUTF8(<const char*>out.bytes, <Py_ssize_t>out.length, NULL)
            except UnicodeDecodeError:
                return None
        return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)
    finally:
        rmp_buffer_free(&out)
