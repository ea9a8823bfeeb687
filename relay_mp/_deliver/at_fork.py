"""What a forked child closes at once of what its parent has open: files, with the locks on them, and ports.

    LockedFile, PrometheusSink ──▶ abandon_in_child(self) ──▶ os.fork() ──▶ in the child: self.abandon()

Otherwise a child that outlives its parent keeps a lock that the parent's successor needs, or the parent's port. The
child closes its own descriptors only: the parent's stay open, and nothing is written, unlocked or shut down.

    with unforked: ...      no other thread forks meanwhile

A child that is forked while a file is being opened or closed would have a descriptor that nobody knows of, or close one
that is another file's by now; one that is forked while a process is started would keep its pipes open.
"""

import os
import weakref
from types import TracebackType
from typing import Protocol

from relay_mp._threads import RLock

__all__ = ["abandon_in_child", "unforked"]

FORK_WAIT_SECONDS = 1.0
"""A fork waits no longer for who holds `unforked`: a slow file system must not stop a program."""


class Held(Protocol):
    """What holds a descriptor."""

    def abandon(self) -> None:
        """Closes the descriptor in this process, and nothing else. Idempotent."""


_held: "weakref.WeakSet[Held]" = weakref.WeakSet()


def abandon_in_child(held: Held) -> None:
    """Has `held.abandon()` called in each child that is forked while `held` lives."""
    _held.add(held)


def _abandon_all() -> None:
    for held in list(_held):
        held.abandon()


class _Unforked:
    """A reentrant lock that forks by Python wait for. In a child it is free."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._held_by_forks: list[bool] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """In the thread that forks."""
        is_held = self._lock.acquire(timeout=FORK_WAIT_SECONDS)
        self._held_by_forks.append(is_held)

    def after_fork(self) -> None:
        """In the parent."""
        if self._held_by_forks.pop():
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Who held it is not here, unless it is who forked."""
        if self._held_by_forks.pop():
            self._lock.release()
        else:
            self._lock = RLock()


unforked = _Unforked()

os.register_at_fork(
    before=unforked.before_fork, after_in_parent=unforked.after_fork, after_in_child=unforked.after_fork_in_child
)
os.register_at_fork(after_in_child=_abandon_all)
