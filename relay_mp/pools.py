"""multiprocessing and concurrent.futures with the scope carried along.

    submit, map, start      in the submitter's context: the current scope is captured
          │  (pickled with the task, or left in the new process's configuration)
          ▼
    the task, the process   runs under that scope; a reused worker is as before afterwards, also if it raises

Signatures are the standard library's; importing this module patches nothing. `instrument()` puts the
same behaviour into the standard library's own classes, for code that one does not own. Workers attach
to the session by themselves, whatever the start method, with these classes or without.
"""

import concurrent.futures
import functools
import inspect
import multiprocessing
import multiprocessing.context
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar

from relay_mp._emit.carry import current_scope_text
from relay_mp._emit.context import TaskContext, capture, forget_root, use_scope
from relay_mp._emit.decorator import run_in_blocks
from relay_mp._emit.handle import ScopeHandle
from relay_mp._emit.locks import ForkSafeRLock
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._session import inheritance, pool_workers
from relay_mp._session.configuration import diagnostics
from relay_mp._session.membership import attach, current_session
from relay_mp.errors import SessionError, described_type

__all__ = [
    "Pool",
    "Process",
    "ProcessPoolExecutor",
    "TaskContext",
    "ThreadPoolExecutor",
    "capture",
    "environ",
    "get_context",
    "instrument",
    "propagate",
    "uninstrument",
    "use",
]

P = ParamSpec("P")
R = TypeVar("R")


# ---- tasks ----


class _Propagated(Generic[P, R]):
    """What `propagate` returns: the function, and where it was submitted."""

    def __init__(self, function: Callable[P, R], context: TaskContext) -> None:
        self._function = function
        self._context = context
        functools.update_wrapper(self, function, updated=())
        if inspect.iscoroutinefunction(function):
            _mark_coroutine_function(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return run_in_blocks(self._function, functools.partial(use, self._context))(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Propagated, (self._function, self._context)

    def __dask_tokenize__(self) -> Any:
        # Dask names a task after its function and arguments: to carry a scope makes no other task of it.
        return sys.modules["dask.base"].normalize_token(self._function)

    def __repr__(self) -> str:
        return f"propagate({self._function!r})"


def _mark_coroutine_function(carrier: Any) -> None:
    """So that `iscoroutinefunction` says of it what it says of its function, as frameworks ask."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(carrier)
    else:  # asyncio's own question; inspect's has no marker before 3.12
        from asyncio import coroutines  # only here: it doubles the time that importing the package takes

        carrier._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined]


class _Tasks:
    """The tasks that run in this process, all of one session: a process emits into one at a time."""

    def __init__(self) -> None:
        self._lock = ForkSafeRLock()
        self._epoch = core.fork_epoch()
        self._running = 0

    @contextmanager
    def running(self, context: TaskContext) -> Iterator[None]:
        """For the length of a task, which joins its session.

        Raises:
            SessionError: tasks of another session run here; they would go on in this task's.
        """
        with self._lock:
            if self._epoch != core.fork_epoch():  # the parent's tasks are not run here
                self._epoch, self._running = core.fork_epoch(), 0
            self._join(context)
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= self._epoch == core.fork_epoch()

    def _join(self, context: TaskContext) -> None:
        """Attaches a worker that its parent's word did not reach, or reached for another session."""
        session = current_session()
        if context.session is None or (session is not None and session.path == context.session):
            return
        if session is not None and session.is_open:
            if session.is_owner:
                return
            if self._running:
                raise SessionError(
                    f"a task of the session of {context.session} was given to process {os.getpid()} while "
                    f"{self._running} of {session.path} run in it, and a process emits into one session at a time: "
                    "use workers of its own for each session, or one task at a time"
                )
        try:
            attach(context.session)
        except SessionError as error:
            logger.debug("a task's session cannot be attached: %s", error)


_tasks = _Tasks()


@contextmanager
def use(context: TaskContext) -> Iterator[ScopeHandle]:
    """Runs a block as a task of the place that `capture` took: under its scope, in its session.

        with pools.use(context) as parent:
            work()

    Behind the block the caller's scope is current again, and what the block pushed and did not pop is gone. A worker
    that is not yet in the context's session attaches to it. Any thread of any process; a context may be used often,
    and by several at a time.

    Args:
        context: what `capture` gave, there or pickled from there.

    Yields:
        The scope under which the block runs.

    Raises:
        TypeError: it is another type.
        SessionError: tasks of another session run in this process, which emits into one at a time.
    """
    if not isinstance(context, TaskContext):
        raise TypeError(f"use() takes what pools.capture() returns; found {type(context).__name__}")
    with _tasks.running(context), use_scope(context.handle) as handle:
        yield handle


def propagate(function: Callable[P, R], context: TaskContext | None = None) -> Callable[P, R]:
    """The function, to be run under the scope that is current now, wherever and whenever it is called.

    Picklable if the function is, so that it carries the scope through anything that moves callables:
    joblib, Dask, Ray, Celery, a queue. Each call runs under the scope and leaves the caller's context
    as it was. A coroutine function stays one. A coroutine or generator that a call returns runs under the scope, too,
    and its reader does not. Any thread of any process; may be called often.

    Call it where the work is submitted, not where a library asks for the next task: joblib runs the
    generator of `Parallel(...)(delayed(f)(x) for x in data)` in threads of its own, so `f` is
    propagated on a line before it.

    Args:
        function: any callable. One that is propagated already keeps the scope it has, unless `context` is given.
        context: of `capture`, to run under that scope in place of the current one.

    Raises:
        TypeError: the function cannot be called, or the context is another type.
    """
    if context is not None and not isinstance(context, TaskContext):
        raise TypeError(f"context is {described_type(context)}; expected what pools.capture() returns")
    pool_workers.note_carrying()
    if isinstance(function, _Propagated):
        return function if context is None else _Propagated(function._function, context)
    if not callable(function):
        raise TypeError(f"propagate() takes a callable; found {type(function).__name__}")
    return _Propagated(function, context or capture())


def _carried(function: Any) -> Any:
    # What is not a callable goes through: the standard library's own refusal comes at its own time.
    return propagate(function) if callable(function) else function


def _carrying(method: Callable[..., R], parameter: str | None = None) -> Callable[..., R]:
    """A method that submits its callable `parameter`, by default the first behind self, with the scope."""
    names = list(inspect.signature(method).parameters)
    index = (1 if parameter is None else names.index(parameter)) - 1
    name = names[index + 1]

    @functools.wraps(method)
    def carry(self: Any, /, *args: Any, **kwargs: Any) -> R:
        pool_workers.note_carrying()
        if index < len(args):
            args = (*args[:index], _carried(args[index]), *args[index + 1 :])
        elif name in kwargs:
            kwargs[name] = _carried(kwargs[name])
        return method(self, *args, **kwargs)

    return carry


_Pool = multiprocessing.pool.Pool
_ProcessPoolExecutor = concurrent.futures.ProcessPoolExecutor
_ThreadPoolExecutor = concurrent.futures.ThreadPoolExecutor

_POOL_METHODS = ("apply_async", "map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered")


class Pool(_Pool):
    """`multiprocessing.pool.Pool`: each task, and the initializer, runs under its submitter's scope."""

    __init__ = _carrying(_Pool.__init__, "initializer")
    apply_async = _carrying(_Pool.apply_async)
    map = _carrying(_Pool.map)
    map_async = _carrying(_Pool.map_async)
    starmap = _carrying(_Pool.starmap)
    starmap_async = _carrying(_Pool.starmap_async)
    imap = _carrying(_Pool.imap)
    imap_unordered = _carrying(_Pool.imap_unordered)


class ProcessPoolExecutor(_ProcessPoolExecutor):
    """`concurrent.futures.ProcessPoolExecutor`: each task, and the initializer, runs under its submitter's scope."""

    __init__ = _carrying(_ProcessPoolExecutor.__init__, "initializer")
    submit = _carrying(_ProcessPoolExecutor.submit)
    # Not left to submit, which sees chunks: each item starts clean, not what the one before it left open.
    map = _carrying(_ProcessPoolExecutor.map)


class ThreadPoolExecutor(_ThreadPoolExecutor):
    """`concurrent.futures.ThreadPoolExecutor`: each task, and the initializer, runs under its submitter's scope."""

    __init__ = _carrying(_ThreadPoolExecutor.__init__, "initializer")
    submit = _carrying(_ThreadPoolExecutor.submit)
    map = _carrying(_ThreadPoolExecutor.map)


# ---- processes ----


class _StartsUnderScope:
    """A process that begins under the scope in which it was started, whatever the start method.

    The scope goes into the configuration that multiprocessing copies to the child; a forked child has
    it in its context anyway.
    """

    _config: dict[str, Any]

    def start(self) -> None:
        """`multiprocessing.Process.start`; captures the current scope."""
        _leave_scope(self._config)
        super().start()  # type: ignore[misc]


def _leave_scope(config: dict[str, Any]) -> None:
    config[inheritance.SCOPE_VARIABLE] = current_scope_text()


def _begin_under_scope(_: object) -> None:
    # A forkserver whose preloaded modules have asked for a scope hands its own root down.
    if inheritance.SCOPE_VARIABLE in multiprocessing.process.current_process()._config:  # type: ignore[attr-defined]
        forget_root()


# Called in each new process once its configuration is there.
multiprocessing.util.register_after_fork(_StartsUnderScope, _begin_under_scope)


class Process(_StartsUnderScope, multiprocessing.Process):
    """`multiprocessing.Process`, begun under the scope in which it is started."""


class ForkProcess(_StartsUnderScope, multiprocessing.context.ForkProcess):
    """`Process` of `get_context("fork")`."""


class SpawnProcess(_StartsUnderScope, multiprocessing.context.SpawnProcess):
    """`Process` of `get_context("spawn")`."""


class ForkServerProcess(_StartsUnderScope, multiprocessing.context.ForkServerProcess):
    """`Process` of `get_context("forkserver")`."""


class _MakesCarryingPools:
    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """`multiprocessing.Pool` of this context."""
        pool: Pool = Pool(processes, initializer, initargs, maxtasksperchild, context=self)
        return pool

    def get_context(self, method: str | None = None) -> Any:
        """This context, or the one of another start method."""
        return self if method is None else get_context(method)


class ForkContext(_MakesCarryingPools, multiprocessing.context.ForkContext):
    """The context of `get_context("fork")`."""

    Process = ForkProcess


class SpawnContext(_MakesCarryingPools, multiprocessing.context.SpawnContext):
    """The context of `get_context("spawn")`."""

    Process = SpawnProcess


class ForkServerContext(_MakesCarryingPools, multiprocessing.context.ForkServerContext):
    """The context of `get_context("forkserver")`."""

    Process = ForkServerProcess


_CONTEXTS: dict[str, Any] = {"fork": ForkContext(), "spawn": SpawnContext(), "forkserver": ForkServerContext()}


def get_context(method: str | None = None) -> Any:
    """`multiprocessing.get_context`: a context whose Process and Pool carry the scope.

    Args:
        method: "fork", "spawn", "forkserver"; the default start method if left out.

    Raises:
        ValueError: there is no such method.
    """
    method = method or multiprocessing.get_start_method()
    if method not in _CONTEXTS:
        raise ValueError(f"cannot find context for {method!r}; there are {', '.join(_CONTEXTS)}")
    return _CONTEXTS[method]


def environ(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment for a plain subprocess: it attaches by itself and begins under the current scope.

        subprocess.run([...], env=relay_mp.pools.environ())

    Args:
        base: the variables to add to; default: this process's.

    Returns:
        A new dict. Without a session it is a copy of `base`.
    """
    variables = dict(os.environ if base is None else base)
    session = current_session()
    if session is not None and session.is_open:
        variables[inheritance.SESSION_VARIABLE] = session.path
        variables[inheritance.SCOPE_VARIABLE] = current_scope_text()
        diagnostics.tell()
    return variables


# ---- the standard library, and other people's pools, in place ----

_INHERITED = object()
"""In place of what a class has of its base class: it is given back by taking ours away."""

_ENV_POSITION = 10
"""Of `env` among the positional arguments of `subprocess.Popen` behind `self`."""


def _starting_under_scope(start: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(start)
    def start_under_scope(self: Any) -> None:
        _leave_scope(self._config)
        start(self)

    return start_under_scope


def _carrying_initializer(init: Callable[..., None]) -> Callable[..., None]:
    return _carrying(init, "initializer")


def _passing_environ(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def init_with_environ(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > _ENV_POSITION:
            args = (*args[:_ENV_POSITION], environ(args[_ENV_POSITION]), *args[_ENV_POSITION + 1 :])
        else:
            kwargs["env"] = environ(kwargs.get("env"))
        init(self, *args, **kwargs)

    return init_with_environ


_PATCHES: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (multiprocessing.process.BaseProcess, "start", _starting_under_scope),
    *((_Pool, method, _carrying) for method in _POOL_METHODS),
    *((_ProcessPoolExecutor, method, _carrying) for method in ("submit", "map")),
    (_ThreadPoolExecutor, "submit", _carrying),
    *((pool, "__init__", _carrying_initializer) for pool in (_Pool, _ProcessPoolExecutor, _ThreadPoolExecutor)),
    (subprocess.Popen, "__init__", _passing_environ),
)


def _carrying_tasks(call: Callable[..., R]) -> Callable[..., R]:
    """`joblib.Parallel.__call__`: its tasks are made, and run, under the scope in which it is called."""

    @functools.wraps(call)
    def call_under_scope(self: Any, iterable: Iterable[Any]) -> R:
        return call(self, _made_under(capture(), iterable))

    return call_under_scope


def _made_under(context: TaskContext, tasks: Iterable[Any]) -> Iterator[Any]:
    # joblib takes tasks when it has workers for them, in threads of its own, where the scope is another.
    iterator = iter(tasks)
    while True:
        with use_scope(context.handle):
            try:
                function, args, kwargs = next(iterator)
            except StopIteration:
                return
            carried = propagate(function)
        yield carried, args, kwargs


def _carrying_callable(function: Callable[..., R]) -> Callable[..., R]:
    """What begins a greenlet: the first of its arguments that can be called is what that runs."""

    @functools.wraps(function)
    def carry(*args: Any, **kwargs: Any) -> R:
        index = next((at for at, argument in enumerate(args) if callable(argument)), None)
        if index is not None:
            args = (*args[:index], propagate(args[index]), *args[index + 1 :])
        return function(*args, **kwargs)

    return carry


_POOLS = tuple((method, _carrying) for method in _POOL_METHODS)
_EXECUTORS = (("submit", _carrying), ("map", _carrying))

_OTHERS: tuple[tuple[str, str | None, tuple[tuple[str, Callable[[Any], Any]], ...]], ...] = (
    ("multiprocess.process", "BaseProcess", (("start", _starting_under_scope),)),
    ("billiard.process", "BaseProcess", (("start", _starting_under_scope),)),
    ("multiprocess.pool", "Pool", _POOLS),
    ("billiard.pool", "Pool", _POOLS),
    ("loky.process_executor", "ProcessPoolExecutor", _EXECUTORS),
    ("joblib.externals.loky.process_executor", "ProcessPoolExecutor", _EXECUTORS),
    ("joblib.parallel", "Parallel", (("__call__", _carrying_tasks),)),
    ("gevent", None, (("spawn", _carrying_callable), ("spawn_later", _carrying_callable))),
    ("gevent.pool", "Group", (("spawn", _carrying_callable),)),
    ("eventlet", None, (("spawn", _carrying_callable), ("spawn_n", _carrying_callable))),
    ("eventlet.greenpool", "GreenPool", (("spawn", _carrying_callable), ("spawn_n", _carrying_callable))),
)
"""Of packages that this one does not import: module, class, and how each of its functions is wrapped."""


def _patches() -> Iterator[tuple[Any, str, Callable[[Any], Any]]]:
    yield from _PATCHES
    for module, kind, methods in _OTHERS:
        owner = sys.modules.get(module)
        owner = owner if kind is None else getattr(owner, kind, None)
        yield from ((owner, name, wrap) for name, wrap in methods if hasattr(owner, name))


_instrumenting = threading.Lock()
_originals: list[tuple[Any, str, Any]] = []


def instrument() -> None:
    """Puts scope propagation into the standard library's own classes, in this process. Idempotent.

    `multiprocessing.Process` and `Pool`, `concurrent.futures`' executors and `subprocess.Popen` then
    behave as the classes of this module. Forked children inherit it; others may call it themselves, if
    they start workers of their own.

    So do the processes and pools of `multiprocess` (pathos) and billiard, loky's executors, `joblib.Parallel`, whose
    generator of tasks runs under the caller's scope too, and the greenlets of gevent and eventlet, as far as they are
    imported: call it after you have imported them, again if need be.
    """
    with _instrumenting:
        patched = {(id(owner), name) for owner, name, _ in _originals}
        for owner, name, wrap in _patches():
            if (id(owner), name) not in patched:
                original = vars(owner).get(name, _INHERITED)
                _originals.append((owner, name, original))
                setattr(owner, name, wrap(getattr(owner, name)))


def uninstrument() -> None:
    """Takes `instrument()` back. Idempotent."""
    with _instrumenting:
        for owner, name, original in _originals:
            if original is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        _originals.clear()
