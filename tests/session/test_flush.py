"""Waiting for delivery: what it waits for, when it gives up, what it says."""

import asyncio
import os
import signal
import sys
import threading

import pytest

import relay_mp
from relay_mp import pools, scope, subscribers
from relay_mp._session.flush import flush

WAIT_SECONDS = 30


class Latch:
    def __init__(self):
        self.names = []
        self._entered, self._opened = threading.Event(), threading.Event()

    def __call__(self, event):
        self.names.append(event.name)
        self._entered.set()
        assert self._opened.wait(WAIT_SECONDS)

    def hold(self):
        scope.event("hold")
        assert self._entered.wait(WAIT_SECONDS)

    def open(self):
        self._opened.set()


@pytest.fixture
def latch(session):
    latch = Latch()
    subscribers.register("latch", latch)
    yield latch
    latch.open()


def test_a_deadline_that_passes_says_why_and_loses_nothing(session, latch):
    latch.hold()
    for i in range(10):
        scope.event(f"{i}")
    with pytest.raises(
        relay_mp.FlushTimeoutError, match=r"bytes of events .* within 0 s: a subscriber is slow or stuck"
    ):
        subscribers.flush(timeout=0)
    with pytest.raises(TimeoutError, match="still in the ring"):
        asyncio.run(subscribers.flush_async(timeout=0.01))
    latch.open()
    assert subscribers.flush().lost == 0
    assert latch.names == ["hold", *(f"{i}" for i in range(10))]


def test_the_default_deadline_is_the_sessions():
    latch = Latch()
    with relay_mp.session(flush_timeout_seconds=0.01):
        subscribers.register("latch", latch)
        latch.hold()
        with pytest.raises(relay_mp.FlushTimeoutError, match=r"within 0\.01 s"):
            subscribers.flush()
        latch.open()
        subscribers.flush(timeout=WAIT_SECONDS)


def test_it_waits_for_what_other_processes_emitted(session, seen):
    with pools.get_context("fork").Pool(4) as pool:
        pool.map(scope.event, [f"{i}" for i in range(400)])
        subscribers.flush()
        assert {event.name for event in seen} == {f"{i}" for i in range(400)}
        pool.close()
        pool.join()


def test_a_worker_may_flush(session, seen, run_script):
    run_script(
        """
from relay_mp import scope, subscribers
for i in range(100):
    scope.event(f"{i}")
assert subscribers.flush().lost == 0
"""
    )
    assert len(seen) == 100


@pytest.mark.parametrize("session", [{"ring_bytes": 65536}], indirect=True)
def test_it_does_not_wait_for_what_comes_later(session, seen):
    stop = threading.Event()

    def emit():
        while not stop.is_set():
            scope.event("more")

    emitter = threading.Thread(target=emit)
    emitter.start()
    for _ in range(10):
        subscribers.flush()
    stop.set()
    emitter.join()


def test_it_returns_when_its_own_place_is_reached_though_the_run_goes_on(session):
    held, opened, looked, returned = (threading.Event() for _ in range(4))
    came = []

    def slow(event):
        if event.name == "hold":
            held.set()
            assert opened.wait(WAIT_SECONDS)
        if event.name == "later":
            came.append(returned.wait(WAIT_SECONDS))

    def flush_mine():
        # Asked after 100 ms: by then the flush knows its place.
        flush(session._segment, 2 * WAIT_SECONDS, is_abandoned=lambda: bool(looked.set()))
        returned.set()

    subscribers.register("slow", slow)
    scope.event("hold")
    assert held.wait(WAIT_SECONDS)
    scope.event("mine")
    thread = threading.Thread(target=flush_mine)
    thread.start()
    assert looked.wait(WAIT_SECONDS)
    scope.event("later")  # in one run with "mine"
    opened.set()
    thread.join()
    session.flush()
    assert came == [True]


def test_many_may_flush_at_once(session, seen):
    start, errors = threading.Barrier(8), []

    def flush(number):
        start.wait(WAIT_SECONDS)
        scope.event(f"{number}")
        try:
            subscribers.flush()
            assert f"{number}" in [event.name for event in seen]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=flush, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def flush_in_a_thread(found):
    """Returns it once it waits; `found` gets the result or the error."""

    def work():
        try:
            found.append(subscribers.flush())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while sys._current_frames()[thread.ident].f_code is not flush.__code__:
        pass
    return thread


def test_a_close_meanwhile_is_the_flushs_end_too(capfd):
    latch, found = Latch(), []
    session = relay_mp.session()
    subscribers.register("latch", latch)
    latch.hold()
    flushing = flush_in_a_thread(found)
    closing = threading.Thread(target=session.close)
    closing.start()
    while session.is_open:
        pass
    latch.open()
    closing.join()
    flushing.join()
    assert found == [relay_mp.FlushResult(0, {})]


def test_a_close_that_gives_up_meanwhile_tells_the_flush_what_is_left(tmp_path):
    latch, found = Latch(), []
    session = relay_mp.session(directory=tmp_path)
    subscribers.register("latch", latch)
    latch.hold()
    for i in range(4):
        scope.event(f"{i}")
    flushing = flush_in_a_thread(found)
    session.close(timeout=0)
    flushing.join()
    (error,) = found
    assert isinstance(error, relay_mp.FlushError)
    assert str(error) == "the session was closed during the flush, with 5 events not delivered in time"
    with pytest.raises(relay_mp.FlushError, match="with 5 events not delivered"):
        session.flush()
    latch.open()
    session._host._thread.join()


def test_flushes_race_closes_without_errors():
    found, rounds = [], 30

    def work(session, start):
        start.wait(WAIT_SECONDS)
        try:
            found.append(session.flush())
        except Exception as error:
            found.append(error)

    for _ in range(rounds):
        session, start = relay_mp.session(), threading.Barrier(3)
        subscribers.register("x", id)
        for i in range(20):
            scope.event(f"{i}")
        threads = [threading.Thread(target=work, args=(session, start)) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait(WAIT_SECONDS)
        session.close()
        for thread in threads:
            thread.join()
    assert found == [relay_mp.FlushResult(0, {})] * (2 * rounds)


@pytest.fixture
def stalled_writer():
    """`stalled_writer(session)`: the pid of a living process with an event that it has claimed and never finishes."""
    children = []

    def stall(session):
        child = os.fork()
        if child == 0:
            scope.event("of the writer")
            signal.pause()
        children.append(child)
        while not any(process.pid == child for process in session.stats().processes):
            pass
        subscribers.flush()
        segment = session._segment
        slot = next(slot for slot in range(1, 1024) if segment.slot_state(slot) >> 32 == child)
        claim_by_hand(session.path, segment.tail, slot)
        return child

    yield stall
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_stalled_writer_is_named_and_given_up_when_it_dies(session, seen, stalled_writer):
    writer = stalled_writer(session)
    with pytest.raises(relay_mp.FlushTimeoutError, match=f"process {writer} has not finished an event"):
        subscribers.flush(timeout=0.5)
    assert session.stats().stalled_pid == writer
    scope.event("behind it")
    os.kill(writer, signal.SIGKILL)
    assert subscribers.flush().causes == {"writer_died": 1}
    assert [event.name for event in seen if not event.name.startswith("relay_mp.")] == ["of the writer", "behind it"]


def test_stall_timeout_is_how_long_delivery_waits_for_a_living_writer(stalled_writer, caplog, capfd):
    names = []
    with relay_mp.session(stall_timeout_seconds=0.05) as session:
        subscribers.register("x", lambda event: names.append(event.name))
        writer = stalled_writer(session)
        scope.event("behind it")
        assert subscribers.flush().causes == {"fenced": 1}
        assert names == ["of the writer", "behind it"]
        (record,) = caplog.records
        assert record.getMessage().startswith(f"process {writer} has held up delivery for 0.1 s")
    assert "1 lost (fenced 1)" in capfd.readouterr().err


def claim_by_hand(path, position, slot):
    """Moves the tail of a quiet ring on by one unit, and leaves that unit BUSY: see layout.h."""
    import mmap
    import struct

    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as segment:
        (ring_offset,) = struct.unpack_from("<Q", segment, 48)
        (capacity,) = struct.unpack_from("<Q", segment, 24)
        tail = next(at for at in range(128, 4096, 128) if struct.unpack_from("<Q", segment, at)[0] == position)
        emitted = slot * relay_mp._native.core.SLOT_BYTES + 4096 + relay_mp._native.core.SLOT_FIELDS["emitted"]
        (count,) = struct.unpack_from("<Q", segment, emitted)
        struct.pack_into("<Q", segment, emitted, count + 1)
        word = 1 | slot << 3 | 1 << 19 | (position & ((1 << 29) - 1)) << 35
        struct.pack_into("<Q", segment, ring_offset + position % capacity * 64, word)
        struct.pack_into("<QQ", segment, tail, position + 1, slot << 32 | 1)


def test_a_dead_dispatcher_is_an_error_and_not_a_wait(run_script, tmp_path):
    out = run_script(
        """
import os, signal, sys
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._session.membership import current_session
receive, send = os.pipe()
owner = os.fork()
if owner == 0:
    session = relay_mp.session(directory=sys.argv[1])  # its own: others' sessions sweep /dev/shm
    subscribers.register("x", lambda event: signal.pause())
    os.write(send, session.path.encode())
    signal.pause()
path = os.read(receive, 4096).decode()
relay_mp.attach(path)
scope.event("m")
os.kill(owner, signal.SIGKILL)
os.waitpid(owner, 0)
try:
    subscribers.flush()
except relay_mp.FlushError as error:
    print(error)
relay_mp.shutdown()
""",
        tmp_path,
    ).stdout
    assert "dispatcher has died; what it had not delivered is still in the segment" in out
    (segment,) = tmp_path.iterdir()
    file = tmp_path / "recovered.jsonl"
    assert relay_mp.recover(str(segment), str(file)) == str(file)
    assert '"name":"m"' in file.read_text()


def test_a_dispatcher_thread_that_has_failed_is_not_waited_for(run_script, tmp_path):
    out = run_script(
        """
import sys
import relay_mp
from relay_mp import scope, subscribers
from relay_mp._deliver.dispatcher import Dispatcher
deliver_run = Dispatcher._deliver_run
def fail(self, batch, start):
    raise LookupError("a bug")
Dispatcher._deliver_run = fail
session = relay_mp.session(directory=sys.argv[1], ring_bytes=65536, block_timeout_seconds=3600)
subscribers.register("x", id)
scope.event("m")
session._host._thread.join()
for i in range(2000):  # more than the ring takes: nobody will make space, so that is not waited for
    scope.event(f"{i}")
try:
    subscribers.flush(timeout=3600)
except relay_mp.FlushError as error:
    print(error)
stats = session.stats()
print(stats.emitted, stats.delivered, stats.lost + stats.pending, set(stats.causes), stats.lost > 500)
session.close(timeout=3600)
Dispatcher._deliver_run = deliver_run
print(len(open(relay_mp.recover(session.path, sys.argv[1] + "/file")).readlines()) >= stats.pending)
""",
        tmp_path,
    )
    died, *rest = out.stdout.splitlines()
    assert "dispatcher has died; what it had not delivered is still in the segment" in died
    assert rest == ["2001 0 2001 {'full'} True", "True"]
    assert "the dispatcher has stopped" in out.stderr
    assert "LookupError: a bug" in out.stderr
