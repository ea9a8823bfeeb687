"""A worker of a pool begins at a root of its own, not under the scope in which it happened to be forked.

    fork ──▶ the child's Process object is there ──▶ its target is a pool's worker loop?
                                                       yes  tasks come from other scopes: begin at a root
                                                       no   it goes on under the scope it was forked in

A task that carries its scope (`relay_mp.pools`, `propagate`, `instrument()`) sets it for itself. One that does not is a
root: a parent is right or absent. The worker says so once. Runs in every process that multiprocessing started.
"""

import os
from typing import Any

from relay_mp._emit.context import begin_at_root
from relay_mp._log import logger
from relay_mp._native import core
from relay_mp._session import inheritance

__all__ = ["is_pool_worker", "warn_once"]


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


_watch = _Watch()
warn_once = _watch.warn_once
os.register_at_fork(before=_watch.before_fork)
