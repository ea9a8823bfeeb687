"""One trace through every way of handing work on: a leaf's parent is the scope that submitted it.

    trace > via_process, via_pool, via_executor, via_asyncio, via_subprocess > leaf > mark

Leaves run in other processes, threads and tasks and know nothing of the session: they emit. The
tree is made of what one live subscriber of the parent saw, `event.pid` included.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import trace_tree

import relay_mp
from relay_mp import ScopeType, pools, scope

Way: TypeAlias = Callable[[str], None]


def leaf(name: str) -> None:
    """Do the work, the same everywhere: a scope of its own and a mark inside it."""
    with scope.scope(name, ScopeType.Function):
        scope.event("worked")


async def leaf_task(name: str) -> None:
    """Two of these run interleaved: a task's scopes are never parents of another task's."""
    with scope.scope(name, ScopeType.Function):
        await asyncio.sleep(0)
        scope.event("worked")


def via_process(method: str) -> None:
    process = pools.get_context(method).Process(target=leaf, args=("leaf-process",))
    process.start()
    process.join()


def via_pool(method: str) -> None:
    with pools.get_context(method).Pool(2) as pool:
        pool.map(leaf, ["leaf-pool-1", "leaf-pool-2"], chunksize=1)


def via_executor(method: str) -> None:
    with pools.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        list(pool.map(leaf, ["leaf-executor-1", "leaf-executor-2"]))


def via_asyncio(method: str) -> None:
    async def run() -> None:
        with pools.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
            await asyncio.gather(
                leaf_task("leaf-task-1"),
                leaf_task("leaf-task-2"),
                asyncio.to_thread(leaf, "leaf-thread"),
                asyncio.get_running_loop().run_in_executor(pool, leaf, "leaf-run-in-executor"),
            )

    asyncio.run(run())


def via_subprocess(method: str) -> None:
    del method  # a subprocess has none; its environment names the session and the scope
    command = [sys.executable, __file__, "--leaf", "leaf-subprocess"]
    subprocess.run(command, env=pools.environ(), check=True)


WAYS: dict[Way, list[str]] = {
    via_process: ["leaf-process"],
    via_pool: ["leaf-pool-1", "leaf-pool-2"],
    via_executor: ["leaf-executor-1", "leaf-executor-2"],
    via_asyncio: ["leaf-task-1", "leaf-task-2", "leaf-thread", "leaf-run-in-executor"],
    via_subprocess: ["leaf-subprocess"],
}


def main(method: str) -> None:
    events: list[dict[str, Any]] = []
    submitters: dict[Way, str] = {}

    def collect(event: relay_mp.ScopeEvent | relay_mp.MarkEvent) -> None:
        events.append({**event.to_dict(), "pid": event.pid})

    with relay_mp.session():
        relay_mp.subscribers.register("tree", collect)
        with scope.scope("trace", ScopeType.Agent):
            for way in WAYS:
                with scope.scope(way.__name__, ScopeType.Function) as submitter:
                    submitters[way] = submitter.uuid
                    way(method)
        lost = relay_mp.subscribers.flush().lost

    (trace,) = trace_tree.build(events)
    print(*trace_tree.render(trace), sep="\n")

    leaves = {node.name: node for node in trace.walk() if node.name.startswith("leaf-")}
    assert leaves.keys() == {name for names in WAYS.values() for name in names}, sorted(leaves)
    for way, names in WAYS.items():
        for name in names:
            assert leaves[name].parent_uuid == submitters[way], (name, way.__name__)
    assert lost == 0, lost
    pids = {node.pid for node in leaves.values()}
    print(f"{len(leaves)} leaves in {len(pids)} processes, each under its submitter; 0 events lost")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--start-method", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--leaf", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leaf:
        leaf(options.leaf)
    else:
        main(options.start_method or multiprocessing.get_context().get_start_method())
