"""Many producers of one channel, in processes or threads of their own, and the sink that their events reach.

    side's process:  peer.open ── fork ──▶ producer, producer, ...   emit on command, all from the same moment on
                         │                        │
                     Sink ◀──── peer.consume ◀────┘

A peer that has a stream for each process is opened and consumed in each producer instead, with a sink there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from relay_mp._bench.children import BenchmarkError, child, forked, received
from relay_mp._bench.histogram import Histogram, merged
from relay_mp._bench.loops import FOR_EVER, Loop
from relay_mp._bench.peers import Peer

HEAD_START_NS = 20_000_000
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Order:
    """What each producer is to do: `calls` calls, at most for `seconds`; every `interval_ns`, or flat out if that is 0.

    Not `timed`: all of them in one loop, without a clock in it.
    """

    calls: int
    seconds: float = 0.0
    interval_ns: int = 0
    timed: bool = True


@dataclass
class Run:
    """What came of an order.

    Attributes:
        histograms: the latencies of the calls, one a producer; empty if the calls were not timed.
        emitted, delivered: events.
        seconds: from the start to the last delivery.
        producer_cpu_seconds, consumer_cpu_seconds: of the processes of each side; the latter 0 where the
            producers are their own consumers.
        delays: nanoseconds from before the emit to the callback, where the payload says when it was sent.
    """

    histograms: list[Histogram]
    emitted: int
    delivered: int
    seconds: float
    producer_cpu_seconds: float
    consumer_cpu_seconds: float
    delays: Histogram

    @property
    def latencies(self) -> Histogram:
        return merged(self.histograms)


class Sink:
    """A subscriber that counts, looks at the payload if given what reads it, and knows when the last one came."""

    def __init__(self, read: Callable[[Any], Any] | None) -> None:
        self.count = 0
        self.last_ns = 0
        self.target = -1
        self.complete = threading.Event()
        self._read = read

    def __call__(self, event: Any) -> None:
        if self._read is not None:
            self._read(event)
        self.count += 1
        if self.count == self.target:
            self._finish()

    def _finish(self) -> None:
        self.last_ns = time.perf_counter_ns()
        self.complete.set()

    def wait_for(self, count: int) -> None:
        """Until so many have come."""
        self.target = count
        if self.count < count and not self.complete.wait(TIMEOUT_SECONDS):
            raise BenchmarkError(f"{self.count} of {count} events have come within {TIMEOUT_SECONDS} s")
        if not self.complete.is_set():  # they were here before the target was set
            self._finish()
        self.complete.clear()

    def take_delays(self) -> Histogram:
        return Histogram()


class DelaySink(Sink):
    """Also keeps how long each event took; its payload is {"sent": nanoseconds}."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__(self._note)
        self._take = read
        self._delays: list[int] = []

    def _note(self, event: Any) -> None:
        self._delays.append(time.perf_counter_ns() - self._take(event)["sent"])

    def take_delays(self) -> Histogram:
        taken, self._delays = self._delays, []
        return Histogram(np.array(taken, np.int64))


SENT = "{'sent': clock()}"
"""The payload expression for a DelaySink."""


@dataclass
class _Answer:
    histogram: Histogram
    emitted: int
    ended_ns: int
    delivered: int = 0
    delays: Histogram = field(default_factory=Histogram)


class Fleet:
    """Producers that wait for orders, and their sink; see `fleet`."""

    def __init__(self, pipes: list[Connection], pids: list[int], sink: Sink | None) -> None:
        self._pipes = pipes
        self._producers = [psutil.Process(pid) for pid in pids]
        self._sink = sink

    def run(self, order: Order) -> Run:
        """Until everything has been delivered. All producers start at the same moment."""
        before = self._sink.count if self._sink else 0
        cpu, own_cpu = self._cpu_seconds(), time.process_time()
        start_ns = self.command(order)
        answers = self.answers()
        emitted = sum(answer.emitted for answer in answers)
        if self._sink:
            self._sink.wait_for(before + emitted)
            ended_ns, delivered, delays = self._sink.last_ns, self._sink.count - before, self._sink.take_delays()
        else:
            ended_ns = max(answer.ended_ns for answer in answers)
            delivered = sum(answer.delivered for answer in answers)
            delays = merged([answer.delays for answer in answers])
        return Run(
            [answer.histogram for answer in answers],
            emitted,
            delivered,
            (ended_ns - start_ns) / 1e9,
            self._cpu_seconds() - cpu,
            time.process_time() - own_cpu if self._sink else 0.0,
            delays,
        )

    def command(self, order: Order) -> int:
        """Gives an order, whose answers have to be taken; returns when it starts."""
        start_ns = time.perf_counter_ns() + HEAD_START_NS
        for pipe in self._pipes:
            pipe.send((order, start_ns))
        return start_ns

    def answers(self) -> list[_Answer]:
        return [received(pipe) for pipe in self._pipes]

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._producers]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def fleet(
    peer: Peer, payload: Any, producers: int, make_sink: Callable[[Any], Sink] = Sink, *,
    threads: bool = False, data: str = "payload",
) -> Iterator[Fleet]:  # fmt: skip
    """Opens a channel, starts producers and a consumer of it; ends them with the block.

    Args:
        make_sink: called with the peer's `read`.
        threads: producers are threads of the consumer's process.
        data: an expression for the payload, in which `payload` and `clock` can be used.

    Raises:
        Unavailable: the peer is.
    """
    here = threads or peer.one_stream
    with ExitStack() as stack:
        address = stack.enter_context(peer.open())  # one that consumes elsewhere shows here that it is available
        arguments = (peer, address if here else None, payload, data, None if here else make_sink)
        pipes, pids = stack.enter_context(_producers(arguments, producers, threads))
        sink = None
        if here:
            sink = make_sink(peer.read)
            stack.enter_context(peer.consume(address, sink))
        for pipe in pipes:
            received(pipe)
        yield Fleet(pipes, pids, sink)


@contextmanager
def _producers(arguments: tuple[Any, ...], number: int, threads: bool) -> Iterator[tuple[list[Connection], list[int]]]:
    """Starts them; gives their pipes, and the processes whose CPU time is theirs."""
    own = psutil.Process()
    before = set(own.children())
    with ExitStack() as stack:
        start = _thread if threads else child
        pipes = [stack.enter_context(start(_serve, *arguments)) for _ in range(number)]
        yield pipes, [process.pid for process in set(own.children()) - before]


@contextmanager
def _thread(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """`child`, but a thread."""
    pipe, its_end = forked.Pipe()
    thread = threading.Thread(target=target, args=(its_end, *arguments), daemon=True)
    thread.start()
    try:
        yield pipe
    finally:
        pipe.send(None)
        thread.join(TIMEOUT_SECONDS)
        pipe.close()
        its_end.close()


# ------------------------------------------------------------------------------------------- a producer


def _serve(
    pipe: Connection, peer: Peer, address: Any, payload: Any, data: str, make_sink: Callable[[Any], Sink] | None
) -> None:
    """Obeys until it is dismissed. With `make_sink`, it opens the peer for itself and consumes its own events."""
    with ExitStack() as stack:
        sink = make_sink(peer.read) if make_sink else None
        if sink:
            address = stack.enter_context(peer.open())
            stack.enter_context(peer.consume(address, sink))
        work = stack.enter_context(peer.produce(address, payload, data=data))
        loop = Loop(work)
        pipe.send("ready")
        while (received := pipe.recv()) is not None:
            answer = _obey(loop, *received)
            if sink:
                work.settle(loop.calls)
                answer.ended_ns = time.perf_counter_ns()
                answer.delivered, sink.count, answer.delays = sink.count, 0, sink.take_delays()
            pipe.send(answer)


def _obey(loop: Loop, order: Order, start_ns: int) -> _Answer:
    loop.calibrate()
    before, samples = loop.calls, np.empty(0, np.int64)
    time.sleep(max(start_ns - time.perf_counter_ns(), 0) / 1e9)
    if order.interval_ns:
        samples = loop.paced(order.calls, start_ns, order.interval_ns)
    elif order.timed:
        until = time.perf_counter_ns() + int(order.seconds * 1e9) if order.seconds else FOR_EVER
        samples = loop.timed(order.calls, until)
    else:
        loop.whole(order.calls)
    return _Answer(Histogram(samples), loop.calls - before, time.perf_counter_ns())
