"""The acceptance table: 4 workers x 250 marks under one parent scope arrive, whatever the workers are and
however they end.

    {fork, spawn, forkserver} x {Process, Pool, ProcessPoolExecutor, subprocess}
        x {returns, os._exit(0), SIGKILL after its last emit returned}

Where workers die, the subscriber is held back until all of them are dead: nothing of theirs has been
delivered then, so what arrives is what the ring has kept.
"""

import concurrent.futures
import ctypes
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import defaultdict
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import Any

import pytest
import workers
from workers import EXIT, EXIT_CODES, KILL, MARKS, RETURNS, TIMEOUT_SECONDS, WORKERS, Barrier

import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

METHODS = ["fork", "spawn", "forkserver"]
ENDS = [RETURNS, EXIT, KILL]

pytestmark = pytest.mark.timeout(120)


# ------------------------------------------------------------------------------------ ways to run workers


def in_processes(api: Any, method: str, how: str) -> None:
    context = api.get_context(method)
    processes = [context.Process(target=workers.work, args=(worker, how)) for worker in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    assert [process.exitcode for process in processes] == [EXIT_CODES[how]] * WORKERS
    for process in processes:
        process.close()


def in_pool(api: Any, method: str, how: str) -> None:
    # A task of multiprocessing.Pool whose worker dies never returns: the tasks tell the barrier instead.
    with Barrier() as barrier, api.get_context(method).Pool(WORKERS) as pool:
        results = [pool.apply_async(workers.work_and_wait, (w, how, barrier.address)) for w in range(WORKERS)]
        assert len(barrier.await_emitted()) == WORKERS
        barrier.release()
        barrier.await_ended()
        if how == RETURNS:
            assert [result.get(TIMEOUT_SECONDS) for result in results] == list(range(WORKERS))
    pool.join()


def in_executor(api: Any, method: str, how: str) -> None:
    executor = concurrent.futures.ProcessPoolExecutor if api is multiprocessing else api.ProcessPoolExecutor
    context = multiprocessing.get_context(method)
    with Barrier() as barrier, executor(WORKERS, mp_context=context) as pool:
        futures = [pool.submit(workers.work_and_wait, w, how, barrier.address) for w in range(WORKERS)]
        assert len(barrier.await_emitted()) == WORKERS
        barrier.release()
        barrier.await_ended()
        for worker, future in enumerate(futures):
            if how == RETURNS:
                assert future.result(TIMEOUT_SECONDS) == worker
            else:
                assert isinstance(future.exception(TIMEOUT_SECONDS), BrokenProcessPool)


def in_subprocesses(api: Any, _method: str | None, how: str) -> None:
    environment = None if api is multiprocessing else pools.environ()
    processes = [
        subprocess.Popen(workers.subprocess_command(worker, how), env=environment) for worker in range(WORKERS)
    ]
    assert [process.wait(TIMEOUT_SECONDS) for process in processes] == [EXIT_CODES[how]] * WORKERS


def in_subprocesses_of_workers(api: Any, method: str, how: str) -> None:
    """Two levels deep: each worker of the start method runs a plain subprocess, which emits."""
    context = api.get_context(method)
    processes = [context.Process(target=workers.run_subprocess, args=(w, how)) for w in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    assert [process.exitcode for process in processes] == [0] * WORKERS
    for process in processes:
        process.close()


WAYS = {
    "Process": in_processes,
    "Pool": in_pool,
    "ProcessPoolExecutor": in_executor,
    "subprocess": in_subprocesses_of_workers,
}


# ------------------------------------------------------------------------------------------- what arrived


class Live:
    """The parent's live subscriber. Sees nothing more until `release`, if it is held."""

    def __init__(self, *, held: bool = False) -> None:
        self.seen: list[dict[str, Any]] = []
        self._released = threading.Event()
        if not held:
            self._released.set()

    def __call__(self, event: relay_mp.Event) -> None:
        assert self._released.wait(TIMEOUT_SECONDS)
        self.seen.append(workers.seen_of(event))

    def release(self) -> None:
        self._released.set()


def check(
    seen: list[dict[str, Any]],
    submitter: str | None,
    flushed: relay_mp.FlushResult,
    stats: relay_mp.Stats,
    *,
    processes: int = WORKERS,
    marks: int = MARKS,
) -> None:
    """The table's columns. `submitter` None: whose children the marks are is another test's question."""
    arrived = [event for event in seen if event["name"] == "m"]
    assert len(arrived) == WORKERS * marks
    if submitter is not None:
        assert sum(event["parent"] == submitter for event in arrived) == WORKERS * marks
    assert flushed.lost == 0
    assert flushed.causes == {}
    assert stats.lost == stats.pending == stats.subscriber_errors == 0
    by_pid = {process.pid: process for process in stats.processes}
    pids = {event["pid"] for event in arrived}
    assert len(pids) == processes
    assert sum(by_pid[pid].emitted for pid in pids if pid != os.getpid()) == WORKERS * marks
    assert sum(by_pid[pid].delivered for pid in pids if pid != os.getpid()) == WORKERS * marks
    sequence = [event["seq"] for event in seen]
    assert all(earlier < later for earlier, later in itertools.pairwise(sequence))
    order = defaultdict(list)
    for event in arrived:
        order[event["data"]["worker"]].append(event["data"]["n"])
    assert order == {worker: list(range(marks)) for worker in range(WORKERS)}
    assert not any(event["redelivered"] for event in seen)


def run_live(run: Any, api: Any, method: str | None, how: str, *, parented: bool = True) -> None:
    live = Live(held=how != RETURNS)
    with relay_mp.session() as session:
        subscribers.register("live", live)
        try:
            with scope.scope("submitter", ScopeType.Agent) as submitter:
                run(api, method, how)
        finally:
            live.release()
        flushed = subscribers.flush()
        check(live.seen, submitter.uuid if parented else None, flushed, session.stats())


@pytest.fixture
def loaded_forkserver():
    """A forkserver that has imported the library: its children start ten times as fast."""
    multiprocessing.set_forkserver_preload(["relay_mp"])
    yield
    multiprocessing.set_forkserver_preload(["__main__"])


@pytest.fixture
def instrumented():
    pools.instrument()
    yield multiprocessing
    pools.uninstrument()


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_all_arrive_under_the_submitter(method, way, how):
    run_live(WAYS[way], pools, method, how)


@pytest.mark.parametrize("how", ENDS)
def test_all_arrive_from_plain_subprocesses(how):
    run_live(in_subprocesses, pools, None, how)


@pytest.mark.parametrize(
    ("method", "how"), [*((method, KILL) for method in METHODS), ("fork", RETURNS), ("fork", EXIT)]
)
@pytest.mark.parametrize("way", WAYS)
def test_all_arrive_at_a_dispatcher_process(method, way, how, tmp_path, loaded_forkserver):
    path = tmp_path / "seen"
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("live", "workers:FileSubscriber", arguments={"path": str(path)})
        with scope.scope("submitter", ScopeType.Agent) as submitter:
            WAYS[way](pools, method, how)
        flushed = subscribers.flush()
        check(workers.read_seen(path), submitter.uuid, flushed, session.stats())


@pytest.mark.parametrize("way", ["Process", "Pool", "ProcessPoolExecutor"])
@pytest.mark.parametrize("method", METHODS)
def test_all_arrive_from_the_instrumented_standard_library(method, way, instrumented, loaded_forkserver):
    run_live(WAYS[way], instrumented, method, KILL)


def test_all_arrive_from_instrumented_subprocesses(instrumented):
    run_live(in_subprocesses, instrumented, None, KILL)


@pytest.mark.parametrize("way", ["Process", "Pool", "ProcessPoolExecutor"])
@pytest.mark.parametrize("method", METHODS)
def test_all_arrive_from_the_plain_standard_library(method, way, loaded_forkserver):
    """Without `pools` the scope stays behind, but not one event does."""
    run_live(WAYS[way], multiprocessing, method, KILL, parented=False)


# ------------------------------------------------------------------------------------- beyond the table


@pytest.mark.parametrize("preload", [[], ["relay_mp"]], ids=["bare", "with_relay_mp_loaded"])
@pytest.mark.parametrize("way", ["Process", "Pool", "ProcessPoolExecutor"])
def test_a_forkserver_older_than_the_session_serves_it(way, preload):
    multiprocessing.set_forkserver_preload(preload)
    try:
        forkserver.ensure_running()
        run_live(WAYS[way], pools, "forkserver", KILL)
        # And the next session, which the same forkserver knows of no more than of the first.
        run_live(WAYS[way], pools, "forkserver", RETURNS)
    finally:
        multiprocessing.set_forkserver_preload(["__main__"])


@pytest.mark.parametrize("method", METHODS)
def test_all_arrive_from_two_levels_deep(method):
    def nested(api: Any, method: str, how: str) -> None:
        context = api.get_context(method)
        halves = [context.Process(target=workers.run_processes, args=(method, half, how)) for half in ([0, 1], [2, 3])]
        for process in halves:
            process.start()
        for process in halves:
            process.join(TIMEOUT_SECONDS)
        assert [process.exitcode for process in halves] == [0, 0]
        for process in halves:
            process.close()

    run_live(nested, pools, method, KILL)


def _fork_and_emit(fork: Any, how: str) -> None:
    """Forks directly; each child emits and ends without going back into pytest."""
    pids = []
    for worker in range(WORKERS):
        pid = fork()
        if pid == 0:
            try:
                workers.work(worker, how)
            finally:
                os._exit(0)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [EXIT_CODES[how]] * WORKERS


@pytest.mark.parametrize("how", [EXIT, KILL])
def test_all_arrive_from_os_fork(how):
    run_live(lambda *_: _fork_and_emit(os.fork, how), None, None, how)


@pytest.mark.parametrize("how", [EXIT, KILL])
def test_all_arrive_from_a_fork_that_python_does_not_know_of(how):
    # Python is not told of this fork, so its GIL in the child still knows the parent's threads. PyDLL keeps
    # the GIL over the call, and no thread may have asked for it: a child that was asked to hand it over would
    # wait for ever for a thread that it does not have (CPython's forced switching in drop_gil). uWSGI, which
    # forks so, calls PyOS_AfterFork_Child for that reason.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # seconds before a waiting thread asks
    try:
        run_live(lambda *_: _fork_and_emit(ctypes.PyDLL(None).fork, how), None, None, how)
    finally:
        sys.setswitchinterval(interval)


def test_a_fork_while_other_threads_emit_is_as_good():
    """Whatever the other threads were in the middle of, the child emits."""
    stop = threading.Event()

    def emit_on() -> None:
        while not stop.is_set():
            scope.event("background", data={"x": "y" * 100})

    def fork_beside(*_: Any) -> None:
        threads = [threading.Thread(target=emit_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            _fork_and_emit(os.fork, KILL)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    run_live(fork_beside, None, None, RETURNS)
