# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""OTLP's spans, log records and attributes in protobuf, compiled: written without messages.

Runs where the dispatcher runs, below the sinks of all signals. A span is written straight from records. Which attributes
it has is the projections' business, and they say it by names, once, for all events.

    AttributeNames, record ──▶ SpanWriter.add     ─┐
    {key: Python value}    ──▶ SpanWriter.update  ─┴─▶ KeyValues ──▶ finish ──▶ the field `spans` of ScopeSpans
    body, {key: Python value} ──▶ LogWriter.record ──▶ the field `log_records` of ScopeLogs
    {key: Python value} ──▶ ValueWriter.attributes ──▶ the field `attributes` of a metric's point

Limits of attributes are applied to what is written, see limits.pyx.

Python values become AnyValues in one place, ValueWriter. It has a bound of depth: a span's attributes nest nowhere and a
log's body does. A payload of a span goes from the record's msgpack to AnyValues with no Python object made of it. What the native encoder has not
written, and what is not a finite number, goes by way of Python objects, in the same order to the same bytes.

Fields are in the order of their numbers, as the official encoder writes them, and so the bytes are the same;
tests/observability/otel/test_otlp_encoding.py holds that. Source: opentelemetry-proto 1.x, trace.proto, logs.proto and
common.proto; Protocol Buffers, Encoding. The extra `otel` is not needed.
"""

from cpython.object cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from relay_mp._native.decode cimport (
    RMP_KIND_DOUBLE,
    RMP_KIND_FALSE,
    RMP_KIND_INT,
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
from relay_mp._native.encode cimport rmp_buffer, rmp_buffer_free
from relay_mp._native.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyLong_AsLongLongAndOverflow,
    PyUnicode_AsUTF8AndSize,
)
from relay_mp._records.json_line cimport write_value
from relay_mp._records.members cimport Entry, sort_members
from relay_mp._records.records cimport RecordView
from relay_mp._records.texts cimport check_text, write_uuid
from relay_mp.observability.otel.places cimport Place
from relay_mp.observability.otel.limits cimport AttributeLimits
from relay_mp.observability.otel.protobuf cimport (
    ANY_ARRAY,
    ANY_BOOL,
    ANY_DOUBLE,
    ANY_INT,
    ANY_PAIRS,
    ANY_STRING,
    ARRAY_VALUES,
    HEAD,
    PAIRS_VALUES,
    PAIR_KEY,
    PAIR_VALUE,
    begin_message,
    end_message,
    framed,
    nanoseconds,
    put_field,
    put_fixed32,
    put_fixed64,
    put_number,
    put_varint,
    read_varint,
    reserve,
    varint_bytes,
)

from relay_mp.observability.otel.values import MAX_KEYS as _MAX_KEYS, add_flat, clean, json_text
from relay_mp.types import CATEGORIES as _CATEGORIES, attribute_names


cdef enum:
    HEADS = 4 * HEAD  # before a text as an attribute: of the KeyValue, its key, the AnyValue and the text itself
    MOST_KEYS = 64
    # Tags, as those in protobuf.pxd.
    EVENT_TIME = 0x09
    EVENT_NAME = 0x12
    EVENT_ATTRIBUTES = 0x1a
    EVENT_DROPPED = 0x20
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
    SPAN_DROPPED = 0x50
    SPAN_EVENTS = 0x5a
    SPAN_DROPPED_EVENTS = 0x60
    SPAN_STATUS = 0x7a
    SPANS = 0x12
    RECORD_TIME = 0x09
    RECORD_SEVERITY = 0x10
    RECORD_SEVERITY_TEXT = 0x1a
    RECORD_BODY = 0x2a
    RECORD_ATTRIBUTES = 0x32
    RECORD_DROPPED = 0x38
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

assert _MAX_KEYS == MOST_KEYS


cdef struct Pair:
    # A KeyValue that is written.
    const uint8_t* key
    size_t key_length
    const uint8_t* value  # the AnyValue
    size_t value_length
    size_t end


cdef Pair read_pair(const rmp_buffer* out, size_t start) noexcept nogil:
    cdef Pair pair
    cdef const uint8_t* at = out.bytes + start + 1
    cdef size_t size = read_varint(&at)
    pair.end = <size_t>(at - out.bytes) + size
    pair.key, pair.key_length = at, 0
    if at[0] == PAIR_KEY:
        at += 1
        pair.key_length = read_varint(&at)
        pair.key = at
        at += pair.key_length
    at += 1
    pair.value_length = read_varint(&at)
    pair.value = at
    return pair


# ---------------------------------------------------------------------------------------------- attributes

cdef struct Key:
    const char* text
    size_t length
    const uint8_t* member  # behind a dot; NULL: there is none
    size_t member_length


cdef inline Key _key(const char* text, size_t length) noexcept nogil:
    cdef Key key
    key.text, key.length, key.member, key.member_length = text, length, NULL, 0
    return key


cdef inline size_t _key_bytes(const Key* key) noexcept nogil:
    return key.length if key.member == NULL else key.length + 1 + key.member_length


cdef bint _read_members(Entry* entries, rmp_cursor* cursor, uint64_t count) except -1:
    """A map's members, sorted. False: it is not as the native encoder writes it."""
    cdef uint64_t i, number
    cdef uint8_t kind
    for i in range(count):
        if rmp_read_head(cursor, &kind, &number) or kind != RMP_KIND_TEXT or rmp_take(cursor, number, &entries[i].key):
            return False
        if check_text(entries[i].key, number):
            return False
        entries[i].length, entries[i].value = <uint32_t>number, cursor.at
        if rmp_skip(cursor):
            return False
    if cursor.at != cursor.end:
        return False
    sort_members(entries, count)
    for i in range(1, count):
        if entries[i].length == entries[i - 1].length and not memcmp(entries[i].key, entries[i - 1].key, entries[i].length):
            return False
    return True


cdef enum Source:
    UUID, PARENT, CATEGORY, ATTRIBUTES, SEQ, PID, THREAD, FLAT, OWN, WHOLE

# What attributes are made of: which of the record's fields it is, what is done with it, the event's own name for it.
_SOURCES = {
    "uuid": (1, UUID),
    "parent_uuid": (2, PARENT),
    "category": (5, CATEGORY),
    "attributes": (6, ATTRIBUTES),
    "seq": (-1, SEQ),
    "pid": (-1, PID),
    "thread_id": (7, THREAD),
    "data": (9, FLAT),
    "metadata": (10, FLAT),
    "category_profile": (11, FLAT),
    "data_schema": (12, WHOLE),
}

cdef enum:
    MOST_NAMES = 16
    MOST_OWN = 4

cdef struct Name:
    int field
    Source source
    Key key

cdef struct Own:
    Key member
    Key key

cdef tuple _category_texts = tuple(name.encode() for name in _CATEGORIES)
cdef tuple _attribute_texts = tuple(json_text(attribute_names(bits)).encode() for bits in range(32))


cdef class AttributeNames:
    """What the attributes that are made of an event's fields are called, in their order. Immutable.

    Args:
        names: by the event's attribute. `data`, `metadata` and `category_profile` are objects that are taken apart one
            level deep, as `values.add_flat` does it: theirs is what the keys begin with.
        own: members of `category_profile` with names of their own. If it is given, a profile that is not an object is left
            out, and so are these members where they are null.
    """

    cdef Name[MOST_NAMES] _names
    cdef Own[MOST_OWN] _own
    cdef int _count, _own_count
    cdef readonly dict own
    cdef list _held  # what the keys point into
    cdef tuple _fields

    def __init__(self, dict names not None, dict own=None) -> None:
        cdef bytes key, member
        if len(names) > MOST_NAMES or len(own or ()) > MOST_OWN:
            raise ValueError(f"{len(names)} names and {len(own or ())} of members; expected {MOST_NAMES} and {MOST_OWN} at most")
        self._held, self._fields, self.own = [], tuple(names), own
        for self._count, (field, name) in enumerate(names.items()):
            key = name.encode()
            self._held.append(key)
            self._names[self._count].field, self._names[self._count].source = _SOURCES[field]
            self._names[self._count].key = _key(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
            if own is not None and field == "category_profile":
                self._names[self._count].source = OWN
        for self._own_count, (name, whole) in enumerate((own or {}).items()):
            member, key = name.encode(), whole.encode()
            self._held += [member, key]
            self._own[self._own_count].member = _key(PyBytes_AS_STRING(member), PyBytes_GET_SIZE(member))
            self._own[self._own_count].key = _key(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        self._count, self._own_count = len(names), len(own or ())

    cdef const Key* _own_name(self, const Entry* member) noexcept:
        cdef int at
        for at in range(self._own_count):
            if self._own[at].member.length == member.length and not memcmp(self._own[at].member.text, member.key, member.length):
                return &self._own[at].key
        return NULL

    cdef dict _in_python(self, RecordView event, int at):
        """The attributes of one field, as Python values."""
        name, key = self._fields[at], (<bytes>self._names[at].key.text[:self._names[at].key.length]).decode()
        value, found = getattr(event, name), {}
        if self._names[at].source == FLAT:
            add_flat(found, key, value)
        elif self._names[at].source == OWN:
            if isinstance(value, dict):
                add_flat(found, key, {member: item for member, item in value.items() if member not in self.own} or None)
                found |= {self.own[member]: item for member, item in value.items() if member in self.own}
        elif self._names[at].source == ATTRIBUTES:
            found[key] = value or "[]"
        else:
            found[key] = None if self._names[at].source == THREAD and not value else value
        return found


# ------------------------------------------------------------------------------------- Python values

def frame(int field, bytes message not None) -> bytes:
    """An encoded message as a field of another one.

    Args:
        field: its number, at most 15.
        message: encoded.
    """
    cdef uint8_t[HEAD] head
    cdef Py_ssize_t size
    if not 0 < field < 16:
        raise ValueError(f"field is {field}; expected 1 to 15")
    head[0] = <uint8_t>(field << 3 | 2)
    size = 1 + put_varint(head + 1, PyBytes_GET_SIZE(message))
    return PyBytes_FromStringAndSize(<const char*>head, size) + message


cdef class ValueWriter:
    """Writes Python values as AnyValues. One thread at a time: it keeps its buffers.

    A text, a bool, a float and an int of 64 bits are values of their own, a tuple is an array; all else is its JSON text.

    Args:
        max_bytes: of one text; longer ones are cut, see `values.clean`.
        max_depth: levels of lists and dicts that become arrays and lists of pairs; what is further in is JSON text.
            Where anything nests, None is a value that is empty.
    """

    cdef rmp_buffer _scratch
    cdef Py_ssize_t _max_bytes
    cdef int _max_depth

    def __init__(self, Py_ssize_t max_bytes, int max_depth) -> None:
        self._max_bytes, self._max_depth = max_bytes, max_depth

    def __dealloc__(self):
        rmp_buffer_free(&self._scratch)

    def attributes(self, dict attributes not None, int field) -> bytes:
        """KeyValues, one behind the other; those that are None are left out.

        Args:
            attributes: by key.
            field: the number, at most 15, of the field that they are in a message.
        """
        if not 0 < field < 16:
            raise ValueError(f"field is {field}; expected 1 to 15")
        self._scratch.length = 0
        for key, value in attributes.items():
            if value is not None:
                self._pair(&self._scratch, <uint8_t>(field << 3 | 2), key, value, self._max_depth)
        return PyBytes_FromStringAndSize(<const char*>self._scratch.bytes, <Py_ssize_t>self._scratch.length)

    cdef object _clean(self, text, const char** at, Py_ssize_t* size):
        """The text's UTF-8, and what holds it."""
        try:
            at[0] = PyUnicode_AsUTF8AndSize(<PyObject*>text, size)
            if size[0] <= self._max_bytes:
                return text
        except UnicodeEncodeError:
            pass
        text = clean(text, self._max_bytes)
        at[0] = PyUnicode_AsUTF8AndSize(<PyObject*>text, size)
        return text

    cdef int _text(self, rmp_buffer* out, uint8_t tag, text) except -1:
        cdef const char* at = NULL
        cdef Py_ssize_t size = 0
        held = self._clean(text, &at, &size)
        reserve(out, HEAD + size)
        put_field(out, tag, at, size)
        return 0

    cdef int _pair(self, rmp_buffer* out, uint8_t tag, str key, value, int depth) except -1:
        """A KeyValue; without its value where that is None and may be empty."""
        cdef const char* at = NULL
        cdef Py_ssize_t size = 0
        cdef size_t start = begin_message(out), inner
        held = self._clean(key, &at, &size)
        if size:
            reserve(out, HEAD + size)
            put_field(out, PAIR_KEY, at, size)
        if value is not None or not self._max_depth:
            inner = begin_message(out)
            self._any(out, value, depth)
            end_message(out, inner, PAIR_VALUE)
        end_message(out, start, tag)
        return 0

    cdef int _array(self, rmp_buffer* out, items, int depth) except -1:
        cdef size_t start = begin_message(out), inner
        for item in items:
            inner = begin_message(out)
            self._any(out, item, depth)
            end_message(out, inner, ARRAY_VALUES)
        end_message(out, start, ANY_ARRAY)
        return 0

    cdef int _pairs(self, rmp_buffer* out, dict members, int depth) except -1:
        cdef size_t start = begin_message(out)
        for key, value in members.items():
            self._pair(out, PAIRS_VALUES, key, value, depth)
        end_message(out, start, ANY_PAIRS)
        return 0

    cdef int _any(self, rmp_buffer* out, value, int depth) except -1:
        """A value as an AnyValue, in which `depth` levels may nest."""
        cdef int overflow = 0
        cdef int64_t whole
        cdef double real
        cdef uint64_t bits
        kind = type(value)
        reserve(out, HEAD)
        if kind is str:
            return self._text(out, ANY_STRING, value)
        if kind is bool:
            put_number(out, ANY_BOOL, value is True)
            return 0
        if kind is int:
            whole = PyLong_AsLongLongAndOverflow(<PyObject*>value, &overflow)
            if not overflow:
                put_number(out, ANY_INT, <uint64_t>whole)
                return 0
        elif kind is float:
            real = value
            memcpy(&bits, &real, 8)
            put_fixed64(out, ANY_DOUBLE, bits)
            return 0
        elif kind is tuple or (kind is list and depth > 0):
            return self._array(out, value, depth - 1)
        elif kind is dict and depth > 0:
            return self._pairs(out, value, depth - 1)
        elif value is None and self._max_depth:
            return 0
        return self._text(out, ANY_STRING, json_text(value))


# ----------------------------------------------------------------------------------------------------- logs

cdef class LogWriter(ValueWriter):
    """Writes log records.

    Args:
        max_bytes, max_depth: see ValueWriter.
        limits: of a record's attributes; None: there are none.
    """

    cdef AttributeLimits _limits

    def __init__(self, Py_ssize_t max_bytes, int max_depth, AttributeLimits limits=None) -> None:
        ValueWriter.__init__(self, max_bytes, max_depth)
        self._limits = limits

    def record(
        self, time_us, observed_ns, int severity, str severity_text not None, body, dict attributes not None,
        Place place not None, str name not None,
    ) -> bytes:
        """A LogRecord, as the field `log_records` of ScopeLogs.

        Args:
            time_us: microseconds since the epoch.
            observed_ns: nanoseconds since the epoch.
            severity: its SeverityNumber.
            severity_text: the same, in words.
            body: any JSON; None: there is none.
            attributes: by key; those that are None are left out.
            place: whose parent's span it belongs to, if there is one.
            name: of the event.
        """
        cdef rmp_buffer* out = &self._scratch
        cdef uint64_t time_ns = nanoseconds(time_us)
        cdef size_t inner
        out.length = 0
        reserve(out, 4 * HEAD)
        out.length = HEAD
        if time_ns:
            put_fixed64(out, RECORD_TIME, time_ns)
        put_number(out, RECORD_SEVERITY, <uint64_t>severity)
        self._text(out, RECORD_SEVERITY_TEXT, severity_text)
        if body is not None:
            inner = begin_message(out)
            self._any(out, body, self._max_depth)
            end_message(out, inner, RECORD_BODY)
        inner = out.length
        for key, value in attributes.items():
            if value is not None:
                self._pair(out, RECORD_ATTRIBUTES, key, value, self._max_depth)
        if self._limits is not None:
            _limit(self._limits, out, inner, RECORD_DROPPED)
        reserve(out, 6 * HEAD)
        if place.parent_span is not None:
            _check_id("a trace's id", place.trace, 16)
            _check_id("a parent's span id", place.parent_span, 8)
            put_fixed32(out, RECORD_FLAGS, SAMPLED)
            put_field(out, RECORD_TRACE, PyBytes_AS_STRING(place.trace), 16)
            put_field(out, RECORD_SPAN, PyBytes_AS_STRING(place.parent_span), 8)
        put_fixed64(out, RECORD_OBSERVED, <uint64_t>observed_ns)
        if name:
            self._text(out, RECORD_NAME, name)
        return framed(out, LOG_RECORDS)


# --------------------------------------------------------------------------------------------------- spans

cdef int _limit(AttributeLimits limits, rmp_buffer* out, size_t first, uint8_t tag) except -1:
    """Applies the limits to the attributes from `first` to the end, and tells how many were left out, if any."""
    cdef Py_ssize_t dropped = limits.apply(out, first)
    if dropped:
        reserve(out, HEAD)
        put_number(out, tag, <uint64_t>dropped)
    return 0


cdef int _check_id(str what, bytes id, Py_ssize_t size) except -1:
    if id is None or PyBytes_GET_SIZE(id) != size:
        raise ValueError(f"{what} is {id!r}; expected {size} bytes")
    return 0


cdef class SpanWriter(ValueWriter):
    """Writes spans and their events, one after the other: `span` or `event`, attributes, `finish`.

    One thread at a time: it keeps its buffers. No two attributes have the same key, and what is None is left out.

    Args:
        max_bytes: of one text; longer ones are cut, see `values.clean`.
        limits, event_limits: of the attributes of a span, and of an event; None: there are none.
    """

    cdef AttributeLimits _limits, _event_limits
    cdef rmp_buffer _out
    cdef size_t _first   # where the attributes begin
    cdef uint8_t _tag    # of one; 0: nothing has begun
    cdef uint32_t _flags

    def __init__(self, Py_ssize_t max_bytes, AttributeLimits limits=None, AttributeLimits event_limits=None) -> None:
        ValueWriter.__init__(self, max_bytes, 0)
        self._limits, self._event_limits = limits, event_limits

    def __dealloc__(self):
        rmp_buffer_free(&self._out)

    # ---- beginning and end ----

    def event(self, str name not None, time_us) -> None:
        """Begins a Span.Event; `finish` gives the field `events` of a span.

        Args:
            name: its name.
            time_us: microseconds since the epoch.
        """
        cdef uint64_t time_ns = nanoseconds(time_us)
        self._begin()
        if time_ns:
            put_fixed64(&self._out, EVENT_TIME, time_ns)
        if name:
            self._text(&self._out, EVENT_NAME, name)
        self._tag, self._first = EVENT_ATTRIBUTES, self._out.length

    def span(self, RecordView event not None, Place place not None, str name not None, int kind, start_us, end_us) -> None:
        """Begins a span; `finish` gives the field `spans` of ScopeSpans.

        Args:
            event: a scope's start or end, or a mark; the last 8 bytes of its uuid are the span's id.
            place: where it is.
            name: its name.
            kind: its Span.SpanKind.
            start_us, end_us: microseconds since the epoch; an end before the start is at the start.
        """
        cdef rmp_buffer* out = &self._out
        cdef uint64_t start_ns = nanoseconds(start_us), end_ns = max(start_ns, nanoseconds(end_us))
        cdef bytes uuid = event._read_field(1)
        _check_id("a trace's id", place.trace, 16)
        if place.parent_span is not None:
            _check_id("a parent's span id", place.parent_span, 8)
        self._begin()
        put_field(out, SPAN_TRACE, PyBytes_AS_STRING(place.trace), 16)
        put_field(out, SPAN_ID, PyBytes_AS_STRING(uuid) + 8, 8)
        if place.parent_span is not None:
            put_field(out, SPAN_PARENT, PyBytes_AS_STRING(place.parent_span), 8)
        if name:
            self._text(out, SPAN_NAME, name)
        reserve(out, 3 * HEAD)
        if kind:
            put_number(out, SPAN_KIND, <uint64_t>kind)
        if start_ns:
            put_fixed64(out, SPAN_START, start_ns)
        if end_ns:
            put_fixed64(out, SPAN_END, end_ns)
        self._tag, self._first, self._flags = SPAN_ATTRIBUTES, out.length, REMOTE if place.is_remote else LOCAL

    cdef int _begin(self) except -1:
        self._tag, self._out.length = 0, 0
        reserve(&self._out, 128)
        self._out.length = HEAD
        return 0

    def finish(self, list events=None, tuple status=None, Py_ssize_t dropped_events=0) -> bytes:
        """The span, or the event, as a field.

        Args:
            events: of a span: those that were finished.
            status: of a span: None, or a code of Status.StatusCode and a message.
            dropped_events: of a span: how many were left out.
        """
        cdef bytes event
        self._check_begun()
        cdef bint is_span = self._tag == SPAN_ATTRIBUTES
        self._tag = 0
        if not is_span:
            if self._event_limits is not None:
                _limit(self._event_limits, &self._out, self._first, EVENT_DROPPED)
            return framed(&self._out, SPAN_EVENTS)
        if self._limits is not None:
            _limit(self._limits, &self._out, self._first, SPAN_DROPPED)
        for event in events or ():
            self._append(PyBytes_AS_STRING(event), PyBytes_GET_SIZE(event))
        if dropped_events:
            reserve(&self._out, HEAD)
            put_number(&self._out, SPAN_DROPPED_EVENTS, <uint64_t>dropped_events)
        if status is not None:
            self._status(status[0], status[1])
        self._write_flags()
        return framed(&self._out, SPANS)

    cdef int _check_begun(self) except -1:
        if not self._tag:
            raise ValueError("nothing has begun: call span() or event() first")
        return 0

    cdef int _append(self, const void* bytes, size_t count) except -1:
        reserve(&self._out, count)
        memcpy(self._out.bytes + self._out.length, bytes, count)
        self._out.length += count
        return 0

    cdef int _status(self, int code, str message) except -1:
        self._scratch.length = 0
        if message:
            self._text(&self._scratch, STATUS_MESSAGE, message)
        reserve(&self._scratch, HEAD)
        if code:
            put_number(&self._scratch, STATUS_CODE, <uint64_t>code)
        reserve(&self._out, HEAD + self._scratch.length)
        put_field(&self._out, SPAN_STATUS, self._scratch.bytes, self._scratch.length)
        return 0

    cdef int _write_flags(self) except -1:
        """Field 16, whose tag takes two bytes: four bytes, least first."""
        reserve(&self._out, HEAD)
        self._out.bytes[self._out.length] = 0x85
        self._out.length += 1
        put_fixed32(&self._out, 0x01, self._flags)
        return 0

    # ---- attributes ----

    def add(self, AttributeNames names not None, RecordView event not None) -> None:
        """Attributes of an event's fields. None of them is there yet, but for members with names of their own, the
        newer of which counts."""
        cdef bint is_usual = event._is_usual()
        cdef size_t before
        cdef int at
        self._check_begun()
        for at in range(names._count):
            before = self._out.length
            if not is_usual or not self._add_field(names, &names._names[at], event):
                self._out.length = before
                found = names._in_python(event, at)
                own = {key: found.pop(key) for key in (names.own or {}).values() if key in found}
                self.update(found)
                for key, value in own.items():
                    self.set(key, value)

    def update(self, dict attributes not None) -> None:
        """Attributes with keys that are not there yet."""
        self._check_begun()
        for key, value in attributes.items():
            if value is not None:
                self._add_value(key, value)

    def set(self, str key not None, value) -> None:
        """One attribute, in place of what is there with that key."""
        cdef size_t start = self._out.length
        self._check_begun()
        if value is not None:
            self._add_value(key, value)
            self._replace(start)

    def copy(self, str key not None, str alias not None) -> None:
        """Gives an attribute, if there is one of that key, a second name, unless that is taken."""
        cdef Py_ssize_t size = 0, start
        cdef const char* text = NULL
        cdef Pair pair
        cdef Key second
        self._check_begun()
        held = self._clean(key, &text, &size)
        start = self._find(text, size, self._out.length)
        held = self._clean(alias, &text, &size)
        if start < 0 or self._find(text, size, self._out.length) >= 0:
            return
        second = _key(text, size)
        pair = read_pair(&self._out, start)
        self._reserve_pair(&second, pair.value_length)
        pair = read_pair(&self._out, start)  # the buffer may have moved
        self._begin_pair(&second, pair.value_length)
        memcpy(self._out.bytes + self._out.length, pair.value, pair.value_length)
        self._out.length += pair.value_length

    cdef Py_ssize_t _find(self, const void* key, size_t length, size_t end) noexcept:
        """Where the attribute of that key begins, of those that begin before `end`; -1: there is none."""
        cdef size_t start = self._first
        cdef Pair pair
        while start < end:
            pair = read_pair(&self._out, start)
            if pair.key_length == length and not memcmp(pair.key, key, length):
                return start
            start = pair.end
        return -1

    cdef size_t _replace(self, size_t start) except? 0:
        """Puts the attribute that begins there in place of an earlier one of its key. Returns by how many bytes what is
        behind it has come nearer."""
        cdef Pair pair = read_pair(&self._out, start)
        cdef Py_ssize_t old = self._find(pair.key, pair.key_length, start)
        if old < 0:
            return 0
        cdef size_t size = pair.end - start, old_end = read_pair(&self._out, old).end, old_size = old_end - old
        cdef bytes written = PyBytes_FromStringAndSize(<const char*>self._out.bytes + start, size)
        self._move(pair.end, start)
        self._move(old_end, old + size)
        memcpy(self._out.bytes + old, PyBytes_AS_STRING(written), size)
        return old_size

    cdef void _move(self, size_t start, size_t to) noexcept:
        """Moves what is from `start` on. There is room."""
        memmove(self._out.bytes + to, self._out.bytes + start, self._out.length - start)
        self._out.length = self._out.length + to - start

    # A KeyValue is its tag and length, its key, and its value, an AnyValue.

    cdef int _reserve_pair(self, const Key* key, size_t value_bytes) except -1:
        return reserve(&self._out, HEADS + _key_bytes(key) + value_bytes)

    cdef void _begin_pair(self, const Key* key, size_t value_bytes) noexcept:
        """All of a KeyValue but the AnyValue, which comes behind it and has so many bytes. There is room."""
        cdef rmp_buffer* out = &self._out
        cdef size_t key_bytes = _key_bytes(key), pair_bytes = 1 + varint_bytes(value_bytes) + value_bytes
        if key_bytes:
            pair_bytes += 1 + varint_bytes(key_bytes) + key_bytes
        put_number(out, self._tag, pair_bytes)
        if key_bytes:
            put_number(out, PAIR_KEY, key_bytes)
            memcpy(out.bytes + out.length, key.text, key.length)
            out.length += key.length
            if key.member != NULL:
                out.bytes[out.length] = 46
                memcpy(out.bytes + out.length + 1, key.member, key.member_length)
                out.length += 1 + key.member_length
        put_number(out, PAIR_VALUE, value_bytes)

    # ---- fields as attributes: what is False goes by way of Python objects ----

    cdef bint _add_field(self, AttributeNames names, const Name* name, RecordView event) except -1:
        cdef rmp_cursor cursor
        cdef uint64_t number = 0
        cdef int kind
        if _key_bytes(&name.key) > <size_t>self._max_bytes:
            return False
        if name.field < 0:
            return self._add_int(&name.key, event.seq if name.source == SEQ else event.pid)
        kind = event._head_of(name.field, &cursor, &number)
        if kind == RMP_KIND_NIL:
            return name.source != CATEGORY
        if name.source == UUID or name.source == PARENT:
            return self._add_uuid(&name.key, cursor.at)
        if name.source == THREAD:
            return kind == RMP_KIND_UINT and (not number or self._add_number(&name.key, number))
        if name.source == ATTRIBUTES:
            return kind == RMP_KIND_UINT and self._add_bytes(&name.key, _attribute_texts[number & 31])
        if name.source == CATEGORY:
            if kind == RMP_KIND_UINT and number < <uint64_t>len(_category_texts):
                return self._add_bytes(&name.key, _category_texts[number])
            return kind == RMP_KIND_TEXT and number and self._add_text(&name.key, cursor.at, number)
        cursor.end = cursor.at + number
        return self._add_payload(names, name, &cursor)

    cdef bint _add_payload(self, AttributeNames names, const Name* name, rmp_cursor* cursor) except -1:
        cdef rmp_cursor start = cursor[0]
        cdef uint64_t number = 0
        cdef uint8_t kind
        if rmp_read_head(cursor, &kind, &number):
            return False
        if kind == RMP_KIND_NIL:
            return cursor.at == cursor.end
        if name.source == OWN and kind != RMP_KIND_MAP:
            return False
        if kind == RMP_KIND_MAP and name.source != WHOLE and 0 < number <= MOST_KEYS:
            return self._add_members(names, name, cursor, number)
        if name.source == OWN:
            return number == 0 and cursor.at == cursor.end
        cursor[0] = start
        return self._add_value_at(&name.key, cursor) and cursor.at == cursor.end

    cdef bint _add_members(self, AttributeNames names, const Name* name, rmp_cursor* cursor, uint64_t count) except -1:
        """A map's members by their keys' order, behind them those with names of their own."""
        cdef Entry[MOST_KEYS] entries
        cdef uint64_t i
        cdef Key key = name.key
        if not _read_members(entries, cursor, count):
            return False
        for i in range(count):
            if name.source == OWN and names._own_name(&entries[i]) != NULL:
                continue
            cursor.at = <const uint8_t*>entries[i].value
            key.member, key.member_length = entries[i].key, entries[i].length
            if not self._add_value_at(&key, cursor):
                return False
        return name.source != OWN or self._add_own(names, entries, cursor, count)

    cdef bint _add_own(self, AttributeNames names, Entry* entries, rmp_cursor* cursor, uint64_t count) except -1:
        cdef size_t[MOST_OWN] starts
        cdef size_t nearer = 0
        cdef int owned = 0, at
        cdef uint64_t i
        cdef const Key* key
        for i in range(count):
            key = names._own_name(&entries[i])
            cursor.at = <const uint8_t*>entries[i].value
            if key == NULL or cursor.at[0] == RMP_KIND_NIL:
                continue
            starts[owned] = self._out.length
            owned += 1
            if not self._add_value_at(key, cursor):
                return False
        for at in range(owned):
            nearer += self._replace(starts[at] - nearer)
        return True

    cdef bint _add_value_at(self, const Key* key, rmp_cursor* cursor) except -1:
        """A packed value."""
        cdef rmp_cursor start = cursor[0]
        cdef uint8_t kind
        cdef uint64_t number
        cdef const uint8_t* text
        if _key_bytes(key) > <size_t>self._max_bytes or rmp_read_head(cursor, &kind, &number):
            return False
        if kind == RMP_KIND_TEXT:
            return not rmp_take(cursor, number, &text) and self._add_text(key, text, number)
        if kind == RMP_KIND_INT or (kind == RMP_KIND_UINT and not number >> 63):
            return self._add_number(key, number)
        if kind == RMP_KIND_TRUE or kind == RMP_KIND_FALSE:
            return self._add_bool(key, kind == RMP_KIND_TRUE)
        if kind == RMP_KIND_DOUBLE:
            return self._add_double(key, number)
        cursor[0] = start
        return self._add_json(key, cursor)

    cdef bint _add_text(self, const Key* key, const uint8_t* text, size_t length) except -1:
        """A text; it may be in the buffer itself, HEADS and the key's length behind what is written."""
        if length > <size_t>self._max_bytes or check_text(text, length):
            return False
        reserve(&self._out, HEADS + _key_bytes(key) + length)
        self._begin_pair(key, 1 + varint_bytes(length) + length)
        put_number(&self._out, ANY_STRING, length)
        memmove(self._out.bytes + self._out.length, text, length)
        self._out.length += length
        return True

    cdef bint _add_json(self, const Key* key, rmp_cursor* cursor) except -1:
        """What nests, and null. How long its JSON is, is known when it is written: its head is put before it then."""
        cdef size_t start = self._out.length, room = HEADS + _key_bytes(key), length
        reserve(&self._out, room)
        self._out.length += room
        if write_value(&self._out, cursor, 0):
            return False
        length = self._out.length - start - room
        self._out.length = start
        return self._add_text(key, self._out.bytes + start + room, length)

    cdef bint _add_uuid(self, const Key* key, const uint8_t* uuid) except -1:
        cdef uint8_t[36] text
        cdef rmp_buffer written
        written.bytes, written.length, written.capacity = text, 0, 36
        return not write_uuid(&written, uuid) and self._add_text(key, text, 36)

    cdef bint _add_bytes(self, const Key* key, bytes text) except -1:
        return self._add_text(key, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef bint _add_int(self, const Key* key, value) except -1:
        cdef int overflow = 0
        if type(value) is not int:
            return False
        cdef int64_t number = PyLong_AsLongLongAndOverflow(<PyObject*>value, &overflow)
        return not overflow and self._add_number(key, <uint64_t>number)

    cdef bint _add_number(self, const Key* key, uint64_t number) except -1:
        """An int of 64 bits, in two's complement."""
        self._reserve_pair(key, HEAD)
        self._begin_pair(key, 1 + varint_bytes(number))
        put_number(&self._out, ANY_INT, number)
        return True

    cdef bint _add_bool(self, const Key* key, bint value) except -1:
        self._reserve_pair(key, HEAD)
        self._begin_pair(key, 2)
        put_number(&self._out, ANY_BOOL, value)
        return True

    cdef bint _add_double(self, const Key* key, uint64_t bits) except -1:
        cdef double value
        memcpy(&value, &bits, 8)
        if not isfinite(value):
            return False
        self._reserve_pair(key, HEAD)
        self._begin_pair(key, 9)
        put_fixed64(&self._out, ANY_DOUBLE, bits)
        return True

    # ---- Python values as attributes ----

    cdef int _add_value(self, str key, value) except -1:
        return self._pair(&self._out, self._tag, key, value, 0)
