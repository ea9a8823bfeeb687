# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""A scope's handle, compiled: one allocation a scope, and what the library's other modules may know of it.

Runs in every process. Apart from `verbs`, which makes one for each scope, because handles also come from elsewhere:
from another process, and for the root that no event names.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy

from relay_mp._native.core cimport own_fork_epoch
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from relay_mp._emit.arguments import scope_type_error, thaw
from relay_mp._native.core import uuid7
from relay_mp.errors import described_type
from relay_mp.events import canonical_uuid
from relay_mp.types import ScopeAttributes, ScopeType

ROOT_NAME = "root"

FOREIGN = FOREIGN_EPOCH
"""No process's `fork_epoch`."""

cdef tuple _TYPES = tuple(ScopeType)
cdef PyObject* _type_members[32]  # _TYPES, which keeps them alive: one look finds a member's code, and that it is one
cdef int _type_count = len(_TYPES)


def _fill_type_members():
    for code in range(_type_count):
        _type_members[code] = <PyObject*>_TYPES[code]


_fill_type_members()


cdef int type_code_of(object scope_type) except -1:
    cdef int code
    for code in range(_type_count):
        if _type_members[code] == <PyObject*>scope_type:
            return code
    raise scope_type_error(f"scope_type is {described_type(scope_type)}; expected ScopeType", scope_type)


cdef ScopeHandle scope_of(object handle):
    """The scope of what is no ScopeHandle itself: of a call that has begun, the call."""
    as_scope = getattr(type(handle), "_as_scope", None)
    if as_scope is None:
        raise TypeError(f"handle is {described_type(handle)}; expected ScopeHandle, ToolHandle or LLMHandle")
    return as_scope(handle)


cdef bint _set_uuid(uint8_t* field, bytes uuid) except -1:
    """False for None."""
    if uuid is None:
        return False
    if PyBytes_GET_SIZE(uuid) != UUID_BYTES:
        raise ValueError(f"a uuid has {len(uuid)} bytes; expected {UUID_BYTES}")
    memcpy(field, PyBytes_AS_STRING(uuid), UUID_BYTES)
    return True


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

    def __init__(self, bytes uuid not None, bytes parent, str name not None, scope_type, unsigned int attributes, data,
                 metadata, ScopeHandle outer, bytes trace, int64_t epoch):
        _set_uuid(self.uuid_bytes, uuid)
        self.has_parent = _set_uuid(self.parent_bytes, parent)
        self.has_trace = _set_uuid(self.trace_bytes, trace)
        self.is_open = 1
        self.type_code = type_code_of(scope_type)
        self.attribute_bits = attributes
        self.epoch = epoch
        self.name_text = name
        self.frozen_data = data
        self.frozen_metadata = metadata
        self.outer = outer

    @property
    def uuid(self) -> str:
        """The scope's uuid, which its start and end events share."""
        return canonical_uuid(uuid_object(self.uuid_bytes))

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
        return canonical_uuid(uuid_object(self.parent_bytes)) if self.has_parent else None

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
        return uuid_object(self.uuid_bytes)

    @property
    def _parent(self) -> bytes | None:
        return uuid_object(self.parent_bytes) if self.has_parent else None

    @property
    def _trace(self) -> bytes | None:
        return uuid_object(self.trace_bytes) if self.has_trace else None

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
        return outer_of(self)

    @property
    def _epoch(self) -> int:
        return self.epoch

    @property
    def _open(self) -> bool:
        return self.is_open != 0

    @property
    def _stack(self) -> bytes | None:
        return known_stack(self)

    @_stack.setter
    def _stack(self, bytes stack):
        keep_stack(self, stack)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeHandle):
            return NotImplemented
        return memcmp(self.uuid_bytes, (<ScopeHandle>other).uuid_bytes, UUID_BYTES) == 0

    def __hash__(self) -> int:
        return hash(uuid_object(self.uuid_bytes))

    def __repr__(self) -> str:
        return f"ScopeHandle(name={self.name_text!r}, uuid={self.uuid!r})"

    def __copy__(self):
        return self

    def __deepcopy__(self, _memo):
        return self

    def __reduce__(self):
        return make_foreign_handle, (*portable(self), self.frozen_data, self.frozen_metadata)


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


def scope_handle(handle) -> ScopeHandle:
    """The scope that a handle names: also a tool's or an LLM call's.

    Raises:
        TypeError: it is not a handle.
    """
    return checked_handle(handle)
