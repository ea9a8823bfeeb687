"""Faults of real processes, over the Python runtime: workers, dispatchers and owners killed, fork storms, subscribers
that misbehave.

How processes end otherwise is in test_ends.py, what is short in test_shortage.py, pid namespaces in
test_namespaces.py. What other files show is not repeated here: kills at each step of a claim are in
tests/native, single deaths of each kind in tests/test_promises.py and tests/session.
"""

import asyncio
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import named_subscribers
import pytest
import workers
from processes import TIMEOUT_SECONDS, await_end, await_that, fork, long, reap, run_alone

import relay_mp
from relay_mp import pools, scope, subscribers
from relay_mp._native import core
from relay_mp._native.segments import Segment
from relay_mp.testing import assert_no_loss
from tests.faults.chaos import Book

pytestmark = pytest.mark.timeout(150)

LOSS = "relay_mp.loss"
SMALL_RING = {"ring_bytes": 64 * 1024, "max_event_bytes": 8 * 1024}
MARK, LOST = 0, 1  # the kinds of a book's records


# ------------------------------------------------------------------------------- workers killed in a pool


class Pool:
    """Forked workers that emit for ever, each with a counter of what has returned."""

    def __init__(self, book):
        self._cells = memoryview(mmap.mmap(-1, 16 * 20_000)).cast("Q")
        self._made = 0
        self.pids_of = []
        self.book = book
        self.workers = []

    def fill(self, size):
        for _ in range(size):
            self.workers.append(self._start())

    def _start(self):
        producer = self._made
        self._made += 1
        pid = fork(self._emit, producer)
        self.pids_of.append(pid)
        return pid, producer

    def _emit(self, producer):
        texts = ["x" * length for length in (10, 100, 1000, 7000)]
        for n in range(1 << 40):
            scope.event("m", data={"producer": producer, "n": n, "text": texts[n % 4]})
            self._cells[producer] = n + 1
            if n % 20 == 19:
                time.sleep(0.001)  # a pace, so that the ring is sometimes empty too

    def note(self, event):
        """The subscriber."""
        if event.name == LOSS:
            self.book.note(LOST, event.redelivered, 0, event.pid, event.data["lost"], 0, event.seq)
        else:
            data = event.data
            self.book.note(MARK, event.redelivered, 0, event.pid, data["producer"], data["n"], event.seq)

    def kill(self, place, emits):
        """Kills one, once it has emitted so many more, and replaces it."""
        pid, producer = self.workers[place]
        enough = self._cells[producer] + emits
        await_that(lambda: self._cells[producer] >= enough, f"emits of {pid}")
        os.kill(pid, signal.SIGKILL)
        assert reap(pid) == -signal.SIGKILL
        self.workers[place] = self._start()

    def end(self):
        for pid, _ in self.workers:
            os.kill(pid, signal.SIGKILL)
            reap(pid)
        self.workers = []

    def returned(self):
        counted = Counter()
        for producer, pid in enumerate(self.pids_of):
            counted[pid] += self._cells[producer]
        return counted


def kill_and_replace_workers(kills, settings):
    """Delivered + lost = emitted, of each process and in all; each kill costs one event at most."""
    choose = random.Random(kills)
    book = Book()
    pool = Pool(book)
    with relay_mp.session(**SMALL_RING, **settings) as session:
        subscribers.register("book", pool.note)
        try:
            pool.fill(3)
            for _ in range(kills):
                pool.kill(choose.randrange(3), choose.randint(1, 30))
        finally:
            pool.end()
        subscribers.flush()
        # What a killed one had numbered and not claimed is settled at the dispatcher's next look at the dead.
        await_that(lambda: not session.stats().pending, "the accounts of the dead")
        stats = session.stats()
    assert stats.emitted == stats.delivered + stats.lost, stats
    assert len(pool.pids_of) == kills + 3
    book.balance(stats, pool.returned(), Counter(pool.pids_of))
    assert book.faults == [], book.faults
    if session.settings.on_full == "block":
        assert stats.causes.keys() <= {"writer_died"}, stats
        assert stats.lost <= kills + 3, stats
    print(stats.emitted, stats.delivered, stats.lost)


@pytest.mark.parametrize("kills", [500, long(10_000)])
@pytest.mark.parametrize("settings", [{"on_full": "drop"}, {"block_timeout_seconds": 3600.0}], ids=["drop", "block"])
def test_killed_and_replaced_workers_leave_exact_accounts(run_script, settings, kills):
    run = run_alone(run_script, kill_and_replace_workers, kills, settings, timeout_seconds=30 + kills)
    emitted, delivered, lost = map(int, run.stdout.split())
    assert emitted == delivered + lost > kills


# ----------------------------------------------------------------------- workers killed while they wait


@pytest.mark.parametrize("session", [{"block_timeout_seconds": 3600.0, **SMALL_RING}], indirect=True)
def test_workers_killed_while_they_wait_leave_no_waiter_and_lose_no_wake_up(session):
    """For space in a full ring, and in a flush; others that wait beside them are woken as ever."""
    opened, numbers = threading.Event(), defaultdict(list)

    def hold(event):
        assert opened.wait(TIMEOUT_SECONDS)
        if event.name == "m":
            numbers[event.pid].append(event.data)

    def emit_and_tell(count):
        for n in range(count):
            scope.event("m", data=n)
            os.write(tell, b".")

    told, tell = os.pipe()
    os.set_blocking(told, False)
    subscribers.register("hold", hold)
    scope.event("what the flushes wait for")
    flushing = [fork(subscribers.flush, TIMEOUT_SECONDS) for _ in range(2)]
    emitting = [fork(emit_and_tell, 3000) for _ in range(4)]
    # A record is at least a unit: no more than the ring's units have returned when all wait.
    returned = 0

    def are_waiting():
        nonlocal returned
        try:
            returned += len(os.read(told, 65536))
        except BlockingIOError:
            return session.stats().ring_used_bytes > session.settings.ring_bytes - 1024
        return False

    await_that(are_waiting, "a full ring")
    for pid in (flushing[0], *emitting[:2]):
        os.kill(pid, signal.SIGKILL)
        assert reap(pid) == -signal.SIGKILL
    opened.set()
    assert [reap(pid) for pid in (flushing[1], *emitting[2:])] == [0, 0, 0]
    subscribers.flush()
    await_that(lambda: not session.stats().pending, "the accounts of the dead")
    for descriptor in (told, tell):
        os.close(descriptor)
    stats = session.stats()
    assert stats.lost <= 2
    assert stats.causes.keys() <= {"writer_died"}
    assert [numbers[pid] for pid in emitting[2:]] == [list(range(3000))] * 2
    assert all(numbers[pid] == list(range(len(numbers[pid]))) for pid in emitting[:2])


# --------------------------------------------------------------------------------------------- fork storms

FORK_STORM = """
import os, sys, threading
import relay_mp
from relay_mp import scope, subscribers
sys.setswitchinterval(0.0002)  # or the forking thread waits for the others most of the time
runs, forks = int(sys.argv[1]), int(sys.argv[2])
for run in range(runs):
    with relay_mp.session(ring_bytes=1 << 20) as session:
        seen = []
        subscribers.register("seen", lambda event: seen.append(event.pid))
        ending = threading.Event()
        emitted = [0] * 4
        def emit(thread):
            while not ending.is_set():
                scope.event("m", data={"text": "x" * 500})
                emitted[thread] += 1
        threads = [threading.Thread(target=emit, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for n in range(forks):
            pid = os.fork()
            if not pid:
                with scope.scope("of the child", relay_mp.ScopeType.Agent):
                    scope.event("m")
                os._exit(0)
            children.append(pid)
        statuses = [os.waitpid(pid, 0)[1] for pid in children]
        ending.set()
        for thread in threads:
            thread.join()
        result = subscribers.flush()
        assert not any(statuses), statuses
        assert result.lost == 0, result
        assert seen.count(os.getpid()) == sum(emitted), (seen.count(os.getpid()), emitted)
        assert all(seen.count(pid) == 3 for pid in children)
print("ok")
"""


@pytest.mark.parametrize(("runs", "forks"), [(50, 4), (1, 200)])
def test_a_fork_storm_while_threads_emit(run_script, runs, forks):
    assert run_script(FORK_STORM, runs, forks).stdout == "ok\n"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_fork_storms(run_script):
    for _ in range(500):
        assert run_script(FORK_STORM, 2, 200).stdout == "ok\n"


def test_a_fork_in_a_task_of_an_event_loop(session, seen):
    """The child goes on under its task's scope, and its siblings' tasks with theirs."""
    tasks = 20

    async def task(number):
        with scope.scope(f"{number}", relay_mp.ScopeType.Agent):
            await asyncio.sleep(0)
            pid = fork(scope.event, "of the child")
            await asyncio.sleep(0)
            scope.event("of the task")
            return pid

    async def run():
        pids = await asyncio.gather(*(task(number) for number in range(tasks)))
        statuses = [reap(pid) for pid in pids]
        return pids, statuses, await subscribers.flush_async()

    pids, statuses, result = asyncio.run(run())
    assert statuses == [0] * tasks
    assert result.lost == 0
    starts = {event.name: event.uuid for event in seen if getattr(event, "scope_category", "") == "start"}
    under = defaultdict(list)
    for event in seen:
        if event.kind == "mark":
            under[event.parent_uuid].append((event.name, event.pid))
    for number, pid in enumerate(pids):
        assert sorted(under[starts[f"{number}"]]) == [("of the child", pid), ("of the task", os.getpid())]


# ----------------------------------------------------------------------------- the dispatcher process dies


def flush_for_ever(stop, emitted):
    """A worker: each of its flushes returns, or says that it could not in time."""
    n = 0
    while not select.select([stop], [], [], 0)[0]:
        scope.event(f"worker {n}")
        n += 1
        try:
            assert subscribers.flush(timeout=0.05).lost == 0
        except (relay_mp.FlushError, relay_mp.FlushTimeoutError):
            continue
    os.write(emitted, b"%d" % n)


@pytest.mark.parametrize("kills", [20, long(1000)])
def test_a_dispatcher_process_that_is_killed_again_and_again_loses_nothing(tmp_path, kills):
    """At most one event is delivered again a kill, and says so; a worker's flushes end meanwhile."""
    choose = random.Random(kills)
    lines = tmp_path / "lines"
    receive, stop = os.pipe()
    told, tell = os.pipe()
    emitted = 0
    with relay_mp.session(dispatcher="process") as session:
        subscribers.register("x", "named_subscribers:Lines", arguments={"path": str(lines)})
        worker = fork(flush_for_ever, receive, tell)
        killed = -1
        for _ in range(kills):
            goal = session.stats().delivered + choose.randint(0, 100)
            for _ in range(150):
                scope.event(f"{emitted}")
                emitted += 1
            await_that(lambda goal=goal: session.stats().delivered >= goal, "the dispatcher")
            # It may have delivered all before it died, and its successor not be there yet.
            await_that(lambda killed=killed: session._segment.lease()[1] != killed, "the next dispatcher")
            killed = session._segment.lease()[1]
            os.kill(killed, signal.SIGKILL)
            assert subscribers.flush().lost == 0
        os.write(stop, b".")
        assert reap(worker) == 0
        assert subscribers.flush().lost == 0
    of_worker = int(os.read(told, 20))
    for descriptor in (receive, stop, told, tell):
        os.close(descriptor)
    kept, repeated = [], 0
    for name, pid, redelivered, _ in named_subscribers.read(lines):
        if redelivered:
            repeated += 1
            if kept[-1:] == [(name, pid)]:
                continue
        kept.append((name, pid))
    assert repeated <= kills
    assert [name for name, pid in kept if pid == os.getpid()] == [f"{i}" for i in range(emitted)]
    assert [name for name, pid in kept if pid == worker] == [f"worker {i}" for i in range(of_worker)]
    assert session.stats().lost == 0


# --------------------------------------------------------------------------------------------- the owner dies

DYING_OWNER = """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
dispatcher, directory, lines, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
session = relay_mp.session(
    dispatcher=dispatcher, directory=directory, ring_bytes=65536, max_event_bytes=8192, block_timeout_seconds=3600
)
if dispatcher == "process":
    subscribers.register("x", "named_subscribers:Lines", arguments={"path": lines})
else:
    import named_subscribers
    subscribers.register("x", named_subscribers.Lines(lines))
receive, send = os.pipe()
pids = []
for worker in range(3):
    pid = os.fork()
    if not pid:
        for n in range(count):
            scope.event(f"{n}")
            if n == 100:
                os.write(send, b".")
        with open(f"{lines}.{os.getpid()}", "w") as file:
            file.write("done")
        os._exit(0)
    pids.append(pid)
for _ in pids:
    os.read(receive, 1)
print(session.path, session._segment.lease()[1], *pids, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def die_while_workers_emit(tmp_path, dispatcher):
    """(the segment, the dispatcher's pid, the workers' pids): the workers have all done what they had to."""
    segments = tmp_path / "segments"
    segments.mkdir()
    # Not run_script: the dispatcher process keeps the pipes of its stderr open.
    owner = subprocess.Popen(
        [sys.executable, "-c", DYING_OWNER, dispatcher, str(segments), str(tmp_path / "lines"), "3000"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(workers.__file__)},
    )
    with owner:
        path, dispatcher_pid, *pids = owner.stdout.readline().split()
        assert owner.wait(TIMEOUT_SECONDS) == -signal.SIGKILL
    for pid in pids:
        await_end(int(pid))
        assert (tmp_path / f"lines.{pid}").read_text() == "done"
    return path, int(dispatcher_pid), [int(pid) for pid in pids]


def test_workers_of_a_killed_owner_go_on_and_its_dispatcher_process_delivers(tmp_path):
    path, dispatcher, pids = die_while_workers_emit(tmp_path, "process")
    await_end(dispatcher)
    assert not os.path.exists(path)
    names = defaultdict(list)
    for name, pid, *_ in named_subscribers.read(tmp_path / "lines"):
        names[pid].append(name)
    assert names == {pid: [f"{n}" for n in range(3000)] for pid in pids}


def test_workers_of_a_killed_owner_go_on_and_what_its_thread_left_is_recovered(tmp_path):
    """An hour's block_timeout does not hold them: nobody drains. What was lost is counted, at its place."""
    path, _, pids = die_while_workers_emit(tmp_path, "thread")
    following = Counter()
    before = named_subscribers.read(tmp_path / "lines")
    for name, pid, *_ in before:
        assert name == f"{following[pid]}"
        following[pid] += 1
    stats_file = tmp_path / "recovered.jsonl"
    segment = Segment.attach(path)
    owners = {segment.slot_process(slot)[0] for slot, status in enumerate(segment.slot_statuses()) if slot and status}
    segment.close()
    assert owners >= set(pids)
    assert relay_mp.recover(path, stats_file) == str(stats_file)
    assert not os.path.exists(path)
    recovered = [json.loads(line) for line in stats_file.read_text().splitlines()]
    lost = Counter()
    by_data = [event["data"] for event in recovered if event["name"] == LOSS]
    for data in by_data:
        assert data["causes"] == {"full": data["lost"]}
        lost[data["pid"]] += data["lost"]
    # The JSON lines say no pid: what is left of each worker's numbers is what was not delivered before.
    left = Counter(int(event["name"]) for event in recovered if event["name"] != LOSS)
    assert sum(left.values()) + sum(lost.values()) + len(before) - 3 * 3000 in (0, 1)  # one may be delivered again
    assert sum(lost.values()) > 0


# ------------------------------------------------------------------------------------ recycled pool workers


def emit_task(number):
    scope.event("m", data={"n": number})
    return os.getpid()


def recycle_workers(tasks, at_once):
    """Each task in a process of its own, in a session with slots for few more than are forked `at_once`."""
    names, pids = [], set()
    with relay_mp.session(max_producers=at_once + 40) as session:
        subscribers.register("seen", lambda event: names.append(event.data["n"]))
        with pools.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            for first in range(0, tasks, at_once):
                pids.update(pool.map(emit_task, range(first, first + at_once), chunksize=1))
                # A dead one's slot is free when the dispatcher has looked at the dead: once a second.
                await_that(lambda: session._segment.slot_statuses().count(core.SLOT_LIVE) <= 4, "free slots")
            pool.close()
            pool.join()
        subscribers.flush()
        assert sorted(names) == list(range(tasks)), names
        assert len(pids) == tasks, pids
        assert_no_loss(session)
        assert len(session._segment.slot_statuses()) == at_once + 41
    print(len(names))


def test_recycled_pool_workers_lose_nothing_and_use_slots_again(run_script):
    """500 tasks in a session of 140 slots: they are taken again and again."""
    assert run_alone(run_script, recycle_workers, 500, 100).stdout == "500\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_recycling_executor_loses_nothing(session, seen, method):
    context = pools.get_context(method)
    with pools.ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as pool:
        pids = set(pool.map(emit_task, range(6)))
    subscribers.flush()
    assert sorted(event.data["n"] for event in seen) == list(range(6))
    assert len(pids) == 6
    assert_no_loss(session)


# --------------------------------------------------------------------------------- subscribers that misbehave


def test_a_subscriber_that_blocks_holds_no_emit_up(session):
    entered, opened = threading.Event(), threading.Event()
    names = []

    def hold(event):
        names.append(event.name)
        entered.set()
        assert opened.wait(TIMEOUT_SECONDS)

    subscribers.register("x", hold)
    scope.event("first")
    assert entered.wait(TIMEOUT_SECONDS)
    assert reap(fork(workers.emit_marks, 0)) == 0
    with pytest.raises(relay_mp.FlushTimeoutError, match="a subscriber is slow or stuck"):
        subscribers.flush(timeout=0.01)
    assert names == ["first"]
    opened.set()
    assert subscribers.flush().lost == 0
    assert names == ["first", *["m"] * workers.MARKS]


def test_a_subscriber_that_emits_ten_thousand_events(session):
    names = []

    def answer(event):
        names.append(event.name)
        if event.name == "many":
            for i in range(10_000):
                scope.event(f"{i}")

    subscribers.register("x", answer)
    scope.event("many")
    subscribers.flush()
    scope.event("last")
    subscribers.flush()
    assert names == ["many", *(f"{i}" for i in range(10_000)), "last"]


@pytest.mark.parametrize("session", [SMALL_RING], indirect=True)
def test_a_subscriber_that_emits_more_than_the_ring_holds_drops_and_counts(session):
    """It cannot wait for itself, whatever `on_full` says; the rest of the stream is whole."""
    names = []

    def answer(event):
        names.append(event.name if event.name != LOSS else event.data)
        if event.name == "many":
            for i in range(10_000):
                scope.event(f"{i}")

    subscribers.register("x", answer)
    scope.event("many")
    subscribers.flush()
    assert reap(fork(scope.event, "of another")) == 0
    subscribers.flush()
    stats = session.stats()
    session.close()
    assert stats.causes == {"full": stats.lost}
    kept = [name for name in names if isinstance(name, str)]
    answers = len(kept) - 2
    assert 0 < answers == 10_000 - stats.lost
    assert kept == ["many", *sorted(kept[1:-1], key=int), "of another"]
    assert sum(mark["lost"] for mark in names if isinstance(mark, dict)) == stats.lost


def test_a_named_subscriber_that_emits_ten_thousand_events(tmp_path):
    with relay_mp.session(dispatcher="process") as session:
        arguments = {"path": str(tmp_path / "lines")}
        subscribers.register("x", "fault_subscribers:EmitsMany", arguments=arguments)
        scope.event("many")
        subscribers.flush()
        subscribers.flush()
        assert_no_loss(session)
    assert named_subscribers.names(tmp_path / "lines") == ["many", *(f"{i}" for i in range(10_000))]


def test_a_named_subscriber_that_ends_its_process_is_followed_by_another(tmp_path):
    with relay_mp.session(dispatcher="process") as session:
        arguments = {"path": str(tmp_path / "lines")}
        subscribers.register("x", "fault_subscribers:Exits", arguments=arguments)
        for name in ("before", "exit", "after"):
            scope.event(name)
        subscribers.flush()
        assert_no_loss(session)
    found = [(name, redelivered) for name, _, redelivered, _ in named_subscribers.read(tmp_path / "lines")]
    assert found == [("before", False), ("exit", False), ("exit", True), ("after", False)]


def test_a_subscriber_that_ends_the_owner_leaves_all_that_it_had_not_returned_from(run_script, tmp_path):
    """`os._exit` in the owner's own process ends the session; the event in hand and those behind it are kept."""
    done = run_script(
        """
import os, sys, threading
import relay_mp
from relay_mp import scope, subscribers
emitted = threading.Event()
def leave(event):
    emitted.wait()
    if event.name == "3":
        os._exit(3)
session = relay_mp.session(directory=sys.argv[1])
subscribers.register("x", leave)
for i in range(10):
    scope.event(f"{i}")
print(session.path, flush=True)
emitted.set()
threading.Event().wait()
""",
        tmp_path,
        returncode=3,
    )
    file = tmp_path / "recovered.jsonl"
    assert relay_mp.recover(done.stdout.strip(), file) == str(file)
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == [f"{i}" for i in range(3, 10)]


# ------------------------------------------------------------------------------- a lock that both sides want


@pytest.mark.parametrize("session", [{"block_timeout_seconds": 0.01, **SMALL_RING}], indirect=True)
def test_an_emit_with_a_lock_that_the_callback_wants_returns_by_its_deadline(session):
    """It cannot be delivered while the lock is held, and is held until it returns: it gives up, and is counted."""
    lock = threading.Lock()
    seen = []

    def wants(event):
        with lock:
            seen.append(event)

    subscribers.register("x", wants)
    emitted = 0
    with lock:
        while session.stats().lost < 5:  # each of them has waited for its deadline
            scope.event("m", data={"n": emitted})
            emitted += 1
    subscribers.flush()
    scope.event("m", data={"n": emitted})
    emitted += 1
    subscribers.flush()
    stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.causes) == (emitted, emitted - 5, {"full": 5})
    expected = 0
    for event in seen:
        if event.name == LOSS:
            expected += event.data["lost"]
        else:
            assert event.data["n"] == expected
            expected += 1
    assert expected == emitted
