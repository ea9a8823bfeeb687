"""Timed loops: they make the calls that were ordered, and correct for those that a slow one delays."""

import numpy as np
import pytest

from relay_mp._bench.fleet import Order, fleet
from relay_mp._bench.loops import Loop, Work, with_waiting
from relay_mp._bench.peers import FLOOR, MultiprocessingQueue


def test_a_slow_call_delays_those_that_are_due_meanwhile():
    assert with_waiting(np.array([1, 25, 1, 1, 1]), 10).tolist() == [1, 25, 16, 7, 1]
    assert with_waiting(np.array([9, 10, 9]), 10).tolist() == [9, 10, 9]
    assert with_waiting(np.array([], np.int64), 10).tolist() == []


def test_the_correction_is_that_of_a_queue_with_one_server():
    samples = np.random.default_rng(3).integers(1, 30, 2000)
    waiting, expected = 0, []
    for sample in samples:
        expected.append(waiting + sample)
        waiting = max(0, waiting + sample - 10)
    assert with_waiting(samples, 10).tolist() == expected


def test_each_call_is_made_and_counted_and_a_limit_ends_them():
    made = []
    loop = Loop(Work("call(1)", {"call": made.append}))
    assert len(loop.timed(7)) == 7
    assert len(loop.paced(3, 0, 1)) == 3
    loop.whole(5)
    assert len(made) == loop.calls == 15
    assert len(loop.timed(1000, seconds=1e-9)) == 1


@pytest.mark.parametrize("peer", [FLOOR, MultiprocessingQueue()], ids=lambda peer: peer.name)
@pytest.mark.parametrize(("processes", "threads"), [(2, 1), (1, 2), (0, 2)])
def test_every_thread_of_every_process_obeys_each_order_once(peer, processes, threads):
    with fleet(peer, None, processes, threads=threads) as started:
        for calls in (3, 5):
            run = started.run(Order(calls, interval_ns=1000))
            assert [histogram.count for histogram in run.histograms] == [calls] * max(processes, 1) * threads
            assert [histogram.count for histogram in run.responses] == [calls] * max(processes, 1) * threads
            assert run.emitted == run.delivered == calls * max(processes, 1) * threads
