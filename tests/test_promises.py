"""What the library promises (DESIGN 1), each by tests named after it, over real processes.

Where a test needs the dispatcher to be behind, it holds a subscriber; where it needs a process to be at
some point, it waits for a byte or for an event. Nothing waits for time to pass.
"""

import faulthandler
import itertools
import json
import multiprocessing
import os
import select
import signal
import threading
from collections import Counter, defaultdict
from typing import Any

import psutil
import pytest
import workers
from workers import CRASH, EXIT, EXIT_CODES, KILL, MARKS, TIMEOUT_SECONDS, WORKERS

import relay_mp
from relay_mp import ScopeType, pools, scope, subscribers

METHODS = ["fork", "spawn", "forkserver"]
LOSS = "relay_mp.loss"

pytestmark = pytest.mark.timeout(120)


class Live:
    """A live subscriber that can be held, and waited for."""

    def __init__(self, *, held: bool = False) -> None:
        self.events: list[relay_mp.Event] = []
        self._counts: Counter[tuple[int, str]] = Counter()
        self._released = threading.Event()
        self._more = threading.Condition()
        if not held:
            self._released.set()

    def __call__(self, event: relay_mp.Event) -> None:
        assert self._released.wait(TIMEOUT_SECONDS)
        with self._more:
            self.events.append(event)
            self._counts[event.pid, event.name] += 1
            self._more.notify_all()

    def release(self) -> None:
        self._released.set()

    def wait_for(self, pid: int, name: str, more: int) -> None:
        """Until it has seen so many more events of that process and name."""
        with self._more:
            enough = self._counts[pid, name] + more
            assert self._more.wait_for(lambda: self._counts[pid, name] >= enough, TIMEOUT_SECONDS)

    def named(self, name: str) -> list[relay_mp.Event]:
        return [event for event in self.events if event.name == name]

    def numbers(self) -> dict[int, list[int]]:
        """What each worker's marks say, in the order in which they were seen."""
        found = defaultdict(list)
        for event in self.named("m"):
            found[event.data["worker"]].append(event.data["n"])
        return found


def is_increasing(events: list[relay_mp.Event]) -> bool:
    return all(a.seq < b.seq for a, b in itertools.pairwise(events))


def await_end(pid: int) -> None:
    """Of a process that is no child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(TIMEOUT_SECONDS * 1000), f"process {pid} did not end"
    finally:
        os.close(descriptor)


def fork(target: Any, *arguments: Any) -> int:
    """A child that runs the target and ends without going back into pytest."""
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()
            target(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---------------------------------------------------------------------------------------------- one stream


@pytest.mark.parametrize("method", METHODS)
def test_one_stream(session, method):
    """Every process's events reach the one live callback, in the parent; no worker has code for it."""
    live, places = Live(), set()
    subscribers.register("live", live)
    subscribers.register("where", lambda _: places.add((os.getpid(), threading.get_ident())))
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=workers.emit_marks, args=(worker,)) for worker in range(WORKERS - 1)]
    for process in processes:
        process.start()
    workers.emit_marks(WORKERS - 1)
    for process in processes:
        process.join(TIMEOUT_SECONDS)
    assert subscribers.flush().lost == 0
    assert live.numbers() == {worker: list(range(MARKS)) for worker in range(WORKERS)}
    assert {event.pid for event in live.events} == {os.getpid(), *(process.pid for process in processes)}
    assert len(places) == 1
    assert places.pop()[0] == os.getpid()
    for process in processes:
        process.close()


def test_one_stream_reaches_every_subscriber_in_the_same_order(session):
    first, second = Live(), Live()
    subscribers.register("first", first)
    subscribers.register("second", second)
    assert [reap(pid) for pid in [fork(workers.emit_marks, w) for w in range(WORKERS)]] == [0] * WORKERS
    subscribers.flush()
    assert len(first.events) == WORKERS * MARKS
    assert [event.seq for event in first.events] == [event.seq for event in second.events]


def test_one_stream_is_flushed_from_any_process(session):
    live = Live()
    subscribers.register("live", live)

    def emit_and_flush() -> None:
        workers.emit_marks(0)
        assert subscribers.flush().lost == 0

    assert reap(fork(emit_and_flush)) == 0
    assert len(live.events) == MARKS  # without a flush here


# ----------------------------------------------------------------------------------------- emitted is safe


@pytest.mark.parametrize("how", [EXIT, KILL, CRASH])
@pytest.mark.parametrize("method", METHODS)
def test_emitted_is_safe(session, method, how):
    """Nothing of the worker's has been delivered when it dies; all of it arrives."""
    live = Live(held=True)
    subscribers.register("live", live)
    process = multiprocessing.get_context(method).Process(target=workers.work, args=(0, how))
    process.start()
    process.join(TIMEOUT_SECONDS)
    assert process.exitcode == EXIT_CODES[how]
    assert live.events == []
    live.release()
    assert subscribers.flush().lost == 0
    assert live.numbers() == {0: list(range(MARKS))}
    process.close()


OWNER = """
import os, signal, sys, threading
import relay_mp, workers
from relay_mp import subscribers
session = relay_mp.session({arguments})
{register}
print(session._segment.lease()[1], flush=True)
workers.emit_marks(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_emitted_is_safe_when_the_owner_is_killed_and_a_process_dispatches(run_script, tmp_path):
    arguments = {"path": str(tmp_path / "seen")}
    register = f"subscribers.register('file', 'workers:FileSubscriber', arguments={arguments!r})"
    code = OWNER.format(arguments="dispatcher='process'", register=register)
    done = run_script(code, returncode=-signal.SIGKILL)
    await_end(int(done.stdout))
    seen = workers.read_seen(tmp_path / "seen")
    assert [event["data"]["n"] for event in seen if event["name"] == "m"] == list(range(MARKS))


def test_emitted_is_safe_when_the_owner_is_killed_and_its_thread_dispatches(run_script, tmp_path):
    """The next session of the user finds what nobody delivered, and writes it out."""
    directory, recovered = tmp_path / "segments", tmp_path / "recovered"
    directory.mkdir()
    recovered.mkdir()
    register = "subscribers.register('held', lambda _: threading.Event().wait())"
    code = OWNER.format(arguments=f"directory={str(directory)!r}", register=register)
    run_script(code, returncode=-signal.SIGKILL)
    assert len(list(directory.iterdir())) == 1
    with relay_mp.session(directory=str(directory), recovery_directory=str(recovered)):
        assert len(list(directory.iterdir())) == 1  # its own
    (file,) = recovered.iterdir()
    marks = [json.loads(line) for line in file.read_text().splitlines()]
    assert [mark["data"]["n"] for mark in marks if mark["name"] == "m"] == list(range(MARKS))


def test_emitted_is_safe_when_the_dispatcher_process_is_killed(tmp_path):
    """Its successor goes on where it was; at most one event is delivered again, and says so."""
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("file", "workers:FileSubscriber", arguments={"path": str(tmp_path / "seen")})
        for kill in range(3):
            workers.emit_marks(kill)
            os.kill(session._segment.lease()[1], signal.SIGKILL)
            workers.emit_marks(10 + kill)
            assert subscribers.flush().lost == 0
    found = defaultdict(list)
    for event in workers.read_seen(tmp_path / "seen"):
        worker, n = event["data"]["worker"], event["data"]["n"]
        if event["redelivered"] and found[worker][-1:] == [n]:
            continue
        found[worker].append(n)
    assert found == {10 * part + kill: list(range(MARKS)) for part in (0, 1) for kill in range(3)}


# ----------------------------------------------------------------------------------------------- one order


def test_one_order(session):
    """`seq` rises strictly over the stream; each thread's events are in the order in which it emitted them."""
    live = Live()
    subscribers.register("live", live)

    def emit_in_threads(process: int) -> None:
        threads = [threading.Thread(target=workers.emit_marks, args=(10 * process + t,)) for t in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [reap(pid) for pid in [fork(emit_in_threads, p) for p in range(WORKERS)]] == [0] * WORKERS
    assert subscribers.flush().lost == 0
    assert is_increasing(live.events)
    assert live.numbers() == {10 * p + t: list(range(MARKS)) for p in range(WORKERS) for t in range(3)}


def test_one_order_agrees_with_cause_and_effect(session):
    """Two processes emit in turns, each after it has heard of the other's event: the stream has the turns."""
    live = Live()
    subscribers.register("live", live)
    here, there = multiprocessing.Pipe()
    turns = 200

    def answer() -> None:
        for n in range(1, turns, 2):
            there.recv_bytes()
            scope.event("m", data={"worker": 0, "n": n})
            there.send_bytes(b".")

    pid = fork(answer)
    for n in range(0, turns, 2):
        scope.event("m", data={"worker": 0, "n": n})
        here.send_bytes(b".")
        here.recv_bytes()
    assert reap(pid) == 0
    here.close()
    there.close()
    subscribers.flush()
    assert live.numbers() == {0: list(range(turns))}
    assert is_increasing(live.events)


# ------------------------------------------------------------------------------------ scope stacks follow


def emit_here(name: str) -> None:
    scope.event(name)


def open_and_emit(name: str) -> None:
    with scope.scope("inner", ScopeType.Tool):
        scope.event(name)


def leave_open(name: str) -> None:
    scope.push("left open", ScopeType.Tool)
    scope.event(name)


def raise_inside(name: str) -> None:
    with scope.scope("raises", ScopeType.Tool):
        scope.event(name)
        raise LookupError(name)


def raise_and_leave_open(name: str) -> None:
    leave_open(name)
    raise LookupError(name)


TASKS = [emit_here, leave_open, emit_here, raise_inside, emit_here, raise_and_leave_open, emit_here, open_and_emit]


def submit_all(submit: Any, live: Live) -> None:
    """One reused worker, each task submitted under a scope of its own."""
    expected = {}
    for number, task in enumerate(TASKS):
        with scope.scope(f"submitter {number}", ScopeType.Agent) as submitter:
            result = submit(task, f"task {number}")
            if task.__name__.startswith("raise"):
                with pytest.raises(LookupError):
                    result(TIMEOUT_SECONDS)
            else:
                result(TIMEOUT_SECONDS)
        expected[f"task {number}"] = submitter.uuid
    subscribers.flush()
    starts = {event.uuid: event for event in live.events if event.kind == "scope" and event.scope_category == "start"}
    for number, task in enumerate(TASKS):
        (mark,) = live.named(f"task {number}")
        parent = mark.parent_uuid
        if task is not emit_here:  # it has opened a scope, and that is the submitter's
            parent = starts[parent].parent_uuid
        assert parent == expected[mark.name], (number, task)


@pytest.mark.parametrize("method", METHODS)
def test_scope_stacks_follow_the_work_into_a_pool_and_are_reset(session, method):
    live = Live()
    subscribers.register("live", live)
    with pools.get_context(method).Pool(1) as pool:
        submit_all(lambda task, name: pool.apply_async(task, (name,)).get, live)
        (pid,) = {event.pid for event in live.events if event.name.startswith("task")}
        assert pid != os.getpid()
        pool.close()
        pool.join()


@pytest.mark.parametrize("method", METHODS)
def test_scope_stacks_follow_the_work_into_an_executor_and_are_reset(session, method):
    live = Live()
    subscribers.register("live", live)
    with pools.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        submit_all(lambda task, name: pool.submit(task, name).result, live)
        (pid,) = {event.pid for event in live.events if event.name.startswith("task")}
        assert pid != os.getpid()


def test_scope_stacks_follow_the_work_into_a_thread_and_are_reset(session):
    live = Live()
    subscribers.register("live", live)
    with pools.ThreadPoolExecutor(1) as pool:
        submit_all(lambda task, name: pool.submit(task, name).result, live)


def test_scope_stacks_follow_the_work_for_each_item_of_a_chunk(session):
    """An item that leaves a scope open is not the parent of the next item's events."""
    live = Live()
    subscribers.register("live", live)
    names = [f"item {n}" for n in range(6)]
    with scope.scope("submitter", ScopeType.Agent) as submitter:
        with pools.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
            list(executor.map(leave_open, names, chunksize=3))
        with pools.get_context("fork").Pool(1) as pool:
            pool.map(leave_open, names, chunksize=3)
            pool.close()
            pool.join()
    subscribers.flush()
    opened = [e for e in live.events if e.name == "left open" and e.scope_category == "start"]
    assert len(opened) == 2 * len(names)
    assert {event.parent_uuid for event in opened} == {submitter.uuid}


@pytest.mark.parametrize("method", METHODS)
def test_scope_stacks_follow_the_work_into_a_process(session, method):
    live = Live()
    subscribers.register("live", live)
    with scope.scope("submitter", ScopeType.Agent) as submitter:
        process = pools.get_context(method).Process(target=open_and_emit, args=("mark",))
        process.start()
    process.join(TIMEOUT_SECONDS)
    process.close()
    subscribers.flush()
    start, end = live.named("inner")
    (mark,) = live.named("mark")
    assert start.parent_uuid == end.parent_uuid == submitter.uuid
    assert mark.parent_uuid == start.uuid


def test_scope_stacks_follow_the_work_so_that_scope_local_subscribers_see_it(session):
    """A whole subtree, in whichever process it runs; and nothing of its neighbours in the same worker."""
    live, local = Live(), Live()
    subscribers.register("live", live)
    with pools.get_context("forkserver").Pool(1) as pool:
        with scope.scope("outer", ScopeType.Agent) as outer:
            relay_mp.scope_local.register_subscriber(outer, "local", local)
            with scope.scope("inner", ScopeType.Agent):
                pool.apply(open_and_emit, ("inside",))
            pool.apply(emit_here, ("inside too",))
        pool.apply(emit_here, ("outside",))
        pool.close()
        pool.join()
    subscribers.flush()
    assert [e.name for e in local.events if e.kind == "mark"] == ["inside", "inside too"]
    assert len(live.named("outside")) == 1


# ----------------------------------------------------------------------------------- loss is never silent

SMALL_RING = {"ring_bytes": 64 * 1024, "max_event_bytes": 8 * 1024}


def check_losses_are_in_their_place(events: list[relay_mp.Event], emitted: dict[int, int]) -> dict[int, int]:
    """Each producer's stream, its loss marks counted in, has no gap. Returns the losses by pid.

    `emitted`: marks by pid, numbered from 0, one thread a process.
    """
    following: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for event in events:
        if event.name == LOSS:
            assert event.data["pid"] == event.pid
            assert event.data["lost"] == sum(event.data["causes"].values()) > 0
            following[event.pid] += event.data["lost"]
            lost[event.pid] += event.data["lost"]
        elif event.name == "m":
            assert event.data["n"] == following[event.pid]
            following[event.pid] += 1
    assert following == emitted
    return lost


def emit_past_a_full_ring(count: int, overflowed: int, go_on: int) -> None:
    workers.emit_marks(0, count)
    os.write(overflowed, b".")
    os.read(go_on, 1)
    scope.event("m", data={"worker": 0, "n": count})


@pytest.mark.parametrize(
    "session",
    [
        {"on_full": "drop", **SMALL_RING},
        {"on_full": "block", "block_timeout_seconds": 0.002, **SMALL_RING},
    ],
    indirect=True,
    ids=["drop", "block"],
)
def test_loss_is_never_silent(session, capfd):
    """Counted exactly by process and cause; a mark in the stream where it happened; flush and stderr say so."""
    live = Live(held=True)
    subscribers.register("live", live)
    overflowed, tell = os.pipe()
    wait, go_on = os.pipe()
    count = 900  # the ring takes some 400
    pids = [fork(emit_past_a_full_ring, count, tell, wait) for _ in range(3)]
    for _ in pids:
        os.read(overflowed, 1)
    live.release()
    subscribers.flush()
    os.write(go_on, b"." * len(pids))
    assert [reap(pid) for pid in pids] == [0] * len(pids)
    flushed = subscribers.flush()
    stats = session.stats()

    lost = check_losses_are_in_their_place(live.events, dict.fromkeys(pids, count + 1))
    assert lost.keys() == set(pids)
    assert is_increasing(live.events)
    for process in stats.processes:
        if process.pid in pids:
            assert process.causes == {"full": lost[process.pid]}
            assert process.emitted == count + 1
            assert process.delivered == count + 1 - lost[process.pid]
            assert process.pending == 0
    total = sum(lost.values())
    assert (flushed.lost, flushed.causes) == (total, {"full": total})
    assert (stats.lost, stats.causes) == (total, {"full": total})
    assert stats.emitted == 3 * (count + 1)

    session.close()
    assert f"{total} lost (full {total})" in capfd.readouterr().err
    for descriptor in (overflowed, tell, wait, go_on):
        os.close(descriptor)


@pytest.mark.parametrize("session", [{"on_full": "drop", **SMALL_RING}], indirect=True)
def test_loss_is_never_silent_if_nothing_follows_it(session, capfd):
    """The producer's last events are those that are lost, and it dies: the mark comes all the same."""
    live = Live(held=True)
    subscribers.register("live", live)
    pid = fork(workers.work, 0, KILL)
    assert reap(pid) == -signal.SIGKILL
    overflowing = fork(workers.emit_marks, 1, 900)
    assert reap(overflowing) == 0
    live.release()
    session.close()
    lost = check_losses_are_in_their_place(live.events, {pid: MARKS, overflowing: 900})
    assert lost[overflowing] > 0
    assert f"{sum(lost.values())} lost (full {sum(lost.values())})" in capfd.readouterr().err


def test_loss_is_never_silent_if_there_is_none(session, capfd):
    live = Live()
    subscribers.register("live", live)
    workers.emit_marks(0)
    assert subscribers.flush() == relay_mp.FlushResult(0, {})
    session.close()
    assert live.named(LOSS) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("session", [{"ring_bytes": 64 * 1024, "max_event_bytes": 1024}], indirect=True)
def test_loss_is_never_silent_of_a_payload_that_is_too_big(session):
    """The event keeps its identity, parent, time and name; what it loses is said in its place, and counted."""
    live = Live()
    subscribers.register("live", live)
    with scope.scope("s", ScopeType.Agent) as handle:
        scope.event("big", data={"text": "x" * 100_000})
    assert subscribers.flush().lost == 0
    (big,) = live.named("big")
    assert big.parent_uuid == handle.uuid
    assert "x" * 100 not in json.dumps(big.data)
    assert any(isinstance(value, int) and value >= 100_000 for value in _leaves(big.data))
    assert session.stats().cut == 1


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    return [value]


@pytest.mark.parametrize("session", [{"max_producers": 1}], indirect=True)
def test_loss_is_never_silent_of_a_process_that_finds_no_slot(session):
    live = Live()
    subscribers.register("live", live)
    scope.event("mine")  # takes the slot
    pid = fork(workers.emit_marks, 0)
    assert reap(pid) == 0
    flushed = subscribers.flush()
    assert (flushed.lost, flushed.causes) == (MARKS, {"unregistered": MARKS})
    assert session.stats().emitted == MARKS + 1


def test_loss_is_never_silent_of_a_subscriber_that_raises(session, capfd, caplog):
    """What one subscriber fails on, the others see; it is logged and counted."""
    live = Live()

    def fails(event: relay_mp.Event) -> None:
        raise ValueError(f"not this one: {event.name}")

    subscribers.register("fails", fails)
    subscribers.register("live", live)
    workers.emit_marks(0, 5)
    assert subscribers.flush().lost == 0
    assert len(live.events) == 5
    assert session.stats().subscriber_errors == 5
    assert "'fails' failed" in caplog.text
    session.close()
    assert "5 failures of subscribers" in capfd.readouterr().err


# ------------------------------------------------------- a producer that dies or stops cannot wedge others

VICTIMS = 12
# Most of an emit is then copying, so that many a signal hits between claim and commit.
PAYLOAD = "x" * 200_000


def emit_for_ever() -> None:
    n = 0
    while True:
        scope.event("victim", data={"n": n, "payload": PAYLOAD})
        n += 1


def emit_many(worker: int) -> None:
    workers.emit_marks(worker, 2000)


def check_victim(live: Live, pid: int) -> int:
    """What it emitted is whole and without a gap up to its end. Returns what it lost there."""
    events = [event for event in live.events if event.pid == pid]
    lost = [event for event in events if event.name == LOSS]
    numbers = [event.data["n"] for event in events if event.name == "victim"]
    assert numbers == list(range(len(numbers)))
    assert all(event.data["payload"] == PAYLOAD for event in events if event.name == "victim")
    assert sum(event.data["lost"] for event in lost) <= 1
    return sum(event.data["lost"] for event in lost)


def test_a_dead_producer_cannot_wedge_the_others(session):
    """Killed while they emit, one after the other: survivors lose nothing, and delivery goes on."""
    live = Live()
    subscribers.register("live", live)
    survivors = [fork(emit_many, worker) for worker in range(2)]
    killed = []
    for _ in range(VICTIMS):
        pid = fork(emit_for_ever)
        killed.append(pid)
        live.wait_for(pid, "victim", 3)
        os.kill(pid, signal.SIGKILL)
        assert reap(pid) == -signal.SIGKILL
    assert [reap(pid) for pid in survivors] == [0, 0]
    flushed = subscribers.flush()
    session.close()  # the last losses are said at the end
    assert live.numbers() == {worker: list(range(2000)) for worker in range(2)}
    lost = sum(check_victim(live, pid) for pid in killed)
    assert flushed.lost <= lost <= VICTIMS
    assert flushed.causes.keys() <= {"writer_died"}


@pytest.mark.parametrize("session", [{"stall_timeout_seconds": 0.1}], indirect=True)
def test_a_stopped_producer_cannot_wedge_the_others(session):
    """Stopped while it emits, with a stall timeout set: others go on, a flush returns; so does it, later."""
    live = Live()
    subscribers.register("live", live)
    for number in range(VICTIMS // 2):
        pid = fork(emit_for_ever)
        live.wait_for(pid, "victim", 3)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        workers.emit_marks(number)
        subscribers.flush()
        assert live.numbers()[number] == list(range(MARKS))
        # What it had begun is given up; the space is its own until it knows.
        os.kill(pid, signal.SIGCONT)
        live.wait_for(pid, "victim", 1)
        os.kill(pid, signal.SIGKILL)
        reap(pid)
    subscribers.flush()
    session.close()
    assert session_causes(live).keys() <= {"writer_died", "fenced"}


def session_causes(live: Live) -> Counter[str]:
    causes: Counter[str] = Counter()
    for event in live.named(LOSS):
        causes.update(event.data["causes"])
    return causes


def test_a_stopped_producer_without_a_stall_timeout_is_waited_for_and_named(session):
    """Survivors' emits return; a flush that cannot says who holds it up; nothing at all is lost."""
    live = Live()
    subscribers.register("live", live)
    for number in range(VICTIMS // 2):
        pid = fork(emit_for_ever)
        live.wait_for(pid, "victim", 3)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        workers.emit_marks(number)
        stalled = None
        try:
            subscribers.flush(timeout=0.2)
        except relay_mp.FlushTimeoutError as error:
            stalled = str(error)
        # None: it was stopped between two events. No process: the subscriber is still behind.
        assert stalled is None or f"process {pid} " in stalled or "a subscriber" in stalled
        os.kill(pid, signal.SIGCONT)
        live.wait_for(pid, "victim", 1)
        os.kill(pid, signal.SIGKILL)
        reap(pid)
        subscribers.flush()
        assert live.numbers()[number] == list(range(MARKS))
    session.close()
    assert session_causes(live).keys() <= {"writer_died"}


def test_a_dead_producer_is_a_zombie_to_nobody(session):
    """A killed child that its parent has not reaped holds nothing up."""
    live = Live()
    subscribers.register("live", live)
    pid = fork(emit_for_ever)
    live.wait_for(pid, "victim", 3)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    workers.emit_marks(0)
    subscribers.flush()
    assert live.numbers() == {0: list(range(MARKS))}
    assert reap(pid) == -signal.SIGKILL
