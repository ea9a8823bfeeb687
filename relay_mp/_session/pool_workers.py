"""A worker of a pool begins at a root of its own, not under the scope in which it happened to be forked.

    fork ──▶ the child's Process object is there ──▶ its target is a pool's worker loop?
                                                       yes  tasks come from other scopes: begin at a root
                                                       no   it goes on under the scope it was forked in

A task that carries its scope (`relay_mp.pools`, `propagate`, `instrument()`) sets it for itself. One that does not is a
root: a parent is right or absent. The worker says so once. Runs in every process that multiprocessing started.

A worker that is older than the session hears of it from a task that carries one. Where no task does, the owner says so
once, as the session begins.
"""

import os
from typing import Any

from relay_mp._emit.context import begin_at_root
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._session import inheritance

__all__ = ["is_pool_worker", "note_carrying", "warn_of_older", "warn_once"]


WORKER_LOOPS = frozenset(
    {
        "billiard.pool.Worker",
        "concurrent.futures.process._process_worker",
        "joblib.externals.loky.process_executor._process_worker",
        "loky.process_executor._process_worker",
        "multiprocess.pool.worker",
        "multiprocessing.pool.worker",
    }
)
"""What a pool's process runs: the target of its Process object."""


def is_pool_worker() -> bool:
    """Whether this process is a worker of a pool: multiprocessing's, an executor's, or one made like these."""
    processes = [module.current_process() for module in inheritance.loaded("process")]
    return any(_is_worker_loop(getattr(process, "_target", None)) for process in processes)


def _is_worker_loop(target: object) -> bool:
    # billiard's are objects that are called, of a class that Celery's is made of.
    kinds: Any = [target] if hasattr(target, "__qualname__") else type(target).__mro__
    return any(f"{kind.__module__}.{kind.__qualname__}" in WORKER_LOOPS for kind in kinds)


class _Watch:
    """Sees each child that multiprocessing forks, once its Process object is there."""

    def __init__(self) -> None:
        self._watched: set[str] = set()
        self._warned_epoch = -1
        self._warned_of_older = False
        self._carries = False

    def before_fork(self) -> None:
        for util in inheritance.loaded("util"):
            if util.__name__ not in self._watched:
                self._watched.add(util.__name__)
                util.register_after_fork(self, _Watch.in_child)

    def in_child(self) -> None:
        if is_pool_worker():
            begin_at_root()

    def warn_once(self) -> None:
        if self._warned_epoch == core.fork_epoch() or not core.active():
            return
        self._warned_epoch = core.fork_epoch()
        logger.warning(
            "process %d is a pool's worker, and a task in it emits without the scope of who submitted it: its events "
            "stand under a root. Carry the scope: use relay_mp.pools' classes, relay_mp.pools.propagate(function), or "
            "call relay_mp.pools.instrument() before the pool is made",
            os.getpid(),
        )

    def note_carrying(self) -> None:
        """This program carries scopes with its tasks, which take workers along to their session."""
        self._carries = True

    def warn_of_older(self) -> None:
        if self._warned_of_older or self._carries:
            return
        older = sorted(child.pid or 0 for module in inheritance.loaded("process") for child in module._children)
        if not older:
            return
        self._warned_of_older = True
        logger.warning(
            "%d child processes are older than the session that begins (%s): what they emit is not in it unless a task "
            "brings it along. Begin the session before the pool, or carry it: use relay_mp.pools' classes, "
            "relay_mp.pools.propagate(function), or call relay_mp.pools.instrument()",
            len(older),
            ", ".join(map(str, older[:_MOST_NAMED])) + (", ..." if len(older) > _MOST_NAMED else ""),
        )


_MOST_NAMED = 5
"""Processes that one line names."""

_watch = _Watch()
warn_once = _watch.warn_once
note_carrying = _watch.note_carrying
warn_of_older = _watch.warn_of_older
os.register_at_fork(before=_watch.before_fork)
