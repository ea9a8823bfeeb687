"""What a forked child closes at once of what its parent has open: files, with the locks on them, and ports.

    JsonlFile, TraceFile, PrometheusSink ──▶ abandon_in_child(self) ──▶ os.fork() ──▶ in the child: self.abandon()

Otherwise a child that outlives its parent keeps a lock that the parent's successor needs, or the parent's port. The
child closes its own descriptors only: the parent's stay open, and nothing is written, unlocked or shut down.
"""

import os
import weakref
from typing import Protocol

__all__ = ["abandon_in_child"]


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


os.register_at_fork(after_in_child=_abandon_all)
