# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""A payload as Python objects, from its msgpack. Runs where the dispatcher runs.

One pass makes what ATOF's JSON shows: JSON types only, keys sorted at every depth, NaN and infinities None. It took
a fifth of the time of msgpack.unpackb and a walk over what that gives. The bytes are not trusted:

    lengths and counts    against what is left. Every element takes a byte, so that all open lists and maps together
                          never ask for more elements than there are bytes: no memory out of proportion
    depth                 DEEPEST_PAYLOAD, counted, and the room on the thread's C stack: a payload must not use that up
    texts                 strict UTF-8: no surrogates
    types                 no bytes, no extensions, no keys but texts; of a key that is there twice, the last counts
"""

from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from relay_mp._native.decode cimport (
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
    rmp_load_be32,
    rmp_read_head,
    rmp_take,
)
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyUnicode_DecodeUTF8
from relay_mp._native.stack cimport rmp_stack_has
from relay_mp._records.members cimport FEW, Entry, sort_members

from relay_mp.errors import RecordError


cdef enum:
    DEEPEST_PAYLOAD = 256  # twice what can be emitted
    USUAL_DEPTH = 16       # so deep without a look at the stack
    STACK_RESERVE = 3072   # what is left for an error

# A map's members are held until all of them are known, those of the maps around it below. One array for all, in place
# of one a level: little of the C stack, and one place that gives back what an error leaves.
cdef struct Payload:
    rmp_cursor cursor
    const uint8_t* start
    uint64_t owed  # elements of the open lists and maps that are still to come
    int depth
    Entry* members
    uint64_t held, room
    Entry few[FEW]


cdef extern from *:
    """
    /* The keys of payloads are few, and come again with every event: a text found here is neither made nor hashed.
     * Short ASCII only, so that what it holds is bounded: 256 texts of 32 bytes. Free-threaded builds go without. */
    #define RMP_KNOWN_KEYS 256
    #define RMP_KNOWN_KEY_BYTES 32

    static PyObject *rmp_text_of_key(const char *bytes, Py_ssize_t length) {
    #ifdef Py_GIL_DISABLED
        return PyUnicode_DecodeUTF8(bytes, length, NULL);
    #else
        static PyObject *known[RMP_KNOWN_KEYS];
        if (length > RMP_KNOWN_KEY_BYTES) return PyUnicode_DecodeUTF8(bytes, length, NULL);
        uint32_t hash = 2166136261u; /* FNV-1a */
        for (Py_ssize_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)bytes[i]) * 16777619u;
        PyObject **place = &known[(hash ^ hash >> 16) % RMP_KNOWN_KEYS];
        if (*place && PyUnicode_GET_LENGTH(*place) == length && memcmp(PyUnicode_DATA(*place), bytes, length) == 0) {
            Py_INCREF(*place);
            return *place;
        }
        PyObject *text = PyUnicode_DecodeUTF8(bytes, length, NULL);
        if (text && PyUnicode_IS_COMPACT_ASCII(text)) {
            Py_INCREF(text);
            Py_XSETREF(*place, text);
        }
        return text;
    #endif
    }
    """
    object rmp_text_of_key(const char* bytes, Py_ssize_t length)


cdef int _refuse(Payload* payload, str what) except -1:
    size, at = payload.cursor.end - payload.start, payload.cursor.at - payload.start
    raise RecordError(f"a payload of {size} bytes {what}, at byte {at}")


cdef object _read_rare(Payload* payload):
    """What a record does not hold: floats of 32 bits, and what is an error."""
    cdef rmp_cursor* cursor = &payload.cursor
    cdef uint8_t first = cursor.at[0] if cursor.at < cursor.end else 0
    cdef uint32_t bits
    cdef float value
    if first == 0xca and cursor.end - cursor.at >= 5:
        bits = <uint32_t>rmp_load_be32(cursor.at + 1)
        memcpy(&value, &bits, 4)
        cursor.at += 5
        return value if isfinite(value) else None
    if (first >= 0xc7 and first <= 0xc9) or (first >= 0xd4 and first <= 0xd8):
        _refuse(payload, "holds an extension type; expected JSON types only")
    _refuse(payload, "is not msgpack: the byte c1" if first == 0xc1 else "is not msgpack: it ends inside of a value")


cdef int _open(Payload* payload, uint64_t elements) except -1:
    if payload.depth >= DEEPEST_PAYLOAD:
        _refuse(payload, f"nests deeper than {DEEPEST_PAYLOAD}")
    if payload.depth >= USUAL_DEPTH and not rmp_stack_has(STACK_RESERVE):
        _refuse(payload, f"nests deeper than {payload.depth}, for which this thread's stack has no room; raise "
                         "threading.stack_size")
    payload.depth += 1
    payload.owed += elements
    if payload.owed > <uint64_t>(payload.cursor.end - payload.cursor.at):
        _refuse(payload, "is not msgpack: it ends inside of a list or a map")
    return 0


cdef list _read_list(Payload* payload, uint64_t count):
    cdef list made
    cdef uint64_t i
    cdef object item
    _open(payload, count)
    made = PyList_New(<Py_ssize_t>count)
    for i in range(count):
        item = _read_element(payload)
        Py_INCREF(item)
        PyList_SET_ITEM(made, <Py_ssize_t>i, item)
    payload.depth -= 1
    return made


cdef int _make_room(Payload* payload) except -1:
    cdef Entry* members = <Entry*>malloc(2 * payload.room * sizeof(Entry))
    if members == NULL:
        raise MemoryError("no memory for the members of a payload's map")
    memcpy(members, payload.members, payload.held * sizeof(Entry))
    if payload.members != payload.few:
        free(payload.members)
    payload.members = members
    payload.room *= 2
    return 0


cdef int _hold(Payload* payload, const uint8_t* key, uint64_t length, object value) except -1:
    cdef Entry* member
    if payload.held == payload.room:
        _make_room(payload)
    member = &payload.members[payload.held]
    member.key, member.length, member.value = key, <uint32_t>length, <void*>value
    Py_INCREF(value)
    payload.held += 1
    return 0


cdef void _let_go(Payload* payload, uint64_t held) noexcept:
    """Of all members but so many."""
    while payload.held > held:
        payload.held -= 1
        Py_DECREF(<object>payload.members[payload.held].value)


cdef dict _read_map(Payload* payload, uint64_t count):
    cdef uint64_t before = payload.held, number, i
    cdef uint8_t kind
    cdef const uint8_t* key
    cdef Entry* members
    cdef dict made = {}
    _open(payload, 2 * count)
    for i in range(count):
        payload.owed -= 1
        if rmp_read_head(&payload.cursor, &kind, &number) or kind != RMP_KIND_TEXT:
            _refuse(payload, "holds a map whose keys are not all strings")
        if rmp_take(&payload.cursor, number, &key):
            _refuse(payload, "is not msgpack: it ends inside of a key")
        _hold(payload, key, number, _read_element(payload))
    members = payload.members + before
    sort_members(members, count)
    for i in range(count):
        made[rmp_text_of_key(<const char*>members[i].key, members[i].length)] = <object>members[i].value
    _let_go(payload, before)
    payload.depth -= 1
    return made


cdef inline object _read_element(Payload* payload):
    payload.owed -= 1
    return _read_value(payload)


cdef object _read_value(Payload* payload):
    cdef const uint8_t* text
    cdef uint8_t kind
    cdef uint64_t number
    cdef double value
    if rmp_read_head(&payload.cursor, &kind, &number):
        return _read_rare(payload)
    if kind == RMP_KIND_TEXT:
        if rmp_take(&payload.cursor, number, &text):
            _refuse(payload, "is not msgpack: it ends inside of a text")
        return PyUnicode_DecodeUTF8(<const char*>text, <Py_ssize_t>number, NULL)
    if kind == RMP_KIND_UINT:
        return number
    if kind == RMP_KIND_INT:
        return <int64_t>number
    if kind == RMP_KIND_DOUBLE:
        memcpy(&value, &number, 8)
        return value if isfinite(value) else None
    if kind == RMP_KIND_NIL:
        return None
    if kind == RMP_KIND_TRUE:
        return True
    if kind == RMP_KIND_FALSE:
        return False
    if kind == RMP_KIND_MAP:
        return _read_map(payload, number)
    if kind == RMP_KIND_LIST:
        return _read_list(payload, number)
    _refuse(payload, "holds bytes; expected JSON types only")


cdef object read_all(const uint8_t* start, Py_ssize_t length):
    """The one value that these bytes are."""
    cdef Payload payload
    cdef object value
    payload.start = payload.cursor.at = start
    payload.cursor.end = start + length
    payload.owed, payload.depth = 0, 0
    payload.members, payload.held, payload.room = payload.few, 0, FEW
    try:
        value = _read_value(&payload)
        if payload.cursor.at != payload.cursor.end:
            _refuse(&payload, "is not msgpack: it holds more than one value")
        return value
    except UnicodeDecodeError as error:
        raise RecordError(f"a payload of {length} bytes holds a text that is not UTF-8: {error}") from error
    finally:
        _let_go(&payload, 0)
        if payload.members != payload.few:
            free(payload.members)


def read_payload(bytes packed not None) -> Json:
    """The payload that was packed: JSON types, keys sorted at every depth, NaN and infinities None. The caller's own.

    Raises:
        RecordError: it is not msgpack of JSON types, or it nests deeper than 256, or than the thread's stack has room for.
    """
    return read_all(<const uint8_t*>PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
