# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""A record's line of JSON, compiled: from msgpack to ATOF's JSON without a Python object in between.

Runs where the dispatcher runs. `json_line` writes one, `json_lines` a run of events: an event took 14 us, and takes 0.3.
Where a session is given, a line also says who has emitted its event: the member `relay_mp.origin` of its metadata.

What the native encoder does not write, types that are not JSON, and payloads of great depth are left to
`relay_mp.events`, which goes by way of Python objects. Where both give a line it is the same, and
tests/records/test_records.py holds that.
"""

from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen

from relay_mp._native.decode cimport (
    RMP_KIND_BIN,
    RMP_KIND_DOUBLE,
    RMP_KIND_FALSE,
    RMP_KIND_INT,
    RMP_KIND_LIST,
    RMP_KIND_MAP,
    RMP_KIND_NIL,
    RMP_KIND_TEXT,
    RMP_KIND_TRUE,
    RMP_KIND_UINT,
    rmp_cursor,
    rmp_read_head,
    rmp_skip,
    rmp_take,
)
from relay_mp._native.encode cimport rmp_buffer, rmp_buffer_free, rmp_buffer_reserve, rmp_write_byte, rmp_write_raw
from relay_mp._native.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyMem_Free,
    PyOS_double_to_string,
    PyUnicode_DecodeUTF8,
    Py_DTSF_ADD_DOT_0,
)
from relay_mp._native.text cimport (
    RMP_MOST_DIGITS,
    RMP_SHORT_DOUBLE_CHARACTERS,
    rmp_print_decimal,
    rmp_print_short_double,
    rmp_write_json_text,
    rmp_write_literal,
)
from relay_mp._records.members cimport FEW, Entry, compare_keys, sort_members
from relay_mp._records.records cimport UNUSUAL, RecordView, kind_of
from relay_mp._records.texts cimport Moment, Second, check_text, moment_of, write_number, write_time, write_uuid

from relay_mp.types import CATEGORIES as _CATEGORIES, attribute_names


cdef enum:
    LINE_BYTES = 640  # most lines take less
    DEEPEST = 16  # levels of payload: a map is walked over once for each that it is in

cdef inline int _write_text(rmp_buffer* out, const uint8_t* text, size_t length) noexcept nogil:
    return rmp_write_json_text(out, text, length)


cdef int _write_double(rmp_buffer* out, uint64_t bits) except -2:
    cdef double value
    cdef char* text
    cdef size_t written
    cdef int failed
    memcpy(&value, &bits, 8)
    if not isfinite(value):
        return rmp_write_literal(out, b"null")
    if rmp_buffer_reserve(out, RMP_SHORT_DOUBLE_CHARACTERS):
        return UNUSUAL
    written = rmp_print_short_double(out.bytes + out.length, value)
    out.length += written
    if written:
        return 0
    text = PyOS_double_to_string(value, b"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    failed = rmp_write_raw(out, text, strlen(text))
    PyMem_Free(text)
    return failed


cdef struct Origin:
    # Who has emitted an event, and where it is in the stream.
    const uint8_t* session  # the member, with what is before and behind it: the same in all lines
    size_t session_bytes
    uint64_t seq
    uint64_t pid
    uint64_t thread_id

cdef enum:
    ORIGIN_KEY_CHARACTERS = 15  # relay_mp.origin


cdef int _write_origin(rmp_buffer* out, const Origin* origin) noexcept nogil:
    cdef uint8_t* at
    if rmp_buffer_reserve(out, 3 * RMP_MOST_DIGITS + origin.session_bytes + 15):
        return UNUSUAL
    at = out.bytes + out.length
    memcpy(at, b'{"pid":', 7)
    at += 7
    at += rmp_print_decimal(at, origin.pid)
    memcpy(at, b',"seq":', 7)
    at += 7
    at += rmp_print_decimal(at, origin.seq)
    memcpy(at, origin.session, origin.session_bytes)
    at += origin.session_bytes
    at += rmp_print_decimal(at, origin.thread_id)
    at[0] = 125
    out.length = at + 1 - out.bytes
    return 0


cdef bytes _session_member(bytes session):
    """What is between the number of an origin's place and that of its thread."""
    cdef rmp_buffer out
    if session is None:
        return None
    out.bytes, out.length, out.capacity = NULL, 0, 0
    try:
        if (rmp_write_literal(&out, b',"session":')
                or _write_text(&out, <const uint8_t*>PyBytes_AS_STRING(session), PyBytes_GET_SIZE(session))
                or rmp_write_literal(&out, b',"thread_id":')):
            raise MemoryError("no memory for a session's id")
        return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)
    finally:
        rmp_buffer_free(&out)


cdef int _write_entries(
    rmp_buffer* out, rmp_cursor* cursor, Entry* entries, uint64_t count, int depth, const Origin* origin
) except -2:
    """A map's members in order, and between them the origin, if there is one to write: its entry has no value."""
    cdef uint64_t number, i
    cdef uint8_t kind
    cdef const uint8_t* after
    for i in range(count):
        if rmp_read_head(cursor, &kind, &number) or kind != RMP_KIND_TEXT or rmp_take(cursor, number, &entries[i].key):
            return UNUSUAL
        entries[i].length = <uint32_t>number
        entries[i].value = cursor.at
        if rmp_skip(cursor):
            return UNUSUAL
    after = cursor.at
    if origin != NULL:
        entries[count].key, entries[count].length, entries[count].value = <const uint8_t*>b"relay_mp.origin", ORIGIN_KEY_CHARACTERS, NULL
        count += 1
    sort_members(entries, count)
    for i in range(count):
        if i and compare_keys(&entries[i - 1], &entries[i]) == 0:
            return UNUSUAL
        if rmp_write_byte(out, 44 if i else 123) or _write_text(out, entries[i].key, entries[i].length):
            return UNUSUAL
        if rmp_write_byte(out, 58):
            return UNUSUAL
        if entries[i].value == NULL:
            if _write_origin(out, origin):
                return UNUSUAL
            continue
        cursor.at = <const uint8_t*>entries[i].value
        if write_value(out, cursor, depth):
            return UNUSUAL
    cursor.at = after
    return rmp_write_byte(out, 125)


cdef int _write_large_map(rmp_buffer* out, rmp_cursor* cursor, uint64_t count, int depth, const Origin* origin) except -2:
    cdef Entry* entries = <Entry*>malloc((count + 1) * sizeof(Entry))
    if entries == NULL:
        return UNUSUAL
    try:
        return _write_entries(out, cursor, entries, count, depth, origin)
    finally:
        free(entries)


cdef int _write_map(rmp_buffer* out, rmp_cursor* cursor, uint64_t count, int depth, const Origin* origin) except -2:
    cdef Entry few[FEW + 1]
    if count == 0 and origin == NULL:
        return rmp_write_literal(out, b"{}")
    if count > <uint64_t>(cursor.end - cursor.at):
        return UNUSUAL
    if count > FEW:
        return _write_large_map(out, cursor, count, depth, origin)
    return _write_entries(out, cursor, few, count, depth, origin)


cdef int _write_array(rmp_buffer* out, rmp_cursor* cursor, uint64_t count, int depth) except -2:
    cdef uint64_t i
    if rmp_write_byte(out, 91):
        return UNUSUAL
    for i in range(count):
        if (i and rmp_write_byte(out, 44)) or write_value(out, cursor, depth):
            return UNUSUAL
    return rmp_write_byte(out, 93)


cdef int write_value(rmp_buffer* out, rmp_cursor* cursor, int depth) except -2:
    cdef uint8_t kind
    cdef uint64_t number
    cdef const uint8_t* text
    if depth > DEEPEST or rmp_read_head(cursor, &kind, &number):
        return UNUSUAL
    if kind == RMP_KIND_TEXT:
        return UNUSUAL if rmp_take(cursor, number, &text) else _write_text(out, text, number)
    if kind == RMP_KIND_UINT:
        return write_number(out, number, False)
    if kind == RMP_KIND_INT:
        return write_number(out, 0 - number if number >> 63 else number, number >> 63)
    if kind == RMP_KIND_DOUBLE:
        return _write_double(out, number)
    if kind == RMP_KIND_NIL:
        return rmp_write_literal(out, b"null")
    if kind == RMP_KIND_FALSE:
        return rmp_write_literal(out, b"false")
    if kind == RMP_KIND_TRUE:
        return rmp_write_literal(out, b"true")
    if kind == RMP_KIND_LIST:
        return _write_array(out, cursor, number, depth + 1)
    if kind == RMP_KIND_MAP:
        return _write_map(out, cursor, number, depth + 1, NULL)
    return UNUSUAL


cdef int _write_payload(rmp_buffer* out, rmp_cursor* record) except -2:
    """One payload field of the record: nil, or a bin that holds one value and nothing else."""
    cdef uint8_t kind
    cdef uint64_t length
    cdef rmp_cursor payload
    if rmp_read_head(record, &kind, &length):
        return UNUSUAL
    if kind == RMP_KIND_NIL:
        return rmp_write_literal(out, b"null")
    if kind != RMP_KIND_BIN or rmp_take(record, length, &payload.at):
        return UNUSUAL
    payload.end = payload.at + length
    if write_value(out, &payload, 0) or payload.at != payload.end:
        return UNUSUAL
    return 0


cdef int _write_metadata(rmp_buffer* out, rmp_cursor* record, const Origin* origin) except -2:
    """The record's metadata with the origin in it; by itself where there is none, and not in what is no object."""
    cdef uint8_t kind
    cdef uint64_t length, count
    cdef rmp_cursor payload
    cdef const uint8_t* start = record.at
    if origin == NULL:
        return _write_payload(out, record)
    if rmp_read_head(record, &kind, &length):
        return UNUSUAL
    if kind == RMP_KIND_NIL:
        if rmp_write_literal(out, b'{"relay_mp.origin":') or _write_origin(out, origin):
            return UNUSUAL
        return rmp_write_byte(out, 125)
    if kind != RMP_KIND_BIN or rmp_take(record, length, &payload.at):
        return UNUSUAL
    payload.end = payload.at + length
    if rmp_read_head(&payload, &kind, &count):
        return UNUSUAL
    if kind != RMP_KIND_MAP:
        record.at = start
        return _write_payload(out, record)
    return UNUSUAL if _write_map(out, &payload, count, 1, origin) or payload.at != payload.end else 0


cdef int _write_quoted(rmp_buffer* out, const uint8_t* uuid) noexcept nogil:
    if rmp_write_byte(out, 34) or write_uuid(out, uuid):
        return UNUSUAL
    return rmp_write_byte(out, 34)


# --------------------------------------------------------------------------------- the line of an event

cdef struct Envelope:
    Moment moment
    const uint8_t* uuid
    const uint8_t* parent  # NULL: none
    const uint8_t* name
    uint64_t name_bytes
    const uint8_t* category
    uint64_t category_bytes
    uint64_t attributes
    uint64_t thread_id
    uint8_t kind

cdef tuple _category_texts = tuple(name.encode() for name in _CATEGORIES)
cdef bytes _unknown = b"unknown"
cdef tuple _attribute_texts = tuple(
    ("[" + ",".join(f'"{name}"' for name in attribute_names(bits)) + "]").encode() for bits in range(32)
)


cdef int _read_category(rmp_cursor* cursor, Envelope* envelope, bint is_scope) except -2:
    cdef uint8_t kind
    cdef uint64_t number
    cdef bytes known
    if rmp_read_head(cursor, &kind, &number):
        return UNUSUAL
    envelope.category = NULL
    if kind == RMP_KIND_TEXT:
        envelope.category_bytes = number
        return UNUSUAL if number == 0 else rmp_take(cursor, number, &envelope.category)
    if kind == RMP_KIND_NIL and not is_scope:
        return 0
    if kind != RMP_KIND_UINT and kind != RMP_KIND_NIL:
        return UNUSUAL
    known = _category_texts[number] if kind == RMP_KIND_UINT and number < <uint64_t>len(_category_texts) else _unknown
    envelope.category = <const uint8_t*>PyBytes_AS_STRING(known)
    envelope.category_bytes = <uint64_t>PyBytes_GET_SIZE(known)
    return 0


cdef int _read_uuid(rmp_cursor* cursor, const uint8_t** uuid) noexcept nogil:
    cdef uint8_t kind
    cdef uint64_t number
    uuid[0] = NULL
    if rmp_read_head(cursor, &kind, &number):
        return UNUSUAL
    if kind == RMP_KIND_NIL:
        return 0
    return UNUSUAL if kind != RMP_KIND_BIN or number != 16 else rmp_take(cursor, 16, uuid)


cdef int _read_envelope(rmp_cursor* cursor, Envelope* envelope, bint is_scope) except -2:
    """The nine fields before the payloads."""
    cdef uint8_t kind
    cdef uint64_t number
    cdef const uint8_t* stack
    if rmp_read_head(cursor, &kind, &number) or kind != RMP_KIND_LIST or number != 13:
        return UNUSUAL
    if rmp_read_head(cursor, &kind, &number) or kind != RMP_KIND_UINT or number > 2:
        return UNUSUAL
    envelope.kind = <uint8_t>number
    if _read_uuid(cursor, &envelope.uuid) or envelope.uuid == NULL or _read_uuid(cursor, &envelope.parent):
        return UNUSUAL
    if rmp_read_head(cursor, &kind, &number) or (kind != RMP_KIND_UINT and kind != RMP_KIND_INT):
        return UNUSUAL
    envelope.moment = moment_of(number, kind == RMP_KIND_INT and number >> 63)
    if rmp_read_head(cursor, &kind, &envelope.name_bytes) or kind != RMP_KIND_TEXT or rmp_take(cursor, envelope.name_bytes, &envelope.name):
        return UNUSUAL
    if _read_category(cursor, envelope, is_scope):
        return UNUSUAL
    if rmp_read_head(cursor, &kind, &envelope.attributes) or kind != RMP_KIND_UINT:
        return UNUSUAL
    if rmp_read_head(cursor, &kind, &envelope.thread_id) or kind != RMP_KIND_UINT:
        return UNUSUAL
    if rmp_read_head(cursor, &kind, &number) or (kind != RMP_KIND_NIL and (kind != RMP_KIND_BIN or rmp_take(cursor, number, &stack))):
        return UNUSUAL
    return 0


cdef int _write_line(rmp_buffer* out, rmp_cursor* record, bint is_scope, Second* newest, Origin* origin) except -2:
    cdef Envelope envelope
    cdef bytes attributes
    if _read_envelope(record, &envelope, is_scope) or rmp_write_literal(out, b'{"atof_version":"0.1",'):
        return UNUSUAL
    if origin != NULL:
        origin.thread_id = envelope.thread_id
    if is_scope:
        attributes = _attribute_texts[envelope.attributes & 31]
        if (rmp_write_literal(out, b'"attributes":') or rmp_write_raw(out, PyBytes_AS_STRING(attributes), PyBytes_GET_SIZE(attributes)) or rmp_write_byte(out, 44)):
            return UNUSUAL
    if rmp_write_literal(out, b'"category":'):
        return UNUSUAL
    if envelope.category == NULL:
        if rmp_write_literal(out, b"null"):
            return UNUSUAL
    elif _write_text(out, envelope.category, envelope.category_bytes):
        return UNUSUAL
    # The record has data, metadata, category_profile, data_schema; the JSON has them by the alphabet.
    cdef const uint8_t* data_at = record.at
    if rmp_skip(record):
        return UNUSUAL
    cdef const uint8_t* metadata_at = record.at
    if rmp_skip(record) or rmp_write_literal(out, b',"category_profile":') or _write_payload(out, record):
        return UNUSUAL
    cdef const uint8_t* schema_at = record.at
    record.at = data_at
    if rmp_write_literal(out, b',"data":') or _write_payload(out, record):
        return UNUSUAL
    record.at = schema_at
    if rmp_write_literal(out, b',"data_schema":') or _write_payload(out, record) or record.at != record.end:
        return UNUSUAL
    record.at = metadata_at
    if rmp_write_literal(out, b',"kind":"scope","metadata":' if is_scope else b',"kind":"mark","metadata":') or _write_metadata(out, record, origin):
        return UNUSUAL
    if rmp_write_literal(out, b',"name":') or _write_text(out, envelope.name, envelope.name_bytes) or rmp_write_literal(out, b',"parent_uuid":'):
        return UNUSUAL
    if rmp_write_literal(out, b"null") if envelope.parent == NULL else _write_quoted(out, envelope.parent):
        return UNUSUAL
    if is_scope and rmp_write_literal(out, b',"scope_category":"end"' if envelope.kind == 1 else b',"scope_category":"start"'):
        return UNUSUAL
    if rmp_write_literal(out, b',"timestamp":"') or write_time(out, envelope.moment, newest) or rmp_write_literal(out, b'","uuid":'):
        return UNUSUAL
    if _write_quoted(out, envelope.uuid):
        return UNUSUAL
    return rmp_write_literal(out, b"}\n")


cdef int _append_line(rmp_buffer* out, bytes record, bint is_scope, Second* newest, Origin* origin) except -2:
    """A record's line behind what is there already. If it is not written here, the buffer may hold a part of it."""
    cdef rmp_cursor cursor
    cdef size_t before = out.length
    cursor.at = <const uint8_t*>PyBytes_AS_STRING(record)
    cursor.end = cursor.at + PyBytes_GET_SIZE(record)
    if _write_line(out, &cursor, is_scope, newest, origin):
        return UNUSUAL
    return UNUSUAL if check_text(out.bytes + before, out.length - before) else 0


def json_line(bytes record not None, bint is_scope) -> bytes | None:
    """A record's event in canonical ATOF 0.1: one line of UTF-8 with its line break. None: not written here.

    Args:
        record: the record.
        is_scope: whether its event is a ScopeEvent, else a MarkEvent.
    """
    cdef rmp_buffer out
    cdef Second newest
    out.bytes, out.length, out.capacity = NULL, 0, 0
    newest.length = 0
    try:
        if _append_line(&out, record, is_scope, &newest, NULL):
            return None
        return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)
    finally:
        rmp_buffer_free(&out)


cdef int _append_event(rmp_buffer* out, event, Second* newest, bytes session, bytes member) except -2:
    """An event's line behind what is there already; by its own method, if it is not written here.

    `member`: see `_session_member`.
    """
    cdef size_t before = out.length
    cdef bytes record, line
    cdef Origin origin
    cdef Origin* written = NULL
    cdef bint is_view = isinstance(event, RecordView)
    if is_view:
        record = (<RecordView>event)._record
        if session is not None:
            written = &origin
            origin.session, origin.session_bytes = <const uint8_t*>PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member)
            origin.seq, origin.pid = (<RecordView>event).seq, (<RecordView>event).pid
        if kind_of(record) < 3 and not _append_line(out, record, kind_of(record) < 2, newest, written):
            return 0
        out.length = before
    line = event._line_with_origin(session.decode()) if is_view and session is not None else event.to_json_line()
    return rmp_write_raw(out, PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))


def event_line(event, bytes session=None) -> bytes:
    """The line of one event; see `json_lines`."""
    cdef rmp_buffer out
    cdef Second newest
    out.bytes, out.length, out.capacity = NULL, 0, 0
    newest.length = 0
    try:
        if _append_event(&out, event, &newest, session, _session_member(session)):
            raise MemoryError("no memory for a line of JSON")
        return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>out.length)
    finally:
        rmp_buffer_free(&out)


def json_lines(list events not None, size_t limit_bytes, size_t room_bytes, bytes session=None) -> tuple:
    """The lines of events one behind the other, as `to_json_line()` gives each: of the first events, as many as fit.

    Args:
        events: in order.
        limit_bytes: no more than so much.
        room_bytes: nothing behind the line that is the first to reach so much.
        session: the session's id in UTF-8, if the lines have their events' origin.

    Returns:
        The lines, and how many there are. An event that raises ends them: it is not among them.
    """
    cdef rmp_buffer out
    cdef Second newest
    cdef size_t end = 0
    cdef Py_ssize_t count = 0
    cdef bytes member = _session_member(session)
    out.bytes, out.length, out.capacity = NULL, 0, 0
    newest.length = 0
    try:
        if rmp_buffer_reserve(&out, min(limit_bytes, LINE_BYTES * len(events))):
            raise MemoryError("no memory for lines of JSON")
        for event in events:
            try:
                failed = _append_event(&out, event, &newest, session, member)
            except Exception:  # said when it is asked alone
                break
            if failed or out.length > limit_bytes:
                break
            end = out.length
            count += 1
            if end >= room_bytes:
                break
        return PyBytes_FromStringAndSize(<const char*>out.bytes, <Py_ssize_t>end), count
    finally:
        rmp_buffer_free(&out)


# --------------------------------------------------------------------------------- a payload's text

def payload_json(RecordView event not None, int index) -> str | None:
    """One of an event's payloads as JSON, as its line has it; "null" where there is none. None: not written here.

    Args:
        event: the event.
        index: the payload's place in the record.
    """
    cdef rmp_buffer out
    cdef rmp_cursor cursor
    if not event._is_usual():
        return None
    out.bytes, out.length, out.capacity = NULL, 0, 0
    cursor.at = <const uint8_t*>PyBytes_AS_STRING(event._record) + event._at[index]
    cursor.end = <const uint8_t*>PyBytes_AS_STRING(event._record) + PyBytes_GET_SIZE(event._record)
    try:
        if _write_payload(&out, &cursor):
            return None
        return PyUnicode_DecodeUTF8(<const char*>out.bytes, <Py_ssize_t>out.length, NULL)
    except UnicodeDecodeError:
        return None
    finally:
        rmp_buffer_free(&out)
