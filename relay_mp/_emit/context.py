"""Which scope is current: handles, stacks, and how both follow the work into tasks, threads, workers.

Runs in every emitting process. Reads and writes one ContextVar, `_current`, and nothing shared. Handles and
the current scope itself are in `handle` and `current`, compiled because `verbs` uses them at every event.

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
an atomic exchange.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, Token, copy_context
from types import TracebackType
from typing import Any

from relay_mp._emit.calls import AnyHandle
from relay_mp._emit.current import _current, current_scope, nearest_open, stack_uuids, thread_scopes
from relay_mp._emit.handle import ScopeHandle, make_foreign_handle, make_root, portable, scope_handle
from relay_mp.errors import ScopeError, described_type

__all__ = [
    "ScopeStack",
    "TaskContext",
    "begin_at_root",
    "capture",
    "create_scope_stack",
    "fork_asyncio_context",
    "get_scope_stack",
    "propagate_scope_to_thread",
    "scope_stack_active",
    "set_session_hook",
    "set_thread_scope_stack",
    "use_scope",
    "use_scope_stack",
]


def forget_root() -> None:
    """Where this context is at its root, the root is looked for anew: a worker's, after its server's fork."""
    handle = _current.get()
    if handle is None or handle._outer is None:
        thread_scopes.root = None
        _current.set(None)


def begin_at_root() -> None:
    """This context and its thread begin anew, whatever was current: a worker's, after a fork in somebody's scope."""
    thread_scopes.root = thread_scopes.installed = None
    _current.set(None)


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
        return f"<ScopeStack top={nearest_open(self._top)._name!r} root={self._root.uuid}>"


def _root_of(handle: ScopeHandle) -> ScopeHandle:
    while handle._outer is not None:
        handle = handle._outer
    return handle


def _require_stack(stack: object) -> None:
    if not isinstance(stack, ScopeStack):
        raise TypeError(f"stack is {described_type(stack)}; expected ScopeStack")


def get_scope_stack() -> ScopeStack:
    """The current stack, with the current scope on top; one is begun where there is none."""
    top = current_scope()
    return ScopeStack(_root_of(top), top)


def create_scope_stack() -> ScopeStack:
    """A new stack with a root of its own, unrelated to the current scope, and not in use yet."""
    root = make_root()
    return ScopeStack(root, root)


def scope_stack_active() -> bool:
    """Whether this context has a stack, or its thread was given one. Begins none."""
    return _current.get() is not None or thread_scopes.installed is not None


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
        TypeError: it is not a ScopeStack.
    """
    _require_stack(stack)
    previous = _current.get()
    _current.set(nearest_open(stack._top))
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
        TypeError: it is not a ScopeStack.
    """
    _require_stack(stack)
    top = nearest_open(stack._top)
    thread_scopes.installed = top
    _current.set(top)


def propagate_scope_to_thread() -> ScopeStack:
    """The current stack, to be passed to `set_thread_scope_stack` in another thread.

    Raises:
        ScopeError: there is none; push a scope or call `get_scope_stack()` first.
    """
    if not scope_stack_active():
        raise ScopeError("no scope stack is active in this context; push a scope, or call get_scope_stack(), first")
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
    """Where a task was submitted: the session, and the submitter's scope. Made by `pools.capture`.

    Within a process it holds the scope itself; pickled, it carries the scope's identity and the uuids
    of all that enclose it (16 bytes each), so that the work is its child and scope-local subscribers
    see it, wherever it runs.
    """

    __slots__ = ("handle", "session")

    def __init__(self, session: str | None, handle: ScopeHandle) -> None:
        self.session = session
        self.handle = handle

    def __reduce__(self) -> tuple[Callable[..., "TaskContext"], tuple[Any, ...]]:
        return _restore_task_context, (self.session, stack_uuids(self.handle), *portable(self.handle))

    def __repr__(self) -> str:
        return f"TaskContext(session={self.session!r}, handle={self.handle!r})"


def _restore_task_context(session: str | None, stack: bytes, *portable: Any) -> TaskContext:
    handle = make_foreign_handle(*portable)
    handle._stack = stack
    return TaskContext(session, handle)


def _foreign_copy(handle: ScopeHandle) -> ScopeHandle:
    copy = make_foreign_handle(*portable(handle))
    copy._stack = stack_uuids(handle)
    return copy


def capture() -> TaskContext:
    """The session and scope of the calling context, for a task to run in: call it where the task is submitted.

    For `pools.use` and `pools.propagate`. It can be pickled, and costs a task some 100 bytes and 16 for each scope
    around the current one. Any thread of any process; without a session it carries the scope alone.
    """
    return TaskContext(_session_hook(), current_scope())


class use_scope:
    """Makes a scope the current one for the length of a `with` block; after it all is as before. It ends nothing.

    What is emitted inside stands below it, also if it has ended already. A scope that was pushed inside and not popped
    is left open. For who mirrors the life cycle of another library, with `begin` and `end`; in any thread, task or
    context of any process. Emits nothing.

    Args:
        handle: the scope, or the call of a tool or an LLM.

    Raises:
        TypeError: it is not a handle.
    """

    __slots__ = ("_handle", "_previous", "_token")

    def __init__(self, handle: AnyHandle) -> None:
        self._handle = scope_handle(handle)

    def __enter__(self) -> ScopeHandle:
        handle = self._handle
        if not handle._open:
            # It ended before this began, such as a task of a pool. What is inside is its child all the same.
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
