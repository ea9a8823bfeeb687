"""Many processes, many events, one live subscriber: each process's order and every payload are checked.

The same run at two sizes: 8 x 2,000 events in ordinary CI, under each start method, and 8 x 100,000 in the
long profile. (2 x 10,000,000 native records are tests/native/test_ring_order.c's.)
"""

import multiprocessing
import time

import pytest

import relay_mp

PRODUCERS = 8
FILL = "0123456789abcdef" * 16


def data_of(producer: int, number: int) -> dict[str, object]:
    """Event `number` of a producer: its length, and all its values, depend on both."""
    mixed = (producer * 1_000_003 + number * 7919) % 251
    return {"producer": producer, "number": number, "fill": FILL[mixed:], "list": [mixed, -number, mixed / 4, None]}


def produce(producer: int, count: int) -> None:
    for number in range(count):
        relay_mp.scope.event("big", data=data_of(producer, number))


class Check:
    """The live subscriber. Looks at every event as it arrives; keeps the first few that are wrong."""

    def __init__(self) -> None:
        self.counts = [0] * PRODUCERS
        self.pids: list[set[int]] = [set() for _ in range(PRODUCERS)]
        self.wrong: list[object] = []
        self.last_seq = -1

    def __call__(self, event: relay_mp.Event) -> None:
        data = event.data
        try:
            producer = data["producer"]
            expected = data_of(producer, self.counts[producer])
            right = event.name == "big" and data == expected and event.seq > self.last_seq and not event.redelivered
        except (KeyError, TypeError, IndexError):
            right = False
        if not right:
            if len(self.wrong) < 10:
                self.wrong.append((event.name, event.seq, data))
            return
        self.counts[producer] += 1
        self.pids[producer].add(event.pid)
        self.last_seq = event.seq


def run(start_method: str, count: int) -> float:
    """Seconds from the first start to the end of the flush."""
    context = multiprocessing.get_context(start_method)
    check = Check()
    with relay_mp.session(dispatcher="thread", block_timeout_seconds=300) as session:
        relay_mp.subscribers.register("check", check)
        started = time.perf_counter()
        producers = [context.Process(target=produce, args=(n, count)) for n in range(PRODUCERS)]
        for process in producers:
            process.start()
        try:
            for process in producers:
                process.join(3000)
        finally:
            for process in producers:
                process.kill()
                process.join()
        codes = [process.exitcode for process in producers]
        session.flush(timeout=600)
        seconds = time.perf_counter() - started
        stats = session.stats()
        relay_mp.subscribers.deregister("check")
    assert codes == [0] * PRODUCERS
    assert check.wrong == []
    assert check.counts == [count] * PRODUCERS
    assert len(set.union(*check.pids)) == PRODUCERS
    assert all(len(pids) == 1 for pids in check.pids)
    assert (stats.emitted, stats.delivered) == (PRODUCERS * count, PRODUCERS * count)
    assert (stats.lost, stats.pending, stats.cut, stats.subscriber_errors) == (0, 0, 0, 0)
    return seconds


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_every_event_of_eight_processes_arrives_in_order(start_method):
    run(start_method, 2_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_events_of_each_of_eight_processes(record_property):
    count = 100_000
    seconds = run("fork", count)
    rate = PRODUCERS * count / seconds
    record_property("events_per_second", round(rate))
    print(f"{PRODUCERS} x {count} events in {seconds:.1f} s: {rate:,.0f} events/s")
