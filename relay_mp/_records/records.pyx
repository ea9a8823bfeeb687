# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Records read, compiled: the object that an event is, and its fields.

Runs where the dispatcher runs, below `relay_mp.events`, which says what an event means; here is what happens to every
event. `RecordView` is its state: made by one native call, without `__init__`. At the first access one pass finds
where each of the 13 fields is, and checks that they are a record's; from then on an access decodes that field alone.

What the native encoder does not write, records in other forms of msgpack or damaged, is left to `relay_mp.events`,
which goes by way of msgpack and Python objects and says exactly what is wrong. Where both give a value it is the same,
and tests/records/test_records.py holds that.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from relay_mp._native.decode cimport (
    RMP_KIND_BIN,
    RMP_KIND_INT,
    RMP_KIND_LIST,
    RMP_KIND_NIL,
    RMP_KIND_TEXT,
    RMP_KIND_UINT,
    rmp_cursor,
    rmp_read_head,
    rmp_take,
)
from relay_mp._native.encode cimport rmp_buffer
from relay_mp._native.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyUnicode_DecodeASCII,
    PyUnicode_DecodeUTF8,
)
from relay_mp._records.payloads cimport read_all
from relay_mp._records.texts cimport Second, check_text, moment_of, write_time, write_uuid


# --------------------------------------------------------------------------------- where the fields are

cdef enum:
    NIL = 1
    INT = 2
    TEXT = 4
    BIN = 8
    UUID = 16
    DATA = 9  # the first of the payloads' places

# kind, uuid, parent_uuid, timestamp_us, name, category, attributes, thread_id, stack, and four payloads
cdef int[FIELDS] _ALLOWED = [
    INT, UUID, NIL | UUID, INT, TEXT, NIL | INT | TEXT, INT, INT, NIL | BIN, NIL | BIN, NIL | BIN, NIL | BIN, NIL | BIN
]

cdef extern from *:
    """
    static inline uint32_t rmp_load_acquire_u32(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void rmp_store_release_u32(uint32_t *at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
    """
    uint32_t rmp_load_acquire_u32(const uint32_t* at) noexcept nogil
    void rmp_store_release_u32(uint32_t* at, uint32_t value) noexcept nogil


cdef int _pass(rmp_cursor* cursor, int allowed) except -2:
    """Over one field, if it may be there."""
    cdef const uint8_t* start
    cdef uint8_t kind
    cdef uint64_t number
    if rmp_read_head(cursor, &kind, &number):
        return UNUSUAL
    if kind == RMP_KIND_NIL:
        return 0 if allowed & NIL else UNUSUAL
    if kind == RMP_KIND_UINT or kind == RMP_KIND_INT:
        return 0 if allowed & INT else UNUSUAL
    if kind == RMP_KIND_BIN and (allowed & BIN or (allowed & UUID and number == 16)):
        return rmp_take(cursor, number, &start)
    if kind == RMP_KIND_TEXT and allowed & TEXT and not rmp_take(cursor, number, &start) and not check_text(start, number):
        return 0
    return UNUSUAL


cdef int _locate(bytes record, uint32_t* at) except -2:
    """Finds where each field begins, if all are as the native encoder writes them.

    `at[0]` is set last: a thread that finds it set may use the others.
    """
    cdef const uint8_t* start = <const uint8_t*>PyBytes_AS_STRING(record)
    cdef rmp_cursor cursor
    cdef uint8_t kind
    cdef uint64_t count
    cdef uint32_t[FIELDS] found
    cdef int index
    cursor.at = start
    cursor.end = start + PyBytes_GET_SIZE(record)
    if cursor.end - start > <Py_ssize_t>MOST_BYTES or rmp_read_head(&cursor, &kind, &count) or kind != RMP_KIND_LIST or count != FIELDS:
        return UNUSUAL
    for index in range(FIELDS):
        found[index] = <uint32_t>(cursor.at - start)
        if _pass(&cursor, _ALLOWED[index]):
            return UNUSUAL
    if cursor.at != cursor.end:
        return UNUSUAL
    memcpy(at + 1, found + 1, sizeof(found) - sizeof(uint32_t))
    rmp_store_release_u32(at, found[0])
    return 0


cdef uint32_t MOST_BYTES = 0xffffffff


# --------------------------------------------------------------------------------- a record's view

cdef class RecordView:
    """A record with its place in the stream. Events derive from it; see `relay_mp.events`.

    A subclass has `_decode_unusual()`, called at the first access to a record that is not in the native encoder's form:
    gives the 13 fields, or raises RecordError; and `_decode_payload(field)`, for those of such a record.
    """

    def __init__(self, bytes record not None, seq, pid, bint redelivered=False) -> None:
        self._record = record
        self.seq = seq
        self.pid = pid
        self.redelivered = redelivered

    cdef bint _is_usual(self) except -1:
        """Whether the fields are where `_at` says; else they are in `_unusual`."""
        if rmp_load_acquire_u32(self._at):
            return True
        if self._unusual is None:
            if not _locate(self._record, self._at):
                return True
            with cython.critical_section(self):
                if self._unusual is None:
                    self._unusual = self._decode_unusual()
        return False

    cdef int _head_of(self, int index, rmp_cursor* cursor, uint64_t* number) except -1:
        """Reads a usual record's field's first bytes; gives what kind of value it is."""
        cdef uint8_t kind = 0
        cursor.at = <const uint8_t*>PyBytes_AS_STRING(self._record) + self._at[index]
        cursor.end = <const uint8_t*>PyBytes_AS_STRING(self._record) + PyBytes_GET_SIZE(self._record)
        rmp_read_head(cursor, &kind, number)  # it was read before
        return kind

    def _field(self, int index):
        """One of the 13 fields; a payload is still packed."""
        return self._read_field(index)

    def _fresh(self, int index):
        """One of the payloads, decoded anew: the caller's own."""
        return self._read_payload(index)

    cdef object _read_field(self, int index):
        cdef rmp_cursor cursor
        cdef uint64_t number
        cdef int kind
        if not self._is_usual():
            return self._unusual[index]
        kind = self._head_of(index, &cursor, &number)
        if kind == RMP_KIND_UINT:
            return number
        if kind == RMP_KIND_INT:
            return <int64_t>number
        if kind == RMP_KIND_TEXT:
            return PyUnicode_DecodeUTF8(<const char*>cursor.at, <Py_ssize_t>number, NULL)
        if kind == RMP_KIND_BIN:
            return PyBytes_FromStringAndSize(<const char*>cursor.at, <Py_ssize_t>number)
        return None

    cdef object _read_payload(self, int index):
        cdef rmp_cursor cursor
        cdef uint64_t number
        if not self._is_usual():
            return self._decode_payload(self._unusual[index])
        if self._head_of(index, &cursor, &number) == RMP_KIND_NIL:
            return None
        return read_all(cursor.at, <Py_ssize_t>number)

    cdef object _payload(self, int index):
        if self._payloads is None:
            with cython.critical_section(self):
                if self._payloads is None:
                    self._payloads = [None, None, None, None]
        cdef object kept = self._payloads[index - DATA]
        if kept is not None:
            return kept
        cdef object value = self._read_payload(index)
        with cython.critical_section(self):
            kept = self._payloads[index - DATA]  # of another thread, or of what was called meanwhile
            if kept is None:
                self._payloads[index - DATA] = kept = value
        return kept

    @property
    def uuid(self) -> str:
        """A scope's start and end share it; a mark has its own."""
        return canonical_uuid(self._read_field(1))

    @property
    def parent_uuid(self) -> str | None:
        """The enclosing scope."""
        cdef object parent = self._read_field(2)
        return None if parent is None else canonical_uuid(parent)

    @property
    def packed_uuid(self) -> bytes:
        """`uuid` as it is in the record: 16 bytes."""
        return self._read_field(1)

    @property
    def packed_parent(self) -> bytes | None:
        """`parent_uuid` as it is in the record."""
        return self._read_field(2)

    @property
    def timestamp_us(self) -> int:
        """When, in microseconds since the epoch. Not in the JSON, which has `timestamp`."""
        return self._read_field(3)

    @property
    def timestamp(self) -> str:
        """When, as RFC 3339 in UTC."""
        return rfc3339(self._read_field(3))

    @property
    def name(self) -> str:
        """The scope's or the mark's name."""
        return self._read_field(4)

    @property
    def thread_id(self) -> int:
        """The emitting thread, by the kernel's number for it. Not in the JSON."""
        return self._read_field(7)

    @property
    def packed_stack(self) -> bytes | None:
        """`stack` as it is in the record: 16 bytes a scope."""
        return self._read_field(8)

    @property
    def data(self) -> Json:
        """A start's input, an end's output, a mark's data. Shared by all subscribers: do not change it."""
        return self._payload(DATA)

    @property
    def metadata(self) -> Json:
        """What describes the event rather than the work. Shared by all subscribers: do not change it."""
        return self._payload(DATA + 1)

    @property
    def category_profile(self) -> JsonObject | None:
        """What is particular to the category, such as `model_name`. Unknown keys are kept."""
        return self._payload(DATA + 2)

    @property
    def data_schema(self) -> DataSchema | None:
        """The name and version of the schema that `data` follows, if it was said."""
        return self._payload(DATA + 3)


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
    cdef RecordView made
    cdef int kind = kind_of(record)
    if kind >= len(classes):
        return None
    made = rmp_new(classes[kind])
    made._record = record
    made.seq = seq
    made.pid = pid
    made.redelivered = redelivered
    return made


# --------------------------------------------------------------------------------- uuids and times

cdef enum:
    TEXT_BYTES = 64  # more than a uuid or a time takes: it never grows


cdef object _ascii(const rmp_buffer* out, int failed):
    if failed:
        raise MemoryError("no memory for a text")  # it fits: never
    return PyUnicode_DecodeASCII(<const char*>out.bytes, <Py_ssize_t>out.length, NULL)


def canonical_uuid(bytes value not None) -> str:
    """16 bytes as the usual 36 characters, lower case.

    Raises:
        ValueError: they are not 16.
    """
    cdef uint8_t text[TEXT_BYTES]
    cdef rmp_buffer out
    if PyBytes_GET_SIZE(value) != 16:
        raise ValueError(f"a uuid has {PyBytes_GET_SIZE(value)} bytes; expected 16")
    out.bytes, out.length, out.capacity = text, 0, TEXT_BYTES
    return _ascii(&out, write_uuid(&out, <const uint8_t*>PyBytes_AS_STRING(value)))


def rfc3339(timestamp_us) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC, with 0, 3 or 6 digits of fraction, as needed.

    Raises:
        OverflowError: it is not in -2**63 to 2**64-1, which is what a record can hold.
    """
    cdef uint8_t text[TEXT_BYTES]
    cdef rmp_buffer out
    cdef Second newest
    cdef bint negative = timestamp_us < 0
    cdef uint64_t bits = <uint64_t><int64_t>timestamp_us if negative else <uint64_t>timestamp_us
    out.bytes, out.length, out.capacity = text, 0, TEXT_BYTES
    newest.length = 0
    return _ascii(&out, write_time(&out, moment_of(bits, negative), &newest))
