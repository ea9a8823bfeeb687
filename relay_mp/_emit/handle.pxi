# A scope's handle. Included textually by verbs.pyx.

cdef extern from "Python.h":
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PyBytes_GET_SIZE(object)
    object PyBytes_FromStringAndSize(const char* bytes, Py_ssize_t size)


cdef int UUID_BYTES = 16

cdef tuple _TYPES = tuple(ScopeType)
cdef PyObject* _type_members[32]  # _TYPES, which keeps them alive: one look finds a member's code, and that it is one
cdef int _type_count = len(_TYPES)


def _fill_type_members():
    for code in range(_type_count):
        _type_members[code] = <PyObject*>_TYPES[code]


_fill_type_members()


cdef inline int _type_code(object scope_type) except -1:
    cdef int code
    for code in range(_type_count):
        if _type_members[code] == <PyObject*>scope_type:
            return code
    raise TypeError(f"scope_type is a {type(scope_type).__name__}; expected ScopeType")


cdef bint _set_uuid(uint8_t* field, bytes uuid) except -1:
    """False for None."""
    if uuid is None:
        return False
    if PyBytes_GET_SIZE(uuid) != UUID_BYTES:
        raise ValueError(f"a uuid has {len(uuid)} bytes; expected {UUID_BYTES}")
    memcpy(field, PyBytes_AS_STRING(uuid), UUID_BYTES)
    return True


cdef inline bytes _uuid_object(const uint8_t* field):
    return PyBytes_FromStringAndSize(<const char*>field, UUID_BYTES)


@cython.trashcan(True)  # a chain of scopes that were never popped goes in one step, however deep it is
@cython.freelist(32)
cdef class ScopeHandle:
    """One scope, as `scope.push`, `scope.scope` and `scope.get_handle` return it.

    Read-only. Two handles are equal if they name the same scope. A handle may be used as a parent
    (`handle=`) by any thread of any process, before and after its scope ended; it pickles, and arrives
    in another process as a foreign handle: a parent still, but not to be popped. Popping is for the
    process that pushed.

    Not to be made by hand: the arguments are the library's own.
    """

    # What is shown to Python is made when it is asked for: a scope that nobody looks at is one allocation.
    # `is_open` decides, by an atomic exchange, who ends the scope. `frozen_data` and `frozen_metadata`: see
    # arguments.freeze. `trace` is what `traceparent` calls the trace: the outermost emitted scope,
    # inherited, so that it costs nothing to find. `stack` is a cache. `epoch` is the `fork_epoch` of the
    # process that pushed it, FOREIGN in a copy that was unpickled. `outer` and `stack` change while others
    # may look: only by the functions below.
    cdef uint8_t uuid_bytes[16]
    cdef uint8_t parent_bytes[16]
    cdef uint8_t trace_bytes[16]
    cdef bint has_parent
    cdef bint has_trace
    cdef int is_open
    cdef int type_code
    cdef unsigned int attribute_bits
    cdef int64_t epoch
    cdef int64_t start_us
    cdef str name_text
    cdef object frozen_data
    cdef object frozen_metadata
    cdef ScopeHandle outer
    cdef bytes stack
    cdef object __weakref__

    def __init__(self, bytes uuid not None, bytes parent, str name not None, scope_type, unsigned int attributes, data,
                 metadata, ScopeHandle outer, bytes trace, int64_t epoch):
        _set_uuid(self.uuid_bytes, uuid)
        self.has_parent = _set_uuid(self.parent_bytes, parent)
        self.has_trace = _set_uuid(self.trace_bytes, trace)
        self.is_open = 1
        self.type_code = _type_code(scope_type)
        self.attribute_bits = attributes
        self.epoch = epoch
        self.name_text = name
        self.frozen_data = data
        self.frozen_metadata = metadata
        self.outer = outer

    @property
    def uuid(self) -> str:
        """The scope's uuid, which its start and end events share."""
        return canonical_uuid(_uuid_object(self.uuid_bytes))

    @property
    def name(self) -> str:
        """The scope's name."""
        return self.name_text

    @property
    def scope_type(self) -> ScopeType:
        """What kind of work it is."""
        return _TYPES[self.type_code]

    @property
    def attributes(self) -> ScopeAttributes:
        """Its flags."""
        return ScopeAttributes(self.attribute_bits)

    @property
    def parent_uuid(self) -> str | None:
        """The enclosing scope, None for a root."""
        return canonical_uuid(_uuid_object(self.parent_bytes)) if self.has_parent else None

    @property
    def data(self) -> Json:
        """A copy of the `data` it was pushed with, keys sorted. It appears in no event."""
        return thaw(self.frozen_data)

    @property
    def metadata(self) -> Json:
        """A copy of the `metadata` it was pushed with, keys sorted."""
        return thaw(self.frozen_metadata)

    # The library's own view, for the modules that carry handles elsewhere.

    @property
    def _uuid(self) -> bytes:
        return _uuid_object(self.uuid_bytes)

    @property
    def _parent(self) -> bytes | None:
        return _uuid_object(self.parent_bytes) if self.has_parent else None

    @property
    def _trace(self) -> bytes | None:
        return _uuid_object(self.trace_bytes) if self.has_trace else None

    @property
    def _name(self) -> str:
        return self.name_text

    @property
    def _type(self) -> ScopeType:
        return _TYPES[self.type_code]

    @property
    def _attributes(self) -> int:
        return self.attribute_bits

    @property
    def _data(self) -> object:
        return self.frozen_data

    @property
    def _metadata(self) -> object:
        return self.frozen_metadata

    @property
    def _outer(self) -> ScopeHandle | None:
        return _outer_of(self)

    @property
    def _epoch(self) -> int:
        return self.epoch

    @property
    def _open(self) -> bool:
        return self.is_open != 0

    @property
    def _stack(self) -> bytes | None:
        return _known_stack(self)

    @_stack.setter
    def _stack(self, bytes stack):
        _keep_stack(self, stack)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeHandle):
            return NotImplemented
        return memcmp(self.uuid_bytes, (<ScopeHandle>other).uuid_bytes, UUID_BYTES) == 0

    def __hash__(self) -> int:
        return hash(_uuid_object(self.uuid_bytes))

    def __repr__(self) -> str:
        return f"ScopeHandle(name={self.name_text!r}, uuid={self.uuid!r})"

    def __copy__(self):
        return self

    def __deepcopy__(self, _memo):
        return self

    def __reduce__(self):
        return make_foreign_handle, (*portable(self), self.frozen_data, self.frozen_metadata)


# Without a GIL a reference may be read only under the lock that it is changed under; with one these cost nothing.

cdef inline ScopeHandle _outer_of(ScopeHandle handle):
    with cython.critical_section(handle):
        return handle.outer


cdef inline int _set_outer(ScopeHandle handle, ScopeHandle outer) except -1:
    with cython.critical_section(handle):
        handle.outer = outer
    return 0


cdef inline bytes _known_stack(ScopeHandle handle):
    with cython.critical_section(handle):
        return handle.stack


cdef inline int _keep_stack(ScopeHandle handle, bytes stack) except -1:
    with cython.critical_section(handle):
        handle.stack = stack
    return 0


def portable(ScopeHandle handle not None) -> tuple:
    """What of a handle travels: the first arguments of `make_foreign_handle`."""
    return handle._uuid, handle._parent, handle.name_text, handle.type_code, handle.attribute_bits, handle._trace


def make_foreign_handle(bytes uuid, bytes parent, str name, int type_code, unsigned int attributes=0,
                        bytes trace=None, data=None, metadata=None, ScopeHandle outer=None) -> ScopeHandle:
    """A handle of a scope that this process did not push: a parent, never popped, always open."""
    return ScopeHandle(uuid, parent, name, _TYPES[type_code], attributes, data, metadata, outer, trace, FOREIGN)


def make_root() -> ScopeHandle:
    """A root: never popped, never in the stream."""
    return ScopeHandle(uuid7(), None, ROOT_NAME, ScopeType.Agent, 0, None, None, None, None, own_fork_epoch())
