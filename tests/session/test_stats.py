"""session.stats() against the truth: by process, by cause, in all."""

import os
import signal
import threading

import numpy as np

import relay_mp
from relay_mp import pools, scope, subscribers

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
