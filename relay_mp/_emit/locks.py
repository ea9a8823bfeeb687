"""Locks that a fork cannot leave held: the thread that held one in the parent is not in the child."""

import threading
from types import TracebackType

from relay_mp._native import core


class ForkSafeRLock:
    """A reentrant lock, used by `with`, that a forked child finds free.

    Its holder may wait for other threads. Where threads are greenlets it is a greenlet's, also if Python was patched
    after it was made.
    """

    def __init__(self) -> None:
        self._make()

    def _make(self) -> None:
        self._factory, self._epoch = threading.RLock, core.fork_epoch()
        self._lock = self._factory()

    def __enter__(self) -> None:
        if self._epoch != core.fork_epoch() or self._factory is not threading.RLock:
            self._make()
        self._lock.acquire()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._epoch == core.fork_epoch():  # else: forked inside the block, and held by nobody here
            self._lock.release()
