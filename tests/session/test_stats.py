"""session.stats() against the truth: by process, by cause, in all."""

import os
import signal
import threading

import numpy as np
import pytest

import relay_mp
from relay_mp import pools, scope, subscribers
from relay_mp._native import core

WAIT_SECONDS = 30


def by_pid(stats):
    return {process.pid: process for process in stats.processes}


def emit(count):
    for i in range(count):
        scope.event(f"{i}")


def test_an_empty_session_has_nothing(session):
    stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.lost, stats.pending, stats.cut) == (0, 0, 0, 0, 0)
    assert (stats.causes, stats.processes, stats.stalled_pid) == ({}, [], None)
    assert stats.ring_used_bytes == 0


def test_each_process_has_its_own_numbers(session, seen):
    emit(3)
    counts = {}
    for count in (5, 7):
        process = pools.get_context("fork").Process(target=emit, args=(count,))
        process.start()
        process.join()
        counts[process.pid] = count
    subscribers.flush()
    stats = session.stats()
    found = by_pid(stats)
    assert {pid: found[pid].emitted for pid in counts} == counts
    assert found[os.getpid()].emitted == 3
    assert (stats.emitted, stats.delivered, stats.lost, stats.pending) == (15, 15, 0, 0)
    assert all(process.emitted == process.delivered for process in stats.processes)
    assert len(seen) == 15


def test_the_threads_of_a_process_are_summed(session, seen):
    ready, done = threading.Barrier(4), threading.Barrier(5)

    def work():
        ready.wait(WAIT_SECONDS)
        emit(10)
        done.wait(WAIT_SECONDS)
        done.wait(WAIT_SECONDS)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    done.wait(WAIT_SECONDS)
    subscribers.flush()
    (process,) = session.stats().processes
    assert (process.pid, process.emitted, process.delivered, process.producers) == (os.getpid(), 40, 40, 4)
    done.wait(WAIT_SECONDS)
    for thread in threads:
        thread.join()


def test_what_is_under_way_is_pending():
    entered, opened = threading.Event(), threading.Event()

    def hold(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    with relay_mp.session() as session:
        subscribers.register("hold", hold)
        emit(1)
        assert entered.wait(WAIT_SECONDS)
        emit(9)
        stats = session.stats()
        assert (stats.emitted, stats.delivered, stats.pending) == (10, 0, 10)
        assert stats.ring_used_bytes >= 9 * 64
        opened.set()
        subscribers.flush()
        assert session.stats().pending == 0


@pytest.mark.parametrize("session", ["process"], indirect=True)
def test_a_request_that_has_not_come_through_changes_no_count(session):
    """Requests travel among the events, and are none: neither emitted nor delivered, wherever they are just now."""

    def counts():
        stats = session.stats()
        return stats.emitted, stats.delivered, stats.pending, session._segment.events_delivered

    subscribers.register("x", "builtins:repr")
    for _ in range(10):
        scope.event("m")
    subscribers.flush()
    assert counts() == (10, 10, 0, 10)
    dispatcher = session._segment.lease()[1]
    os.kill(dispatcher, signal.SIGSTOP)
    try:
        slot, owner_seq = core.emit_control("request_flush", {"name": "x", "scope": None})
        assert counts() == (10, 10, 0, 10)
    finally:
        os.kill(dispatcher, signal.SIGCONT)
    subscribers.flush()
    assert session._segment.read_reply(slot)[0] == owner_seq
    assert counts() == (10, 10, 0, 10)
    with pytest.raises(relay_mp.PayloadError):
        core.emit_control("request_flush", {"name": object(), 1: 2})
    assert counts() == (10, 10, 0, 10)


@pytest.mark.parametrize(
    "session",
    [
        {"dispatcher": "process", "on_full": "drop", "ring_bytes": 65536},
        {"dispatcher": "process", "block_timeout_seconds": 0.2, "ring_bytes": 65536},
    ],
    indirect=True,
    ids=["drop", "block"],
)
def test_a_request_that_a_full_ring_refuses_changes_no_count(session):
    def counts():
        stats = session.stats()
        return stats.emitted, stats.delivered, stats.lost

    subscribers.register("x", "builtins:repr")
    dispatcher = session._segment.lease()[1]
    os.kill(dispatcher, signal.SIGSTOP)
    try:
        emitted = 0
        while session.stats().lost == 0:
            scope.event("m", data="x" * 1000)
            emitted += 1
        full = counts()
        assert full == (emitted, 0, 1)
        for _ in range(3):
            with pytest.raises(relay_mp.SessionError, match="did not reach the dispatcher"):
                core.emit_control("request_flush", {"name": "x" * 1000, "scope": None})
        assert counts() == full
    finally:
        os.kill(dispatcher, signal.SIGCONT)
    subscribers.flush()
    scope.event("m")
    subscribers.flush()
    assert counts() == (emitted + 1, emitted, 1)
    assert session.stats().pending == 0


def test_numbers_outlive_the_reuse_of_slots():
    with relay_mp.session(max_producers=2) as session:
        subscribers.register("x", id)
        for _ in range(3):
            process = pools.get_context("fork").Process(target=emit, args=(10,))
            process.start()
            process.join()
            while session.stats().processes and any(p.producers for p in session.stats().processes):
                subscribers.flush()  # until the dispatcher has looked for the dead
        emit(1)
        subscribers.flush()
        stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.lost) == (31, 31, 0)
    assert sum(process.emitted for process in stats.processes) == 31
    assert by_pid(stats)[0].emitted >= 10


def test_threads_that_come_and_go_behind_a_stuck_subscriber_are_one_process():
    entered, opened, found = threading.Event(), threading.Event(), []

    def hold(event):
        found.append(event.name)
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    with relay_mp.session(max_producers=2) as session:
        subscribers.register("hold", hold)
        scope.event("main")
        assert entered.wait(WAIT_SECONDS)
        for number in range(50):
            thread = threading.Thread(target=scope.event, args=(f"{number}",))
            thread.start()
            thread.join()
            while session.stats().processes[0].producers > 1:
                pass  # a thread gives its slot back a moment after join has returned
        stats = session.stats()
        assert (stats.emitted, stats.delivered, stats.lost, stats.pending) == (51, 0, 0, 51)
        assert [(process.pid, process.emitted) for process in stats.processes] == [(os.getpid(), 51)]
        opened.set()
        assert subscribers.flush().causes == {}
        stats = session.stats()
    assert [(process.pid, process.delivered) for process in stats.processes] == [(os.getpid(), 51)]
    assert found == ["main", *(f"{number}" for number in range(50))]


def test_events_of_threads_without_a_slot_are_in_the_stream_as_a_loss():
    found = []
    with relay_mp.session(max_producers=1) as session:
        subscribers.register("x", found.append)
        emit(1)
        thread = threading.Thread(target=emit, args=(3,))
        thread.start()
        thread.join()
        assert subscribers.flush().causes == {"unregistered": 3}
    marks = [event.data for event in found if event.name == "relay_mp.loss"]
    assert sum(data["lost"] for data in marks) == sum(data["causes"]["unregistered"] for data in marks) == 3
    assert {data["pid"] for data in marks} == {0}  # whose they were is not known
    assert session.stats().processes[0].lost == 0


def test_closing_under_emits_that_wait_for_space_settles_the_accounts():
    for _ in range(5):
        entered, opened, found = threading.Event(), threading.Event(), []

        def hold(event, entered=entered, opened=opened, found=found):
            found.append(event.name)
            entered.set()
            assert opened.wait(WAIT_SECONDS)

        session = relay_mp.session(ring_bytes=65536, block_timeout_seconds=3600)
        subscribers.register("hold", hold)
        emitters = [threading.Thread(target=emit, args=(5000,)) for _ in range(3)]
        for emitter in emitters:
            emitter.start()
        assert entered.wait(WAIT_SECONDS)
        while session.stats().ring_used_bytes < 65536 - 256:
            pass
        closing = threading.Thread(target=session.close)
        closing.start()
        while session.is_open:
            pass
        opened.set()
        for thread in (closing, *emitters):
            thread.join()
        stats = session.stats()
        seen = [name for name in found if not name.startswith("relay_mp.")]
        assert stats.pending == 0
        assert stats.emitted == stats.delivered + stats.lost
        assert (stats.delivered, stats.lost) == (len(seen), 0)


def test_a_close_that_gives_up_tells_of_the_event_whose_callback_has_not_returned(tmp_path, capfd):
    entered, opened = threading.Event(), threading.Event()

    def hold(_event):
        entered.set()
        assert opened.wait(WAIT_SECONDS)

    session = relay_mp.session(directory=tmp_path)
    subscribers.register("hold", hold)
    emit(1)
    assert entered.wait(WAIT_SECONDS)
    emit(9)
    session.close(timeout=0)
    stats = session.stats()
    assert (stats.emitted, stats.delivered, stats.lost, stats.pending) == (10, 0, 0, 10)
    assert capfd.readouterr().err == (
        "relay_mp: 10 events emitted, 0 delivered, 0 lost, 0 failures of subscribers; "
        f"10 not delivered in time are in {session.path}, see relay_mp.recover\n"
    )
    opened.set()
    session._host._thread.join()


def test_a_killed_worker_has_lost_nothing_that_it_had_emitted(session, seen):
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        emit(20)
        os.write(send, b"x")
        signal.pause()
    os.read(receive, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(receive)
    os.close(send)
    subscribers.flush()
    assert (by_pid(session.stats())[pid].emitted, by_pid(session.stats())[pid].lost) == (20, 0)
    assert len(seen) == 20


def test_an_attached_process_reads_the_same_numbers(session, seen, run_script):
    emit(3)
    subscribers.flush()
    out = run_script(
        """
import os
import relay_mp
session = relay_mp.attach(os.environ["RELAY_MP_SESSION"])
stats = session.stats()
print(stats.emitted, stats.delivered, [process.emitted for process in stats.processes])
"""
    ).stdout
    assert out == "3 3 [3]\n"


def test_a_closed_session_still_has_its_last_numbers():
    with relay_mp.session() as session:
        subscribers.register("x", id)
        emit(4)
    assert (session.stats().emitted, session.stats().delivered) == (4, 4)


def test_totals_agree_with_the_slots_read_as_an_array(session, seen):
    emit(17)
    subscribers.flush()
    from relay_mp._session.stats import _columns

    columns = _columns(session._segment)
    assert isinstance(columns, np.ndarray)
    assert int(columns["emitted"].sum()) == session.stats().emitted == 17
