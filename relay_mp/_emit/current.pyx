# cython: language_level=3, freethreading_compatible=True, annotation_typing=False
"""Which scope is current, compiled, and the chain of scopes around it.

Runs in every emitting process, on the caller's thread. Reads and writes one ContextVar and nothing shared; see `context`.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcmp

from relay_mp._emit.handle cimport UUID_BYTES, ScopeHandle, keep_stack, known_stack, outer_of, set_outer, uuid_object
from relay_mp._native.core cimport own_fork_epoch
from relay_mp._native.python cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import threading as _threading
from contextvars import ContextVar

from relay_mp._emit.handle import make_root
from relay_mp.errors import ScopeError
from relay_mp.events import REMOTE_MARK as _REMOTE_MARK

_current = ContextVar("relay_mp_scope", default=None)
variable = _current  # the same, without a look into the module's dict


class _ThreadScopes(_threading.local):
    """What a context without a scope falls back to, such as an empty `Context` or a new thread's."""

    root: ScopeHandle | None = None
    installed: ScopeHandle | None = None


thread_scopes = _ThreadScopes()

cdef object _inherited_scope = None


def set_inherited_hook(hook) -> None:
    """Tells where a thread without a scope finds the one that its process was started under."""
    global _inherited_scope
    _inherited_scope = hook


def current_scope() -> ScopeHandle:
    """The innermost open scope of this context; its thread's root, made if needed, where there is none."""
    return current_handle()


cdef ScopeHandle settle(object stored):
    cdef ScopeHandle handle
    if stored is None:
        stored = thread_scopes.installed or thread_scopes.root
        if stored is None:
            stored = (None if _inherited_scope is None else _inherited_scope()) or make_root()
            thread_scopes.root = stored
    handle = nearest_open(stored)
    # Stored, so that it is found at once the next time, and inherited by tasks started from here.
    store_scope(handle)
    return handle


cpdef ScopeHandle nearest_open(ScopeHandle handle):
    """The scope itself, or the innermost open one around it."""
    # Roots and foreign handles never close, and every chain ends in one.
    cdef ScopeHandle outer
    while not handle.is_open:
        outer = outer_of(handle)
        if outer is None:
            break
        handle = outer
    return handle


cpdef bytes stack_uuids(ScopeHandle handle):
    """The uuids of a scope and all it was pushed under, 16 bytes each, innermost first, root included.

    Kept once it was asked for. A scope that has closed since may still be in it: its scope-local
    subscribers went with it, so that nobody is left to see the event by mistake.
    """
    cdef bytes packed = known_stack(handle)
    cdef bytes known
    cdef ScopeHandle inner = handle
    cdef list pieces
    if packed is not None:
        return packed
    pieces = []
    while inner is not None:
        known = known_stack(inner)
        if known is not None:
            pieces.append(known)
            break
        pieces.append(uuid_object(inner.uuid_bytes))
        inner = outer_of(inner)
    packed = b"".join(pieces)
    keep_stack(handle, packed)
    return packed


cdef bytes _remote_mark = _REMOTE_MARK


cdef bytes foreign_stack(ScopeHandle current):
    """Of a foreign scope that is of another program's trace, the scopes around it; else None."""
    cdef bytes packed = stack_uuids(current)
    if memcmp(PyBytes_AS_STRING(packed) + PyBytes_GET_SIZE(packed) - UUID_BYTES, PyBytes_AS_STRING(_remote_mark),
              UUID_BYTES):
        return None
    return packed


cpdef bytes record_stack():
    """What a record that is emitted here and now has as its stack."""
    return record_stack_of(current_handle())


def ended_already(ScopeHandle handle not None, str purpose) -> ScopeError:
    """The error for a scope that has ended."""
    return ScopeError(f"cannot {purpose} scope {handle.name_text!r} ({handle.uuid}): it has ended already")


def require_open(ScopeHandle handle not None, str purpose) -> None:
    """Holds if this process pushed the scope, or has it as a root, and it is still open.

    Args:
        handle: the scope.
        purpose: what it is needed for, to go into the message: "pop", "register a subscriber on".

    Raises:
        ScopeError: it is another process's, or has ended.
    """
    if handle.epoch != <int64_t>own_fork_epoch():
        raise ScopeError(
            f"cannot {purpose} scope {handle.name_text!r} ({handle.uuid}): another process pushed it, "
            "or this is a copy; here it can only be a parent"
        )
    if not handle.is_open:
        raise ended_already(handle, purpose)


cdef int require_endable(ScopeHandle handle, str purpose) except -1:
    """Holds if this process may end the scope, whatever is current.

    Raises ScopeError: the scope is a root, another process's, or has ended.
    """
    if not handle.has_parent:
        raise ScopeError(f"cannot {purpose} {handle.name_text!r} ({handle.uuid}): it is a root, which has no end")
    require_open(handle, purpose)
    return 0


cdef int require_poppable(ScopeHandle handle) except -1:
    """Holds if this context may pop the scope; whether it has ended already is decided when it is closed.

    Raises ScopeError: the scope is a root, another process's, has ended, or has an open descendant that is
    this context's current scope.
    """
    require_endable(handle, "pop")
    if stored_scope() is not handle:
        _require_innermost(handle)
    return 0


cdef int _require_innermost(ScopeHandle handle) except -1:
    # A context that does not hold the scope at all may pop it: it closes behind the others' backs.
    cdef ScopeHandle current = current_handle()
    cdef ScopeHandle inner = outer_of(current)
    while inner is not None:
        if inner is handle:
            raise ScopeError(
                f"cannot pop scope {handle.name_text!r} ({handle.uuid}): scope {current.name_text!r} "
                f"({current.uuid}), pushed inside it, is still open; pop that first"
            )
        inner = outer_of(inner)
    return 0


cdef int leave(ScopeHandle handle) except -1:
    """The last step of an end: this context goes back to the nearest open scope around it, also from a scope inside.

    The chain is shortened to that scope, for those that still hold this one: see context.py.
    """
    cdef object stored
    cdef ScopeHandle outer = outer_of(handle)
    if outer is None:
        return 0
    if not outer.is_open:
        outer = nearest_open(outer)
        set_outer(handle, outer)
    stored = stored_scope()
    if stored is handle or (stored is not None and _is_inside(<ScopeHandle>stored, handle)):
        store_scope(outer)
    return 0


cdef bint _is_inside(ScopeHandle inner, ScopeHandle handle):
    inner = outer_of(inner)
    while inner is not None and inner is not handle:
        inner = outer_of(inner)
    return inner is not None
