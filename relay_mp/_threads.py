"""Threads of the operating system, also where gevent or eventlet has replaced Python's.

    the dispatcher's and exporters' threads   Thread, Lock, Event, Condition, sleep: the system's own, always
    who waits for them                        nap, wait, apart: where greenlets run, the others run meanwhile

A "thread" of a monkey-patched program is a greenlet of its only thread. The dispatcher waits in native code: as a
greenlet it would stop the whole program. So the library's background threads use nothing that can be patched, whether
that happened before this module was imported or later. Without gevent and eventlet the names are the standard
library's. A lock of the system's is held for a few instructions, and never while its holder waits.
"""

import _thread
import os
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

__all__ = [
    "Condition", "Event", "Lock", "Naps", "RLock", "Thread", "apart", "is_patched", "nap", "popen", "sleep", "switches",
    "wait",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")

_SHORTEST_NAP, _LONGEST_NAP = 0.0005, 0.02


def is_patched() -> bool:
    """Whether the program's threads are greenlets."""
    return _is_patched_by_gevent() or _is_patched_by_eventlet()


def _is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _is_patched_by_eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("thread"))


def _original(module: str, name: str) -> Any:
    """What a module of the standard library has under a name where nobody has patched it."""
    if _is_patched_by_gevent():
        return sys.modules["gevent.monkey"].get_original(module, name)
    if _is_patched_by_eventlet():
        return getattr(sys.modules["eventlet.patcher"].original(module), name)
    return getattr(sys.modules[module], name)


def popen() -> Any:
    """`subprocess.Popen`, whose processes any thread of the system's can wait for."""
    if not _is_patched_by_gevent():
        return _original("subprocess", "Popen")
    # gevent has emptied parts of the module, and its `os.close` waits for the hub: a copy, of the system's calls.
    from importlib import util  # only here: not every program has it

    spec = util.find_spec("subprocess")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    system = ModuleType("os")
    vars(system).update({name: _original("os", name) for name in dir(os)})
    module.os = system  # type: ignore[attr-defined]
    return module.Popen


# Taken now: what is patched later stays as it is here.
sleep: Callable[[float], None] = _original("time", "sleep")
_current_id: Callable[[], int] = _original("_thread", "get_ident")
Lock: Callable[[], Any] = _original("_thread", "allocate_lock")
RLock: Callable[[], Any] = _original("_thread", "RLock")
_start_new_thread: Callable[..., int] = _original("_thread", "start_new_thread")

_background: set[int] = set()
"""The library's own threads, where greenlets run beside them."""


class _Condition:
    """`threading.Condition`, as far as the library needs it, of the system's locks."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[Any] = []

    def __enter__(self) -> bool:
        return bool(self._lock.acquire())

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        waiter = Lock()
        waiter.acquire()
        self._waiting.append(waiter)
        self._lock.release()
        try:
            return bool(waiter.acquire(True, -1 if timeout is None else max(timeout, 0.0)))
        finally:
            self._lock.acquire()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def notify(self, n: int = 1) -> None:
        for waiter in self._waiting[:n]:
            self._waiting.remove(waiter)
            waiter.release()

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Event:
    """`threading.Event` of the system's locks."""

    def __init__(self) -> None:
        self._changed = _Condition()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._is_set:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            return self._is_set


class _Thread:
    """`threading.Thread`, as far as the library needs it: a daemon of the system's, whatever `threading` makes."""

    def __init__(
        self, *, target: Callable[..., object], name: str, args: tuple[Any, ...] = (), daemon: bool = True
    ) -> None:
        assert daemon, "the library's threads never keep a program alive"
        self.name = name
        self._target, self._args = target, args
        self._ended = _Event()
        self._has_started = False

    def start(self) -> None:
        self._has_started = True
        _start_new_thread(self._run, ())

    def _run(self) -> None:
        _background.add(_current_id())
        try:
            self._target(*self._args)
        except SystemExit:
            pass
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            _background.discard(_current_id())
            self._ended.set()

    def is_alive(self) -> bool:
        return self._has_started and not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)


def Thread(*, target: Callable[..., object], name: str, args: tuple[Any, ...] = ()) -> threading.Thread:
    """A daemon thread of the system's, not yet started."""
    make: Any = _Thread if is_patched() else threading.Thread
    return cast(threading.Thread, make(target=target, name=name, args=args, daemon=True))


def Event() -> threading.Event:
    """An event that a thread of the system's may wait for."""
    return cast(threading.Event, _Event()) if is_patched() else threading.Event()


def Condition() -> threading.Condition:
    """A condition that a thread of the system's may wait for."""
    return cast(threading.Condition, _Condition()) if is_patched() else threading.Condition()


# ---- who waits ----


def switches() -> bool:
    """Whether other greenlets run while the calling thread sleeps by `time.sleep`."""
    if not is_patched() or _current_id() in _background:
        return False
    if _is_patched_by_gevent():
        gevent: Any = sys.modules["gevent"]
        return bool(gevent.getcurrent() is not gevent.get_hub())  # as a signal's handler may find itself
    eventlet: Any = sys.modules["eventlet"]
    return bool(eventlet.getcurrent() is not eventlet.hubs.get_hub().greenlet)


def nap(seconds: float) -> bool:
    """Lets other greenlets run for a moment. False, at once, where there are none: wait by the system's means then."""
    if not switches():
        return False
    time.sleep(min(seconds, _LONGEST_NAP))
    return True


class Naps:
    """`nap`, ever longer: for a loop that looks again."""

    def __init__(self) -> None:
        self._seconds = _SHORTEST_NAP

    def __call__(self) -> bool:
        seconds, self._seconds = self._seconds, min(self._seconds * 2, _LONGEST_NAP)
        return nap(seconds)


def wait(event: Any, seconds: float) -> bool:
    """Whether the event is set within so many seconds. Other greenlets run meanwhile."""
    deadline, take_nap = time.monotonic() + seconds, Naps()
    while not event.is_set():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if not take_nap():
            return bool(event.wait(left))
    return True


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function that blocks returns or raises: beside greenlets it runs in a thread of its own."""
    if not switches():
        return function(*args, **kwargs)
    outcome: list[tuple[R | None, BaseException | None]] = []
    ended = _Event()

    def run() -> None:
        try:
            outcome.append((function(*args, **kwargs), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            ended.set()

    Thread(target=run, name="relay_mp-apart").start()
    wait(ended, _thread.TIMEOUT_MAX)
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
