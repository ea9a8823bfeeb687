# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""The verbs, compiled: from a call of `scope.event`, `push`, `pop` or a `with` block to a record in one native call.

    arguments ─▶ current scope (ContextVar, read in C) ─▶ envelope, a C struct ─▶ core.emit_event ─▶ ring

Runs in every emitting process, on the caller's thread. Reads and writes one ContextVar and nothing
shared; what is off the fast path, a datetime, a schema, metadata to merge, is arguments.py's, in Python.

Why this is compiled, and why it is here: written in Python over `core.emit`, a mark cost 0.85 us, of
which 0.5 us were the interpreter's (arguments, attributes, a bytes object for each uuid), and a `with
scope` 3.3 us. A module of its own rather than a part of the core, because handles, stacks and statuses
mean something, and the core knows no event's meaning. It calls the core, the handle and the current scope by
C pointers (core.pxd, handle.pxd, current.pxd), which cost what a call costs: callgrind counts no more
instructions than when all was one module (a mark 3000, a `with` block 7800).

A full ring: `core.emit_event` waits, GIL released, up to the session's `block_timeout`, or drops at
once, as the session's `on_full` says; either way it returns, and counts what it dropped. Whatever
raises here is for what the caller passed.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy

from relay_mp._emit.current cimport (
    current_handle,
    leave,
    record_stack_of,
    require_endable,
    require_poppable,
    stack_uuids,
    store_scope,
    stored_scope,
)
from relay_mp._emit.handle cimport UUID_BYTES, ScopeHandle, checked_handle, type_code_of
from relay_mp._native.core cimport (
    RMP_NO_CATEGORY,
    clock_us,
    emit_event,
    is_listening,
    make_uuid7,
    own_fork_epoch,
    rmp_envelope,
    wants_stacks,
)

from relay_mp._emit import scope_end as _scope_end
from relay_mp._emit.arguments import (
    attribute_bits,
    check_name,
    check_profile,
    check_schema,
    freeze,
    freeze_profile,
    merge_metadata,
    misuse,
    parse_scope_uuid,
    parse_uuid,
    to_microseconds,
    with_outcome,
    with_severity,
)
from relay_mp._emit.current import ended_already
from relay_mp._emit.decorator import run_in_blocks
from relay_mp._emit.failures import STATUS_OK as _STATUS_OK, failure_status
from relay_mp._native.core import uuid7
from relay_mp.errors import ScopeError, described_type
from relay_mp.events import KIND_END as _KIND_END, KIND_MARK as _KIND_MARK, KIND_START as _KIND_START


cdef extern from *:
    """
    /* Who pops a scope is decided here: atomic, so that it is also without a GIL. */
    static inline int rmp_close_once(int *is_open) { return __atomic_exchange_n(is_open, 0, __ATOMIC_ACQ_REL); }
    """
    bint rmp_close_once(int* is_open) noexcept
    object PyObject_Vectorcall(object callable, PyObject* const* arguments, size_t flags, PyObject* names)
    ctypedef object (*vectorcallfunc)(object callable, PyObject* const* arguments, size_t flags, PyObject* names)
    size_t PyVectorcall_NARGS(size_t flags)
    ctypedef struct PyTypeObject:
        vectorcallfunc tp_vectorcall
        Py_ssize_t tp_vectorcall_offset
    PyTypeObject* Py_TYPE(object o)


# What is looked at in every event, without a look into the module's dict.
cdef int _start = _KIND_START, _end = _KIND_END, _mark = _KIND_MARK
cdef dict _local_scopes = _scope_end.local_scopes
cdef dict _status_ok = _STATUS_OK


# ---------------------------------------------------------------------------------------------- marks

def event(name: str, *, handle: AnyHandle | None = None, data: Json | None = None,
          data_schema: DataSchema | None = None, metadata: Json | None = None, severity: LogSeverity | None = None,
          timestamp: Timestamp | None = None) -> None:
    """Emits a mark: a point in time with a name. Nothing at all while nobody listens.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: what happened.
        handle: the parent; the current scope if left out. Who sees the mark depends on the current
            scope, not on this.
        data: what is to be known about it.
        data_schema: the schema that `data` follows; keys other than `name` and `version` are dropped.
        metadata: what describes the event rather than the work.
        severity: makes it a log line; goes into metadata as `relay_mp.log.severity`.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive, or too small for nanoseconds.
        PayloadError: a payload holds a value that cannot be recorded, or the schema lacks a string name or version.
        ScopeError: a severity is given, and metadata that is not a dict.
        UnicodeEncodeError: the name has a lone surrogate.
    """
    cdef rmp_envelope envelope
    cdef uint8_t uuid[16]
    cdef ScopeHandle current, parent
    cdef int64_t now
    if not is_listening():
        return
    if type(name) is not str:
        name = check_name(name)
    parent = None if handle is None else checked_handle(handle)
    if data_schema is not None:
        data_schema = check_schema(data_schema)
    if severity is not None:
        metadata = with_severity(metadata, severity)
    current = current_handle()
    if parent is None:
        parent = current
    now = clock_us()
    make_uuid7(uuid, now)
    envelope.kind = _mark
    envelope.category = RMP_NO_CATEGORY
    envelope.attributes = 0
    envelope.timestamp_us = now if timestamp is None else to_microseconds(timestamp)
    envelope.uuid = uuid
    envelope.parent = parent.uuid_bytes
    # Scope-local subscribers follow the stack that is in use, whatever the mark's parent.
    emit_event(&envelope, <str>name, None, record_stack_of(current), data, metadata, None, data_schema)


# --------------------------------------------------------------------------------------------- scopes

cdef ScopeHandle _push(object name, object scope_type, object parent, object attributes, object data,
                       object metadata, object profile, object input_, object timestamp):
    cdef ScopeHandle handle, outer, enclosing
    cdef int type_code
    cdef int64_t now
    if type(name) is not str:
        name = check_name(name)
    type_code = type_code_of(scope_type)
    outer = current_handle()
    enclosing = outer if parent is None else checked_handle(parent)
    handle = ScopeHandle.__new__(ScopeHandle)
    if attributes is not None:
        handle.attribute_bits = attribute_bits(attributes)
    if data is not None:
        handle.frozen_data = freeze(data, "data")
    if metadata is not None:
        handle.frozen_metadata = freeze(metadata, "metadata")
    if profile is not None:
        handle.frozen_profile = freeze_profile(profile)
    now = clock_us()
    make_uuid7(handle.uuid_bytes, now)
    memcpy(handle.parent_bytes, enclosing.uuid_bytes, UUID_BYTES)
    memcpy(handle.trace_bytes, &outer.trace_bytes[0] if outer.has_trace else &handle.uuid_bytes[0], UUID_BYTES)
    handle.has_parent = handle.has_trace = True
    handle.is_open = 1
    handle.type_code = type_code
    handle.name_text = <str>name
    handle.outer = outer
    handle.epoch = own_fork_epoch()
    if is_listening():
        handle.start_us = _emit_start(handle, now if timestamp is None else to_microseconds(timestamp), input_, metadata,
                                      profile)
    store_scope(handle)
    return handle


cdef int64_t _emit_start(ScopeHandle handle, int64_t timestamp_us, object input_, object metadata,
                         object profile) except? -1:
    cdef rmp_envelope envelope
    envelope.kind = _start
    envelope.category = handle.type_code
    envelope.attributes = handle.attribute_bits
    envelope.timestamp_us = timestamp_us
    envelope.uuid = handle.uuid_bytes
    envelope.parent = handle.parent_bytes
    emit_event(&envelope, handle.name_text, None, record_stack_of(handle.outer), input_, metadata, profile, None)
    return timestamp_us


cdef int _pop(ScopeHandle handle, object output, object metadata, object profile, object timestamp) except -1:
    # What the usual case, the current scope, needs to know is known without a look at the chain.
    if stored_scope() is not handle or handle.epoch != <int64_t>own_fork_epoch() or not handle.has_parent:
        require_poppable(handle)
    if not rmp_close_once(&handle.is_open):
        raise ended_already(handle, "pop")
    return _end_scope(handle, handle.type_code, output, metadata, profile, timestamp)


cdef int _end_scope(ScopeHandle handle, int type_code, object output, object metadata, object profile,
                    object timestamp) except -1:
    """The end of a scope that is closed already."""
    try:
        if is_listening():
            _emit_end(handle, type_code, output, metadata, profile, timestamp)
    except (TypeError, ValueError):  # an argument was refused: the scope is still the caller's to end
        handle.is_open = 1
        raise
    except BaseException:  # a signal's handler has raised meanwhile: the event is counted as lost, the scope has ended
        _is_over(handle)
        raise
    return _is_over(handle)


cdef inline int _is_over(ScopeHandle handle) except -1:
    """What a scope's end comes to behind its event: the scope around it is current, its local subscribers go."""
    leave(handle)
    if _local_scopes and handle._uuid in _local_scopes:
        _scope_end.end(handle._uuid)
    return 0


def end_silently(ScopeHandle handle not None) -> None:
    """Ends a scope for this process, without an event: what is inside goes on below what is around it. Idempotent.

    A forked child leaves its parent's scope, which goes on, and so do the scope's local subscribers.
    """
    if handle.epoch != <int64_t>own_fork_epoch():
        leave(handle)
    elif rmp_close_once(&handle.is_open):
        _is_over(handle)


cdef int _leave_block(ScopeHandle handle, object status, object timestamp) except -1:
    """The end of a `with` block: the scope ends, whatever happened inside, and the scope around it is current again.

    What the block left open inside, such as the scope of a generator that was left early, ends later, under it. A
    scope that was popped inside has ended. If a signal's handler raises meanwhile, the scope has ended all the same.
    """
    if not rmp_close_once(&handle.is_open):
        return 0
    try:
        if is_listening():
            _emit_end(handle, handle.type_code, None, status, None, timestamp)
    finally:
        _is_over(handle)
    return 0


cdef int _emit_end(ScopeHandle handle, int type_code, object output, object metadata, object profile,
                   object timestamp) except -1:
    cdef rmp_envelope envelope
    if timestamp is None:
        # Strictly later than the start, also if the clock was set back or the start lies ahead.
        envelope.timestamp_us = clock_us()
        if handle.start_us and envelope.timestamp_us <= handle.start_us:
            envelope.timestamp_us = handle.start_us + 1
    else:
        envelope.timestamp_us = to_microseconds(timestamp)
    if handle.frozen_metadata is not None:
        metadata = merge_metadata(handle.frozen_metadata, metadata)
    if handle.frozen_profile is not None:
        profile = merge_metadata(handle.frozen_profile, profile)
    envelope.kind = _end
    envelope.category = type_code
    envelope.attributes = handle.attribute_bits
    envelope.uuid = handle.uuid_bytes
    envelope.parent = handle.parent_bytes
    # The scope's own chain: its subscribers see its end, wherever it is popped.
    emit_event(&envelope, handle.name_text, None, stack_uuids(handle) if wants_stacks() else None, output, metadata,
               profile, None)
    return 0


def push(name: str, scope_type: ScopeType, *, handle: AnyHandle | None = None,
         attributes: ScopeAttributes | None = None, data: Json | None = None, metadata: Json | None = None,
         category_profile: JsonObject | None = None, input: Json | None = None,
         timestamp: Timestamp | None = None) -> ScopeHandle:
    """Opens a scope, makes it the current one, and emits its start.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: what the work is called.
        scope_type: what kind of work it is.
        handle: its parent; the current scope if left out. Also one that has ended or is another
            process's.
        attributes: flags.
        data: kept in the handle (`handle.data`), in no event.
        metadata: of the start event; the end's is merged over it.
        category_profile: what is particular to the scope's type, such as `{"model_name": ...}`; of both events.
        input: the start event's `data`.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Returns:
        The handle, to be given to `pop`.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive.
        PayloadError: a payload holds a value that cannot be recorded; no scope was opened.
        UnicodeEncodeError: the name has a lone surrogate; no scope was opened.
    """
    return _push(name, scope_type, handle, attributes, data, metadata, category_profile, input, timestamp)


def pop(handle: ScopeHandle, *, output: Json | None = None, metadata: Json | None = None,
        category_profile: JsonObject | None = None, timestamp: Timestamp | None = None) -> None:
    """Ends a scope: emits its end, and goes back to the nearest open scope around it.

    Emits one event: a full ring may hold the call up, see the module. From any thread, task or context
    of the process that pushed the scope; in a context where another scope inside it is still current,
    that one goes first.

    Args:
        handle: the scope, from `push`.
        output: the end event's `data`.
        metadata: merged over the start's, one level deep; where either is not a dict, it replaces it.
        category_profile: merged likewise.
        timestamp: as for `push`, kept as given even if before the start. Left out: now, and always
            later than the start.

    Raises:
        ScopeError: it has ended, is a root, another process's, or not this context's innermost.
        TypeError: an argument is not of its type; the scope stays open.
        ValueError: the timestamp is naive; the scope stays open.
        PayloadError: a payload holds a value that cannot be recorded; the scope stays open.
    """
    if category_profile is not None:
        check_profile(category_profile)
    _pop(_own_scope(handle), output, metadata, category_profile, timestamp)


cdef inline ScopeHandle _own_scope(object handle):
    """What can be ended here: a call ends by `llm.call_end` or `tools.call_end`."""
    if not isinstance(handle, ScopeHandle):
        raise TypeError(f"handle is {described_type(handle)}; expected ScopeHandle")
    return <ScopeHandle>handle


def begin(name: str, scope_type: ScopeType, *, parent: AnyHandle | None = None, uuid: str | None = None,
          trace: str | None = None, attributes: ScopeAttributes | None = None, data: Json | None = None,
          metadata: Json | None = None, category_profile: JsonObject | None = None, input: Json | None = None,
          timestamp: Timestamp | None = None) -> ScopeHandle:
    """Opens a scope without making it the current one, and emits its start.

    For who mirrors the life cycle of another library, which says "begun" and "ended" from wherever it happens to be:
    `end` ends it from any thread, task or context of the process. `with scope.use(handle):` makes it the current scope
    of a block.

    Emits one event: a full ring may hold the call up, see the module. From any thread and process.

    Args:
        name: what the work is called.
        scope_type: what kind of work it is.
        parent: the scope, or the call, that it is under; the current scope if left out.
        uuid: its uuid, 32 hexadecimal digits with or without hyphens, where another library has given it one; the last
            16 must not all be 0. A new one if left out.
        trace: the trace that it belongs to, as the `traceparent` of what is under it says; likewise. Its parent's if
            left out.
        attributes: flags.
        data: kept in the handle (`handle.data`), in no event.
        metadata: of the start event; the end's is merged over it.
        category_profile: what is particular to the scope's type, such as `{"model_name": ...}`; of both events.
        input: the start event's `data`.
        timestamp: a timezone-aware datetime, or nanoseconds since the epoch; now if left out.

    Returns:
        The handle, to be given to `end`, and as a parent.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: the timestamp is naive, or too small for nanoseconds.
        PropagationError: a uuid is malformed.
        PayloadError: a payload holds a value that cannot be recorded; no scope was opened.
        UnicodeEncodeError: the name has a lone surrogate; no scope was opened.
    """
    cdef ScopeHandle outer = current_handle() if parent is None else checked_handle(parent)
    own = uuid7() if uuid is None else parse_scope_uuid(uuid, "uuid")
    around = (outer._trace or own) if trace is None else parse_uuid(trace, "trace")
    cdef ScopeHandle handle = ScopeHandle(
        own, outer._uuid, name if type(name) is str else check_name(name), scope_type,
        0 if attributes is None else attribute_bits(attributes), None if data is None else freeze(data, "data"),
        None if metadata is None else freeze(metadata, "metadata"), outer, around, own_fork_epoch(),
    )
    if category_profile is not None:
        handle.frozen_profile = freeze_profile(category_profile)
    if is_listening():
        handle.start_us = _emit_start(handle, clock_us() if timestamp is None else to_microseconds(timestamp), input,
                                      metadata, category_profile)
    return handle


def end(handle: ScopeHandle, *, output: Json | None = None, input: Json | None = None,
        scope_type: ScopeType | None = None, status: Status | None = None, metadata: Json | None = None,
        category_profile: JsonObject | None = None, timestamp: Timestamp | None = None) -> None:
    """Ends a scope from any thread, task or context of its process: emits its end.

    What is still open inside ends later, under it. Contexts in which it is the current scope go on with the nearest open
    scope around it.

    Emits one event: a full ring may hold the call up, see the module.

    Args:
        handle: the scope, from `begin` or `push`.
        output: the end event's `data`.
        input: what it was given, where that was not known at its start: the end's metadata has it as `relay_mp.input`.
        scope_type: what kind of work it was, where that was not known at its start: the end event's category.
        status: how it ended: "OK", "ERROR" or "UNSET", or the exception that ended it. In the end's metadata, as a `with`
            block has it.
        metadata: merged over the start's, one level deep; where either is not a dict, it replaces it.
        category_profile: merged likewise.
        timestamp: as for `begin`, kept as given even if before the start. Left out: now, and always later than the start.

    Raises:
        ScopeError: it has ended, is a root, or another process's; or there is a status or an input, and metadata that is
            not a dict.
        TypeError: an argument is not of its type; the scope stays open.
        ValueError: the timestamp is naive, or too small for nanoseconds; the status is another text. It stays open.
        PayloadError: a payload holds a value that cannot be recorded; the scope stays open.
    """
    cdef ScopeHandle scope_ = _own_scope(handle)
    cdef int type_code = scope_.type_code if scope_type is None else type_code_of(scope_type)
    if status is not None or input is not None:
        metadata = with_outcome(metadata, status, input)
    if category_profile is not None:
        check_profile(category_profile)
    require_endable(scope_, "end")
    if not rmp_close_once(&scope_.is_open):
        raise ended_already(scope_, "end")
    _end_scope(scope_, type_code, output, metadata, category_profile, timestamp)


@cython.freelist(8)
cdef class scope:
    """scope(name, scope_type, *, handle=None, attributes=None, data=None, metadata=None, category_profile=None, input=None, timestamp=None, end_timestamp=None)
--

    A scope for the length of a `with` block. It ends however the block ends, and says how.

    The end's metadata gets `otel.status_code`: OK; ERROR, with the exception's text as
    `otel.status_description`, for an Exception or a cancellation; UNSET for what ends the program, such
    as KeyboardInterrupt, and for GeneratorExit. What left the block is in `exception.type`,
    `exception.message` and `exception.stacktrace`. There is no end `data`: use `push` and `pop` for one.

    A child forked inside the block leaves it silently: the scope is its parent's to end.

    Emits two events: a full ring may hold the block's entry and exit up, see the module. One object
    serves any number of blocks, one after the other. As a decorator it opens a scope for each call,
    which spans the work: of a coroutine function the awaiting, of a generator function the reading,
    during which the scope is current while the body runs, and not while its reader does.

    Leaving a block never raises, and hides no exception. A scope that was opened inside and is still
    open, such as that of a generator that was left early, ends later; it stays under this one.

    Args:
        name: what the work is called.
        scope_type: what kind of work it is.
        handle: its parent; the current scope if left out.
        attributes: flags.
        data: kept in the handle, in no event.
        metadata: of both events.
        category_profile: what is particular to the scope's type; of both events.
        input: the start event's `data`.
        timestamp: of the start; a timezone-aware datetime, or nanoseconds since the epoch; now if left out.
        end_timestamp: of the end, kept as given even if before the start.

    Returns:
        A context manager whose target is the scope's handle.

    Raises:
        TypeError, ValueError, PayloadError, UnicodeEncodeError: on entering, as `push`.
    """

    cdef object _name, _type, _parent, _attributes, _data, _metadata, _profile, _input, _timestamp, _end_timestamp
    cdef ScopeHandle _handle

    def __init__(self, name: str, scope_type: ScopeType, *, handle: AnyHandle | None = None,
                 attributes: ScopeAttributes | None = None, data: Json | None = None, metadata: Json | None = None,
                 category_profile: JsonObject | None = None, input: Json | None = None,
                 timestamp: Timestamp | None = None, end_timestamp: Timestamp | None = None) -> None:
        _fill(self, name, scope_type, handle, attributes, data, metadata, category_profile, input, timestamp,
              end_timestamp)

    def __enter__(self) -> ScopeHandle:
        if self._handle is not None:
            raise ScopeError(f"the block of scope {self._name!r} is running already; make another for each")
        if self._end_timestamp is not None:
            # Refused before the work, not after it, when the scope could no longer be ended.
            to_microseconds(self._end_timestamp)
        self._handle = _push(self._name, self._type, self._parent, self._attributes, self._data, self._metadata,
                             self._profile, self._input, self._timestamp)
        return self._handle

    def __exit__(self, exc_type, exc, traceback) -> None:
        cdef ScopeHandle handle = self._handle
        if handle is None:
            raise ScopeError(f"the block of scope {self._name!r} was left without being entered")
        self._handle = None
        if handle.epoch != <int64_t>own_fork_epoch():
            leave(handle)
            return
        _leave_block(handle, _status_ok if exc is None else failure_status(exc), self._end_timestamp)

    def __call__(self, function):
        """The function, with a scope around each of its calls."""
        return run_in_blocks(function, self._another)

    def _another(self) -> scope:
        return scope(self._name, self._type, handle=self._parent, attributes=self._attributes, data=self._data,
                     metadata=self._metadata, category_profile=self._profile, input=self._input,
                     timestamp=self._timestamp, end_timestamp=self._end_timestamp)


cdef inline void _fill(scope block, object name, object scope_type, object handle, object attributes, object data,
                       object metadata, object profile, object input_, object timestamp,
                       object end_timestamp) noexcept:
    block._name = name
    block._type = scope_type
    block._parent = handle
    block._attributes = attributes
    block._data = data
    block._metadata = metadata
    block._profile = profile
    block._input = input_
    block._timestamp = timestamp
    block._end_timestamp = end_timestamp
    block._handle = None


def _new_block(name, scope_type, *, handle=None, attributes=None, data=None, metadata=None, category_profile=None,
               input=None, timestamp=None, end_timestamp=None):
    cdef scope block = scope.__new__(scope)
    _fill(block, name, scope_type, handle, attributes, data, metadata, category_profile, input, timestamp, end_timestamp)
    return block


_new_block.__name__ = _new_block.__qualname__ = "scope"  # what errors about arguments call it
cdef object _make_block = _new_block


cdef object _call_scope(object kind, PyObject* const* arguments, size_t flags, PyObject* names):
    if PyVectorcall_NARGS(flags) != 2:
        misuse("scope", PyVectorcall_NARGS(flags), <object>names if names != NULL else None)
    return PyObject_Vectorcall(_make_block, arguments, flags, names)


# `scope(...)` without a tuple and a dict for its arguments: a tenth of a `with` block. Subclasses do not inherit it.
(<PyTypeObject*>scope).tp_vectorcall = _call_scope


# So that a call with the wrong arguments by position is told how to write it: a number is compared before the call.

cdef vectorcallfunc _call_of_event, _call_of_push


cdef object _checked_event(object function, PyObject* const* arguments, size_t flags, PyObject* names):
    if PyVectorcall_NARGS(flags) > 1:
        misuse("event", PyVectorcall_NARGS(flags), None)
    return _call_of_event(function, arguments, flags, names)


cdef object _checked_push(object function, PyObject* const* arguments, size_t flags, PyObject* names):
    if PyVectorcall_NARGS(flags) != 2:
        misuse("push", PyVectorcall_NARGS(flags), <object>names if names != NULL else None)
    return _call_of_push(function, arguments, flags, names)


cdef vectorcallfunc* _place_of_call(object function) noexcept:
    return <vectorcallfunc*>(<char*><PyObject*>function + Py_TYPE(function).tp_vectorcall_offset)


# A build of Cython without vectorcall has no such place, and keeps its own messages.
if Py_TYPE(event).tp_vectorcall_offset > 0:
    _call_of_event, _call_of_push = _place_of_call(event)[0], _place_of_call(push)[0]
    _place_of_call(event)[0], _place_of_call(push)[0] = _checked_event, _checked_push
