"""Which scope is current: handles, stacks, and how both follow the work into tasks, threads, workers.

Runs in every emitting process. Reads and writes one ContextVar, `_current`, and nothing shared.

    _current (one per context)
        │
        ▼
    ScopeHandle "tool"  ──outer──▶  ScopeHandle "agent"  ──outer──▶  root (no events, one per thread)

A stack is that chain: each handle knows the one it was pushed under, `outer`, which is also its parent
unless `handle=` named another. Nothing in a chain is ever changed by a task that only uses it, so
tasks, threads and workers share chains, never a mutable stack: two tasks that each push under "agent"
are siblings, and neither sees the other's scope. (One shared list of scopes, the obvious way, makes
two scopes under `asyncio.gather` pop each other's.)

A handle may be popped from a context that did not push it. Contexts that still hold it then see its
nearest open ancestor. When a handle closes, its `outer` is set to that ancestor, so that a chain of
tasks, each started by the last, does not keep every scope that ever was.

Fork: a child goes on under the scope it was forked in, and cannot pop it: handles know the process
they are of, by the core's `fork_epoch`, which sees forks that run no fork hooks of Python's (uWSGI's),
and costs a tenth of `getpid`.

Nothing here takes a lock. The one race, two threads that pop the same handle, is decided by
`list.pop`, which is atomic with and without the GIL.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from types import TracebackType
from typing import Any, Self

import msgpack  # type: ignore[import-untyped]

from relay_mp._native.core import fork_epoch, pack, uuid7
from relay_mp.errors import PayloadError, ScopeError
from relay_mp.events import canonical_payload, canonical_uuid
from relay_mp.types import Json, ScopeAttributes, ScopeType

__all__ = [
    "ScopeHandle",
    "ScopeStack",
    "TaskContext",
    "capture",
    "create_scope_stack",
    "current_scope",
    "ended_already",
    "fork_asyncio_context",
    "freeze",
    "get_scope_stack",
    "leave_handle",
    "make_foreign_handle",
    "propagate_scope_to_thread",
    "require_open",
    "require_poppable",
    "scope_stack_active",
    "set_inherited_hook",
    "set_session_hook",
    "set_thread_scope_stack",
    "stack_uuids",
    "task_scope",
    "thaw",
    "use_scope_stack",
]

ROOT_NAME = "root"

FOREIGN = -1
"""No process's `fork_epoch`."""

# ---------------------------------------------------------------------------- payloads kept by handles

_SCALARS = frozenset({type(None), bool, float})


def freeze(value: object, argument: str) -> Any:
    """A payload as a handle keeps it: packed, and so checked, and safe from later changes.

    Raises:
        PayloadError: it is no payload; the path starts with `argument`.
    """
    if type(value) in _SCALARS:
        return value
    try:
        return pack(value)
    except PayloadError as error:
        # The encoder calls what it packs by itself "value".
        message = str(error)
        if not message.startswith("value"):
            raise
        raise PayloadError(argument + message.removeprefix("value")) from None


def thaw(frozen: Any) -> Any:
    """The payload again: JSON types, keys sorted at every depth, the caller's own copy."""
    if type(frozen) is bytes:
        return canonical_payload(msgpack.unpackb(frozen))
    return canonical_payload(frozen)


# --------------------------------------------------------------------------------------------- handles


class ScopeHandle:
    """One scope, as `scope.push`, `scope.scope` and `scope.get_handle` return it.

    Read-only. Two handles are equal if they name the same scope. A handle may be used as a parent
    (`handle=`) by any thread of any process, before and after its scope ended; it pickles, and arrives
    in another process as a foreign handle: a parent still, but not to be popped. Popping is for the
    process that pushed.

    Not to be made by hand: the arguments are the library's own.
    """

    # `_open` holds one item while the scope is open: popping it decides who ends the scope.
    # `_data` and `_metadata` are frozen, see `freeze`. `_trace` is what `traceparent` calls the trace:
    # the outermost emitted scope, inherited, so that it costs nothing to find. `_stack` is a cache.
    # `_epoch` is the `fork_epoch` of the process that pushed it, `FOREIGN` in a copy that was unpickled.
    __slots__ = (
        "__weakref__",
        "_attributes",
        "_data",
        "_epoch",
        "_metadata",
        "_name",
        "_open",
        "_outer",
        "_parent",
        "_stack",
        "_start_us",
        "_trace",
        "_type",
        "_uuid",
    )

    _stack: bytes | None

    def __init__(
        self,
        uuid: bytes,
        parent: bytes | None,
        name: str,
        scope_type: ScopeType,
        attributes: int,
        data: Any,
        metadata: Any,
        outer: "ScopeHandle | None",
        trace: bytes | None,
        epoch: int,
    ) -> None:
        self._uuid = uuid
        self._parent = parent
        self._name = name
        self._type = scope_type
        self._attributes = attributes
        self._data = data
        self._metadata = metadata
        self._outer = outer
        self._trace = trace
        self._epoch = epoch
        self._stack = None
        self._start_us = 0
        self._open = [True]

    @property
    def uuid(self) -> str:
        """The scope's uuid, which its start and end events share."""
        return canonical_uuid(self._uuid)

    @property
    def name(self) -> str:
        """The scope's name."""
        return self._name

    @property
    def scope_type(self) -> ScopeType:
        """What kind of work it is."""
        return self._type

    @property
    def attributes(self) -> ScopeAttributes:
        """Its flags."""
        return ScopeAttributes(self._attributes)

    @property
    def parent_uuid(self) -> str | None:
        """The enclosing scope, None for a root."""
        return None if self._parent is None else canonical_uuid(self._parent)

    @property
    def data(self) -> Json:
        """A copy of the `data` it was pushed with, keys sorted. It appears in no event."""
        data: Json = thaw(self._data)
        return data

    @property
    def metadata(self) -> Json:
        """A copy of the `metadata` it was pushed with, keys sorted."""
        metadata: Json = thaw(self._metadata)
        return metadata

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeHandle):
            return NotImplemented
        return self._uuid == other._uuid

    def __hash__(self) -> int:
        return hash(self._uuid)

    def __repr__(self) -> str:
        return f"ScopeHandle(name={self._name!r}, uuid={self.uuid!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., "ScopeHandle"], tuple[Any, ...]]:
        return make_foreign_handle, (*_portable(self), self._data, self._metadata)


def _portable(handle: ScopeHandle) -> tuple[Any, ...]:
    return (
        handle._uuid,
        handle._parent,
        handle._name,
        handle._type.code,
        handle._attributes,
        handle._trace,
    )


_TYPES = tuple(ScopeType)


def make_foreign_handle(
    uuid: bytes,
    parent: bytes | None,
    name: str,
    type_code: int,
    attributes: int = 0,
    trace: bytes | None = None,
    data: Any = None,
    metadata: Any = None,
    outer: ScopeHandle | None = None,
) -> ScopeHandle:
    """A handle of a scope that this process did not push: a parent, never popped, always open."""
    scope_type = _TYPES[type_code]
    return ScopeHandle(uuid, parent, name, scope_type, attributes, data, metadata, outer, trace, FOREIGN)


def _make_root() -> ScopeHandle:
    return ScopeHandle(uuid7(), None, ROOT_NAME, ScopeType.Agent, 0, None, None, None, None, fork_epoch())


# ----------------------------------------------------------------------------------- the current scope

_current: ContextVar[ScopeHandle | None] = ContextVar("relay_mp_scope", default=None)


class _ThreadScopes(threading.local):
    """What a context without a scope falls back to, such as an empty `Context` or a new thread's."""

    root: ScopeHandle | None = None
    installed: ScopeHandle | None = None


_thread = _ThreadScopes()


def current_scope() -> ScopeHandle:
    """The innermost open scope of this context; its thread's root, made if needed, where there is none."""
    handle = _current.get()
    if handle is not None and handle._open:
        return handle
    return _settle(handle)


def _settle(handle: ScopeHandle | None) -> ScopeHandle:
    if handle is None:
        handle = _thread.installed or _thread.root
        if handle is None:
            handle = _thread.root = _inherited_scope() or _make_root()
    handle = _nearest_open(handle)
    # Stored, so that it is found at once the next time, and inherited by tasks started from here.
    _current.set(handle)
    return handle


def _nothing_inherited() -> ScopeHandle | None:
    return None


_inherited_scope: Callable[[], ScopeHandle | None] = _nothing_inherited


def set_inherited_hook(hook: Callable[[], ScopeHandle | None]) -> None:
    """Tells where a thread without a scope finds the one that its process was started under."""
    global _inherited_scope
    _inherited_scope = hook


def forget_root() -> None:
    """Where this context is at its root, the root is looked for anew: a worker's, after its server's fork."""
    handle = _current.get()
    if handle is None or handle._outer is None:
        _thread.root = None
        _current.set(None)


def _nearest_open(handle: ScopeHandle) -> ScopeHandle:
    # Roots and foreign handles never close, and every chain ends in one.
    while not handle._open:
        outer = handle._outer
        if outer is None:
            break
        handle = outer
    return handle


def stack_uuids(handle: ScopeHandle) -> bytes:
    """The uuids of a scope and all it was pushed under, 16 bytes each, innermost first, root included.

    Kept once it was asked for. A scope that has closed since may still be in it: its scope-local
    subscribers went with it, so that nobody is left to see the event by mistake.
    """
    packed = handle._stack
    if packed is not None:
        return packed
    pieces = []
    inner: ScopeHandle | None = handle
    while inner is not None:
        if inner._stack is not None:
            pieces.append(inner._stack)
            break
        pieces.append(inner._uuid)
        inner = inner._outer
    packed = handle._stack = b"".join(pieces)
    return packed


def ended_already(handle: ScopeHandle, purpose: str) -> ScopeError:
    """The error for a scope that has ended."""
    return ScopeError(f"cannot {purpose} scope {handle._name!r} ({handle.uuid}): it has ended already")


def require_open(handle: ScopeHandle, purpose: str) -> None:
    """Holds if this process pushed the scope, or has it as a root, and it is still open.

    Args:
        handle: the scope.
        purpose: what it is needed for, to go into the message: "pop", "register a subscriber on".

    Raises:
        ScopeError: it is another process's, or has ended.
    """
    if handle._epoch != fork_epoch():
        raise ScopeError(
            f"cannot {purpose} scope {handle._name!r} ({handle.uuid}): another process pushed it, "
            "or this is a copy; here it can only be a parent"
        )
    if not handle._open:
        raise ended_already(handle, purpose)


def require_poppable(handle: ScopeHandle) -> None:
    """Holds if this context may pop the scope; whether it has ended already is decided by `_open.pop()`.

    Raises:
        ScopeError: the scope is a root, another process's, has ended, or has an open descendant that is
            this context's current scope.
    """
    if handle._parent is None:
        raise ScopeError(f"cannot pop {handle._name!r} ({handle.uuid}): it is a root, which has no end")
    require_open(handle, "pop")
    if _current.get() is not handle:
        _require_innermost(handle)


def _require_innermost(handle: ScopeHandle) -> None:
    # A context that does not hold the scope at all may pop it: it closes behind the others' backs.
    current = current_scope()
    inner = current._outer
    while inner is not None:
        if inner is handle:
            raise ScopeError(
                f"cannot pop scope {handle._name!r} ({handle.uuid}): scope {current._name!r} "
                f"({current.uuid}), pushed inside it, is still open; pop that first"
            )
        inner = inner._outer


def leave_handle(handle: ScopeHandle) -> None:
    """The last step of a pop: this context goes back to the nearest open scope around it.

    The chain is shortened to that scope, for those that still hold this one: see the module.
    """
    outer = handle._outer
    if outer is None:
        return
    if not outer._open:
        outer = handle._outer = _nearest_open(outer)
    if _current.get() is handle:
        _current.set(outer)


# ---------------------------------------------------------------------------------------------- stacks


class ScopeStack:
    """A stack of scopes to be used somewhere else: in a thread, for a request, after a hop over a wire.

    It names a root and the scope on top; `use_scope_stack` and `set_thread_scope_stack` go on from
    there. Two are equal if they have the same root. It is a reference, not a container: whoever uses
    it pushes scopes of their own under its top, seen by nobody else, and several may at the same time.
    """

    __slots__ = ("_root", "_top")

    def __init__(self, root: ScopeHandle, top: ScopeHandle) -> None:
        self._root = root
        self._top = top

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScopeStack):
            return NotImplemented
        return self._root == other._root

    def __hash__(self) -> int:
        return hash((ScopeStack, self._root))

    def __repr__(self) -> str:
        return f"<ScopeStack top={_nearest_open(self._top)._name!r} root={self._root.uuid}>"


def _root_of(handle: ScopeHandle) -> ScopeHandle:
    while handle._outer is not None:
        handle = handle._outer
    return handle


def _require_stack(stack: object) -> None:
    if not isinstance(stack, ScopeStack):
        raise TypeError(f"stack is a {type(stack).__name__}; expected ScopeStack")


def get_scope_stack() -> ScopeStack:
    """The current stack, with the current scope on top; one is begun where there is none."""
    top = current_scope()
    return ScopeStack(_root_of(top), top)


def create_scope_stack() -> ScopeStack:
    """A new stack with a root of its own, unrelated to the current scope, and not in use yet."""
    root = _make_root()
    return ScopeStack(root, root)


def scope_stack_active() -> bool:
    """Whether this context has a stack, or its thread was given one. Begins none."""
    return _current.get() is not None or _thread.installed is not None


@contextmanager
def use_scope_stack(stack: ScopeStack) -> Iterator[ScopeStack]:
    """Uses a stack for the block, then goes back to the one before, also if the block raises.

    The scope that is current at the end becomes the stack's top, so that a later block goes on there.
    Blocks that use the same stack at the same time, in other tasks or threads, do not see each other's
    scopes; the last to end leaves its top.

    Args:
        stack: the stack.

    Returns:
        A context manager whose target is the stack.

    Raises:
        TypeError: it is no ScopeStack.
    """
    _require_stack(stack)
    previous = _current.get()
    _current.set(_nearest_open(stack._top))
    try:
        yield stack
    finally:
        top = current_scope()
        if _root_of(top) == stack._root:
            stack._top = top
        _current.set(previous)


def set_thread_scope_stack(stack: ScopeStack) -> None:
    """Uses a stack in the calling thread, from here on: for threads that one starts oneself.

    Args:
        stack: the stack, mostly from `propagate_scope_to_thread()` in the starting thread.

    Raises:
        TypeError: it is no ScopeStack.
    """
    _require_stack(stack)
    top = _nearest_open(stack._top)
    _thread.installed = top
    _current.set(top)


def propagate_scope_to_thread() -> ScopeStack:
    """The current stack, to be passed to `set_thread_scope_stack` in another thread.

    Raises:
        ScopeError: there is none; push a scope or call `get_scope_stack()` first.
    """
    if not scope_stack_active():
        raise ScopeError(
            "no scope stack is active in this context; push a scope, or call get_scope_stack(), first"
        )
    return get_scope_stack()


def fork_asyncio_context() -> Context:
    """A copy of the current context for `asyncio.create_task(..., context=...)`, under the current scope.

    Tasks are isolated from each other in any case; this is for code that needs the context itself.
    Contexts made by it begin at the current scope, and what they push is seen by no other.
    """
    current_scope()
    return copy_context()


# ----------------------------------------------------------------------------- tasks of pools, workers


def _no_session() -> str | None:
    return None


_session_hook: Callable[[], str | None] = _no_session


def set_session_hook(hook: Callable[[], str | None]) -> None:
    """Tells `capture` where to find the handle of the session that this process is attached to."""
    global _session_hook
    _session_hook = hook


class TaskContext:
    """Where a task was submitted: the session, and the submitter's scope. Made by `capture`.

    Within a process it holds the scope itself; pickled, it carries the scope's identity and the uuids
    of all that enclose it (16 bytes each), so that the work is its child and scope-local subscribers
    see it, wherever it runs.
    """

    __slots__ = ("handle", "session")

    def __init__(self, session: str | None, handle: ScopeHandle) -> None:
        self.session = session
        self.handle = handle

    def __reduce__(self) -> tuple[Callable[..., "TaskContext"], tuple[Any, ...]]:
        return _restore_task_context, (self.session, stack_uuids(self.handle), *_portable(self.handle))

    def __repr__(self) -> str:
        return f"TaskContext(session={self.session!r}, handle={self.handle!r})"


def _restore_task_context(session: str | None, stack: bytes, *portable: Any) -> TaskContext:
    handle = make_foreign_handle(*portable)
    handle._stack = stack
    return TaskContext(session, handle)


def _foreign_copy(handle: ScopeHandle) -> ScopeHandle:
    copy = make_foreign_handle(*_portable(handle))
    copy._stack = stack_uuids(handle)
    return copy


def capture() -> TaskContext:
    """The session and scope of the calling context, for a task to run in: called at submit."""
    return TaskContext(_session_hook(), current_scope())


class task_scope:
    """Runs a block, one task, under the scope where it was submitted; after it all is as before.

    What the task pushed and did not pop goes with it: the next task of a reused worker starts clean.
    """

    __slots__ = ("_context", "_previous", "_token")

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __enter__(self) -> ScopeHandle:
        handle = self._context.handle
        if not handle._open:
            # It ended before its task began. The task is its child all the same, as it is in a worker.
            handle = _foreign_copy(handle)
        self._previous = _current.get()
        self._token: Token[ScopeHandle | None] = _current.set(handle)
        return handle

    def __exit__(
        self,
        _exc_type: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        try:
            _current.reset(self._token)
        except ValueError:
            # Left in another context than entered, as a generator may be.
            _current.set(self._previous)
