# cython: language_level=3, freethreading_compatible=True
"""A Python value into msgpack. Runs in the emitting thread of any process, on a buffer private to it.

Exact JSON types are encoded in place: no object is created, no Python code runs; so is what is packed already.
Everything else goes through convert.simplify, which may run the user's code (a property, __fspath__, a finalizer) and hence
may change what is being encoded, or emit events itself. So:

  - every object is held by a strong reference while it is looked at;
  - a dict's or list's size is compared after each item, and what was written is counted: a container
    changed under our hands is replaced as a whole, or a PayloadError, never a wrong count in the header;
  - the caller's buffer must not be reachable by code that the conversion runs. core.pyx takes its
    per-thread buffer out of its place for as long as encode_value runs.

Where a value is, is known from a chain of rmp_place on the C stack (one store per item) and becomes
text only when there is something to report.

What cannot be recorded, in an event's payload, is replaced where it stands, and its neighbours stay:

    unsupported, or its conversion raises     {"relay_mp.unrecorded": {"type": "Foo"}}
    nested deeper than RMP_MAX_DEPTH          {"relay_mp.cut": {"depth": 128}}
    or than the thread's C stack has room for {"relay_mp.cut": {"depth": 20}}
    lone surrogate in a text or a key         U+FFFD
    integer outside -2**63..2**64-1           its text
    key that is not a string                     its text

Each is counted, and told to `set_replaced_hook`. In strict mode, and where a value is not an event's (`pack`), it is a
PayloadError that names the path.
"""

cimport cython
from cpython.object cimport PyObject
from libc.math cimport isfinite
from libc.stdint cimport uint64_t

from relay_mp._native.encode cimport (
    RMP_ENCODE_TOO_LONG,
    rmp_buffer,
    rmp_buffer_free,
    rmp_write_array_header,
    rmp_write_bool,
    rmp_write_double,
    rmp_write_int,
    rmp_write_map_header,
    rmp_write_nil,
    rmp_write_raw,
    rmp_write_str,
    rmp_write_uint,
)
from relay_mp._native.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyDict_CheckExact,
    PyDict_GET_SIZE,
    PyFloat_AS_DOUBLE,
    PyFloat_CheckExact,
    PyList_CheckExact,
    PyList_GET_SIZE,
    PyLong_AsLongLongAndOverflow,
    PyLong_AsUnsignedLongLong,
    PyLong_CheckExact,
    PyTuple_CheckExact,
    PyTuple_GET_ITEM,
    PyTuple_GET_SIZE,
    PyUnicode_AsUTF8AndSize,
    PyUnicode_Check,
    PyUnicode_CheckExact,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    Py_DECREF,
)
from relay_mp._native.stack cimport rmp_stack_has

from relay_mp._native.convert import Unsupported, as_text, simplify
from relay_mp._native.shorten import CUT_KEY as _CUT_KEY
from relay_mp.errors import PayloadError


cdef extern from *:
    """
    #define RMP_MAX_DEPTH 128        /* containers around a value; bounds the C stack and finds cycles */
    #define RMP_USUAL_DEPTH 8        /* so deep without a look at the stack: 5 KiB */
    #define RMP_STACK_RESERVE 12288  /* what is left for a conversion, or for the report of what was replaced */
    #define RMP_MAX_CONVERSIONS 16   /* a conversion's result may need another one, but not for ever */

    /* Both hand out strong references. PyDict_Next lends, and without a GIL another thread may drop what
     * was lent before it is taken; the dict's own lock closes that gap. It is held for one step only,
     * because a critical section is suspended anyway once other locks are taken. */
    static inline int rmp_dict_next(PyObject *dict, Py_ssize_t *position, PyObject **key, PyObject **item)
    {
        int found;
    #ifdef Py_GIL_DISABLED
        Py_BEGIN_CRITICAL_SECTION(dict);
    #endif
        found = PyDict_Next(dict, position, key, item);
        if (found) {
            Py_INCREF(*key);
            Py_INCREF(*item);
        }
    #ifdef Py_GIL_DISABLED
        Py_END_CRITICAL_SECTION();
    #endif
        return found;
    }

    /* NULL without an exception where the list has become shorter. */
    static inline PyObject *rmp_list_item(PyObject *list, Py_ssize_t index)
    {
    #ifdef Py_GIL_DISABLED
        PyObject *item = PyList_GetItemRef(list, index);
        if (item == NULL) {
            PyErr_Clear();
        }
        return item;
    #else
        PyObject *item;
        if (index >= PyList_GET_SIZE(list)) {
            return NULL;
        }
        item = PyList_GET_ITEM(list, index);
        Py_INCREF(item);
        return item;
    #endif
    }

    #define RMP_IS_NONE(o) ((o) == Py_None)
    #define RMP_IS_TRUE(o) ((o) == Py_True)
    #define RMP_IS_FALSE(o) ((o) == Py_False)

    /* What _encode takes as it is. */
    static inline int rmp_is_plain(PyObject *o)
    {
        return PyUnicode_CheckExact(o) || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyBool_Check(o)
            || PyDict_CheckExact(o) || PyList_CheckExact(o) || PyTuple_CheckExact(o) || RMP_IS_NONE(o);
    }
    """
    const int RMP_MAX_DEPTH
    const int RMP_USUAL_DEPTH
    const int RMP_STACK_RESERVE
    const int RMP_MAX_CONVERSIONS
    int rmp_dict_next(PyObject* mapping, Py_ssize_t* position, PyObject** key, PyObject** item)
    PyObject* rmp_list_item(PyObject* sequence, Py_ssize_t index)
    int rmp_is_plain(PyObject* o)
    bint RMP_IS_NONE(PyObject* o)
    bint RMP_IS_TRUE(PyObject* o)
    bint RMP_IS_FALSE(PyObject* o)


# One step of the way from the payload's name to a value. Lives in the C frame that encodes the container.
cdef struct rmp_place:
    rmp_place* parent       # NULL: the payload itself, whose name is `key`
    PyObject* key           # borrowed from that frame; NULL: an item of an array
    Py_ssize_t index        # of the payload itself: whether what cannot be recorded is replaced
    int depth               # containers around the value


# A session's setting, and this process's. Both off: what cannot be recorded is replaced.
cdef bint _session_is_strict = False
cdef bint _process_is_strict = False


def set_strict(session: bool | None = None, process: bool | None = None) -> None:
    """Whether what cannot be recorded is a PayloadError rather than replaced.

    Args:
        session: as the session says that this process is in; None: as it is.
        process: as this process says, whatever the session; None: as it is.
    """
    global _session_is_strict, _process_is_strict
    if session is not None:
        _session_is_strict = session
    if process is not None:
        _process_is_strict = process


def is_strict() -> bool:
    """Whether what cannot be recorded is a PayloadError."""
    return _session_is_strict or _process_is_strict


_replaced_hook = None
cdef uint64_t _replaced = 0


def replaced_so_far() -> int:
    """How many values this process has replaced: who finds it unchanged has what it packed whole."""
    return _replaced


def set_replaced_hook(hook) -> None:
    """Tells who is told of each value that was replaced: `hook(path, what)`. It must not raise."""
    global _replaced_hook
    _replaced_hook = hook


cdef int encode_value(rmp_buffer* buffer, object value, object path) except -1:
    """Appends one value of an event; on an exception `buffer.length` is what it was.

    `path` is the name that a PayloadError's message starts with. The value may run user code, which may
    come back here: `buffer` must not be shared with it (see the head of this file).
    """
    return _encode_whole(buffer, value, path, not (_session_is_strict or _process_is_strict))


cdef int _encode_whole(rmp_buffer* buffer, object value, object path, bint is_lenient) except -1:
    cdef rmp_place place
    cdef size_t start = buffer.length
    cdef bint done = False
    place.parent = NULL
    place.key = <PyObject*>path
    place.index = is_lenient
    place.depth = 0
    try:
        _encode(buffer, <PyObject*>value, &place)
        done = True
    finally:
        if not done:
            buffer.length = start
    return 0


cdef int encode_name(rmp_buffer* buffer, str name) except -1:
    """Appends an event's name that has a lone surrogate.

    Raises:
        UnicodeEncodeError: in strict mode.
    """
    if _session_is_strict or _process_is_strict:
        name.encode()
    tell_replaced("name", "lone surrogate")
    cdef bytes mended = _mended(name)
    if rmp_write_str(buffer, PyBytes_AS_STRING(mended), PyBytes_GET_SIZE(mended)):
        raise MemoryError("no memory for the encoded name")
    return 0


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Packed:
    """A payload, or a part of one, that `pack` has encoded: it is encoded as what it holds, byte for byte.

    Args:
        msgpack: what `pack` gave. Not looked at again.
    """
    cdef readonly bytes msgpack

    def __cinit__(self, bytes msgpack not None):
        self.msgpack = msgpack


def pack(value) -> bytes:
    """Encodes a value that is not an event's, such as a setting: nothing in it is replaced.

    Args:
        value: JSON types, and what relay_mp._native.convert lists.

    Returns:
        msgpack.

    Raises:
        PayloadError: unsupported; the message names the place, starting with `value`.
    """
    return _packed(value, "value", False)


def pack_payload(value, str name not None) -> bytes:
    """Encodes a payload on its own, exactly as in an event: what cannot be recorded is replaced, unless strict.

    Args:
        value: anything.
        name: what the payload is called, for what is told of it.

    Returns:
        msgpack.

    Raises:
        PayloadError: in strict mode; the message names the place.
    """
    return _packed(value, name, not (_session_is_strict or _process_is_strict))


cdef bytes _packed(object value, str name, bint is_lenient):
    cdef rmp_buffer buffer
    buffer.bytes = NULL
    buffer.length = 0
    buffer.capacity = 0
    try:
        _encode_whole(&buffer, value, name, is_lenient)
        return PyBytes_FromStringAndSize(<const char*>buffer.bytes, <Py_ssize_t>buffer.length)
    finally:
        rmp_buffer_free(&buffer)


cdef inline int _written(int code, rmp_place* place) except -1:
    if code == 0:
        return 0
    return _write_failed(code, place)


cdef int _write_failed(int code, rmp_place* place) except -1:
    if code == RMP_ENCODE_TOO_LONG:
        raise _refused(place, "more than the 4294967295 bytes or items that msgpack can hold; pass less")
    raise MemoryError("no memory for the encoded payload")


# The caller holds a strong reference to `o` until this returns; so do all the functions below.
cdef int _encode(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef double number
    if PyUnicode_CheckExact(o):
        return _encode_text(buffer, o, place)
    if PyLong_CheckExact(o):
        return _encode_int(buffer, o, place)
    if PyFloat_CheckExact(o):
        number = PyFloat_AS_DOUBLE(o)
        if isfinite(number):
            return _written(rmp_write_double(buffer, number), place)
        return _written(rmp_write_nil(buffer), place)
    if RMP_IS_NONE(o):
        return _written(rmp_write_nil(buffer), place)
    if RMP_IS_TRUE(o):
        return _written(rmp_write_bool(buffer, 1), place)
    if RMP_IS_FALSE(o):
        return _written(rmp_write_bool(buffer, 0), place)
    if PyDict_CheckExact(o):
        return _encode_dict(buffer, o, place)
    if PyList_CheckExact(o):
        return _encode_list(buffer, o, place)
    if PyTuple_CheckExact(o):
        return _encode_tuple(buffer, o, place)
    return _encode_converted(buffer, <object>o, place)


cdef inline int _encode_text(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    # Compact ASCII is its own UTF-8: nothing to look up, nothing cached in the user's string.
    if PyUnicode_IS_COMPACT_ASCII(o):
        return _written(
            rmp_write_str(buffer, <const char*>PyUnicode_DATA(o), <size_t>PyUnicode_GET_LENGTH(o)), place
        )
    return _encode_wide_text(buffer, o, place)


cdef int _encode_wide_text(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* utf8
    try:
        utf8 = PyUnicode_AsUTF8AndSize(o, &size)
    except UnicodeEncodeError as failure:
        if not _is_lenient(place):
            raise _refused(place, _surrogate_text("string", failure)) from None
        _tell_replaced(place, "lone surrogate")
        return _write_mended(buffer, <str>o, place)
    return _written(rmp_write_str(buffer, utf8, <size_t>size), place)


cdef inline int _encode_int(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef int overflow = 0
    cdef long long number = PyLong_AsLongLongAndOverflow(o, &overflow)
    if overflow == 0:
        return _written(rmp_write_int(buffer, number), place)
    return _encode_big_int(buffer, <object>o, overflow, place)


cdef int _encode_big_int(rmp_buffer* buffer, object value, int overflow, rmp_place* place) except -1:
    cdef unsigned long long number
    if overflow > 0 and value.bit_length() <= 64:
        number = PyLong_AsUnsignedLongLong(<PyObject*>value)
        return _written(rmp_write_uint(buffer, number), place)
    if _is_lenient(place):
        _tell_replaced(place, "int out of range")
        return _write_mended(buffer, _int_text(value), place)
    # Beyond some thousand digits CPython refuses to print an int at all.
    shown = str(value) if value.bit_length() <= 128 else f"an int of {value.bit_length()} bits"
    raise _refused(place, f"{shown} is outside -2**63..2**64-1; pass it as a str or a float")


cdef int _encode_dict(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef Py_ssize_t count = PyDict_GET_SIZE(o)
    cdef Py_ssize_t written = 0
    cdef Py_ssize_t position = 0
    cdef PyObject* key = NULL
    cdef PyObject* item = NULL
    cdef size_t start = buffer.length
    cdef rmp_place inner
    if not _enter(&inner, place):
        return _write_too_deep(buffer, place)
    _written(rmp_write_map_header(buffer, <size_t>count), place)
    # The count also ends a loop over a dict that is emptied and refilled at its own size.
    while written < count and rmp_dict_next(o, &position, &key, &item):
        try:
            _encode_key(buffer, key, place)
            inner.key = key
            _encode(buffer, item, &inner)
        finally:
            Py_DECREF(key)
            Py_DECREF(item)
        written += 1
        if PyDict_GET_SIZE(o) != count:
            break
    if written != count or PyDict_GET_SIZE(o) != count:
        return _write_changed(buffer, start, "dict", place)
    return 0


cdef inline int _encode_key(rmp_buffer* buffer, PyObject* key, rmp_place* place) except -1:
    if PyUnicode_CheckExact(key) and PyUnicode_IS_COMPACT_ASCII(key):
        return _written(
            rmp_write_str(buffer, <const char*>PyUnicode_DATA(key), <size_t>PyUnicode_GET_LENGTH(key)), place
        )
    return _encode_rare_key(buffer, key, place)


cdef int _encode_rare_key(rmp_buffer* buffer, PyObject* key, rmp_place* place) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* utf8
    # A subclass of str (a StrEnum member) counts by its characters, as in json.
    if not PyUnicode_Check(key):
        if not _is_lenient(place):
            raise _refused(
                place, f"unsupported key {_key_text(<object>key)}; keys must be str, convert them first"
            )
        _tell_replaced(place, f"key of type {type(<object>key).__name__}")
        return _write_mended(buffer, _text_of_key(<object>key), place)
    try:
        utf8 = PyUnicode_AsUTF8AndSize(key, &size)
    except UnicodeEncodeError as failure:
        if not _is_lenient(place):
            raise _refused(place, _surrogate_text(f"key {_shortened(<object>key)!r}", failure)) from None
        _tell_replaced(place, "lone surrogate in a key")
        return _write_mended(buffer, str.__str__(<object>key), place)
    return _written(rmp_write_str(buffer, utf8, <size_t>size), place)


cdef int _encode_list(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef Py_ssize_t count = PyList_GET_SIZE(o)
    cdef Py_ssize_t index = 0
    cdef PyObject* item
    cdef size_t start = buffer.length
    cdef rmp_place inner
    if not _enter(&inner, place):
        return _write_too_deep(buffer, place)
    _written(rmp_write_array_header(buffer, <size_t>count), place)
    while index < count:
        item = rmp_list_item(o, index)
        if item == NULL:
            break
        inner.index = index
        try:
            _encode(buffer, item, &inner)
        finally:
            Py_DECREF(item)
        index += 1
    if index != count or PyList_GET_SIZE(o) != count:
        return _write_changed(buffer, start, "list", place)
    return 0


cdef int _encode_tuple(rmp_buffer* buffer, PyObject* o, rmp_place* place) except -1:
    cdef Py_ssize_t count = PyTuple_GET_SIZE(o)
    cdef Py_ssize_t index
    cdef rmp_place inner
    if not _enter(&inner, place):
        return _write_too_deep(buffer, place)
    _written(rmp_write_array_header(buffer, <size_t>count), place)
    # A tuple keeps its items for as long as the caller keeps the tuple: lending is safe here.
    for index in range(count):
        inner.index = index
        _encode(buffer, PyTuple_GET_ITEM(o, index), &inner)
    return 0


cdef inline bint _enter(rmp_place* inner, rmp_place* place) noexcept:
    """False: this would be too deep."""
    inner.parent = place
    inner.key = NULL
    inner.index = 0
    inner.depth = place.depth + 1
    return inner.depth <= RMP_USUAL_DEPTH or _may_go_deeper(inner.depth)


cdef bint _may_go_deeper(int depth) noexcept:
    return depth <= RMP_MAX_DEPTH and rmp_stack_has(RMP_STACK_RESERVE)


# How often user code may have run: who finds it unchanged, GIL held, knows that the world is as it was.
conversions_run = 0


cdef int _encode_converted(rmp_buffer* buffer, object value, rmp_place* place) except -1:
    global conversions_run
    cdef object simpler = value
    cdef int step
    cdef bytes packed
    if type(value) is Packed:
        packed = (<Packed>value).msgpack
        return _written(rmp_write_raw(buffer, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed)), place)
    conversions_run += 1
    for step in range(RMP_MAX_CONVERSIONS):
        try:
            simpler = simplify(simpler)
        except Unsupported as refusal:
            if _is_lenient(place):
                return _write_unrecorded(buffer, value, place)
            raise _refused(place, str(refusal)) from None
        except MemoryError:
            raise
        except Exception as failure:
            if _is_lenient(place):
                return _write_unrecorded(buffer, value, place)
            raise _refused(
                place,
                f"converting {type(value).__name__} raised {type(failure).__name__}; pass a plain value",
            ) from failure
        if rmp_is_plain(<PyObject*>simpler):
            return _encode(buffer, <PyObject*>simpler, place)
    if _is_lenient(place):
        return _write_unrecorded(buffer, value, place)
    raise _refused(
        place,
        f"{type(value).__name__} is not a JSON type after {RMP_MAX_CONVERSIONS} conversions; pass a plain value",
    )


# What follows runs only when something is replaced, or refused.

cdef bint _is_lenient(rmp_place* place) noexcept:
    while place.parent != NULL:
        place = place.parent
    return place.index != 0


cdef int _tell_replaced(rmp_place* place, str what) except -1:
    tell_replaced(_path_text(place), what)
    return 0


def tell_replaced(str path not None, str what not None) -> None:
    """Counts a value that was replaced, and tells the hook, which may log, and so run user code."""
    global _replaced, conversions_run
    _replaced += 1
    conversions_run += 1
    if _replaced_hook is not None:
        _replaced_hook(path, what)


cdef bytes _mended(str text):
    # Through UTF-16, which joins the two halves of a character that stand side by side; the rest becomes U+FFFD.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


cdef int _write_mended(rmp_buffer* buffer, str text, rmp_place* place) except -1:
    cdef bytes mended = _mended(text)
    return _written(rmp_write_str(buffer, PyBytes_AS_STRING(mended), PyBytes_GET_SIZE(mended)), place)


cdef int _write_marker(rmp_buffer* buffer, str key, str name, object value, rmp_place* place) except -1:
    cdef bytes packed = _packed({key: {name: value}}, "value", True)
    return _written(rmp_write_raw(buffer, PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed)), place)


cdef int _write_unrecorded(rmp_buffer* buffer, object value, rmp_place* place) except -1:
    cdef str name = type(value).__name__
    cdef object text = as_text(value)
    _tell_replaced(place, name)
    if text is not None:
        return _write_mended(buffer, text, place)
    return _write_marker(buffer, "relay_mp.unrecorded", "type", name, place)


cdef int _write_too_deep(rmp_buffer* buffer, rmp_place* place) except -1:
    if not _is_lenient(place):
        advice = "does it contain itself? pass a flatter value"
        if place.depth < RMP_MAX_DEPTH:
            advice = "this thread's stack has no room for more: pass a flatter value, or raise threading.stack_size"
        raise _refused(place, f"nested deeper than {place.depth} levels; {advice}")
    _tell_replaced(place, f"nested deeper than {place.depth}")
    return _write_marker(buffer, _CUT_KEY, "depth", place.depth, place)


cdef int _write_changed(rmp_buffer* buffer, size_t start, str name, rmp_place* place) except -1:
    if not _is_lenient(place):
        raise _refused(place, f"{name} changed while it was encoded; pass a copy of it")
    buffer.length = start
    _tell_replaced(place, f"{name} that changed while it was encoded")
    return _write_marker(buffer, "relay_mp.unrecorded", "type", name, place)


cdef str _int_text(object value):
    # Beyond some thousand digits CPython refuses decimal text, which takes quadratic time; hexadecimal is always had.
    return str(value) if value.bit_length() <= 4096 else hex(value)


cdef str _text_of_key(object key):
    """As json writes such a key; of other types what `str` gives, which may be user code."""
    if key is None:
        return "null"
    if key is True:
        return "true"
    if key is False:
        return "false"
    if type(key) is int:
        return _int_text(key)
    try:
        return str.__str__(str(key))
    except Exception:
        return f"<{type(key).__name__}>"


cdef object _refused(rmp_place* place, str reason):
    return PayloadError(f"{_path_text(place)}: {reason}")


cdef str _path_text(rmp_place* place):
    cdef list steps = []
    while place.parent != NULL:
        steps.append(f"[{place.index}]" if place.key == NULL else _key_step(<object>place.key))
        place = place.parent
    steps.reverse()
    # A cycle's path has RMP_MAX_DEPTH steps and says nothing after the first few.
    if len(steps) > 16:
        steps = steps[:6] + [" ... "] + steps[-2:]
    return str(<object>place.key) + "".join(steps)


cdef str _key_step(object key):
    if not isinstance(key, str):  # replaced by its text
        return f"[{key!r}]" if _has_plain_repr(key) else f"[<{type(key).__name__}>]"
    # str's own methods: a subclass may have overridden them, and this must not run user code.
    if str.isidentifier(key):
        return f".{_shortened(key)}"
    return f"[{_shortened(key)!r}]"


cdef str _shortened(object text):
    plain = str.__str__(text)
    return plain if len(plain) <= 64 else plain[:61] + "..."


cdef str _key_text(object key):
    name = type(key).__name__
    return f"{key!r} of type {name}" if _has_plain_repr(key) else f"of type {name}"


cdef bint _has_plain_repr(object key):
    # Of other types the repr is user code, or long.
    return type(key) in (bool, float, type(None)) or (type(key) is int and key.bit_length() <= 128)


cdef str _surrogate_text(str subject, object failure):
    return (
        f"{subject} has a lone surrogate at index {failure.start}, which UTF-8 cannot hold; "
        "replace it, for instance by text.encode('utf-8', 'replace').decode()"
    )
