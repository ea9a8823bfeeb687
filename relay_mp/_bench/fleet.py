"""Many producers of one channel, in processes and threads of their own, and the sink that their events reach.

    side's process:  peer.open ── fork ──▶ process, process, ...   each of its threads emits on command, all of them
                         │                        │                from the same moment on
                     Sink ◀──── peer.consume ◀────┘

A peer that has a stream for each process is opened and consumed in each producer instead, with a sink there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import psutil  # type: ignore[import-untyped]

from relay_mp import subscribers
from relay_mp._bench.children import BenchmarkError, child, forked, received
from relay_mp._bench.histogram import Histogram, merged
from relay_mp._bench.loops import Loop, Work, with_waiting
from relay_mp._bench.peers import Peer
from relay_mp._session.membership import current_session

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
        responses: the same with the waiting for calls that were late, see loops.with_waiting; empty if not paced.
        emitted, delivered: events.
        seconds: from the start to the last delivery.
        emitting_seconds: from the start to the end of the last producer.
        clock_ns: what the clock costs, which is taken off each latency: the median of the producers.
        producer_cpu_seconds, consumer_cpu_seconds: of the processes of each side; the latter 0 where the
            producers are their own consumers.
        delays: nanoseconds from before the emit to the callback, where the payload says when it was sent.
    """

    histograms: list[Histogram]
    responses: list[Histogram]
    emitted: int
    delivered: int
    seconds: float
    emitting_seconds: float
    clock_ns: float
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

    @property
    def subscriber(self) -> Any:
        """What is called with the events, or, of the library, its name."""
        return self

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


class CountedSink(Sink):
    """Of a session: the dispatcher may be in another process, and what is lost never comes. It asks the session.

    What is called with the events is a function that has a name, and looks at the payload.
    """

    @property
    def subscriber(self) -> str:
        return f"{__name__}:{look.__name__}"

    def wait_for(self, count: int) -> None:
        """Until all that was emitted has been delivered or lost."""
        subscribers.flush(TIMEOUT_SECONDS)
        self.last_ns = time.perf_counter_ns()
        session = current_session()
        self.count = session.stats().delivered if session else 0


def look(event: Any) -> None:
    """A subscriber that looks at the payload."""
    _ = event.data


SENT = "{'sent': clock()}"
"""The payload expression for a DelaySink."""


@dataclass
class Answer:
    """What came of an order in one process: of each of its producers, and of the sink, where it has one."""

    histograms: list[Histogram]
    responses: list[Histogram]
    emitted: int
    ended_ns: int
    clock_ns: float
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
        stopped_ns = max(answer.ended_ns for answer in answers)
        if self._sink:
            self._sink.wait_for(before + emitted)
            ended_ns, delivered, delays = self._sink.last_ns, self._sink.count - before, self._sink.take_delays()
        else:
            ended_ns = stopped_ns
            delivered = sum(answer.delivered for answer in answers)
            delays = merged([answer.delays for answer in answers])
        return Run(
            [histogram for answer in answers for histogram in answer.histograms],
            [histogram for answer in answers for histogram in answer.responses],
            emitted,
            delivered,
            (ended_ns - start_ns) / 1e9,
            (stopped_ns - start_ns) / 1e9,
            float(np.median([answer.clock_ns for answer in answers])),
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

    def answers(self) -> list[Answer]:
        """Of the order that was given last, one a process."""
        return [received(pipe) for pipe in self._pipes]

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._producers]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def fleet(
    peer: Peer, payload: Any, processes: int, make_sink: Callable[[Any], Sink] = Sink, *,
    threads: int = 1, data: str = "payload",
) -> Iterator[Fleet]:  # fmt: skip
    """Opens a channel, starts producers and a consumer of it; ends them with the block.

    Args:
        processes: that emit; 0: the consumer's process does.
        make_sink: called with the peer's `read`.
        threads: of each process, that emit.
        data: an expression for the payload, in which `payload` and `clock` can be used.

    Raises:
        Unavailable: the peer is.
    """
    here = peer.one_stream or not processes
    with ExitStack() as stack:
        address = stack.enter_context(peer.open())  # one that consumes elsewhere shows here that it is available
        arguments = (peer, address if here else None, payload, data, None if here else make_sink, threads)
        pipes, pids = stack.enter_context(_started(arguments, processes))
        sink = None
        if here:
            sink = make_sink(peer.read)
            stack.enter_context(peer.consume(address, sink.subscriber))
        for pipe in pipes:
            received(pipe)
        yield Fleet(pipes, pids, sink)


@contextmanager
def _started(arguments: tuple[Any, ...], processes: int) -> Iterator[tuple[list[Connection], list[int]]]:
    """Starts the producers; gives their pipes, and the processes whose CPU time is theirs."""
    own = psutil.Process()
    before = set(own.children())
    with ExitStack() as stack:
        start = child if processes else _thread
        pipes = [stack.enter_context(start(_serve, *arguments)) for _ in range(max(processes, 1))]
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
    pipe: Connection, peer: Peer, address: Any, payload: Any, data: str, make_sink: Callable[[Any], Sink] | None,
    threads: int,
) -> None:  # fmt: skip
    """Obeys until it is dismissed. With `make_sink`, it opens the peer for itself and consumes its own events."""
    with ExitStack() as stack:
        sink = make_sink(peer.read) if make_sink else None
        if sink:
            address = stack.enter_context(peer.open())
            stack.enter_context(peer.consume(address, sink.subscriber))
        work = stack.enter_context(peer.produce(address, payload, data=data))
        crew = stack.enter_context(_Crew(work, threads))
        pipe.send("ready")
        while (received := pipe.recv()) is not None:
            answer = crew.obey(*received)
            if not peer.one_stream:
                work.settle(crew.calls)
            if sink:
                answer.ended_ns = time.perf_counter_ns()
                answer.delivered, sink.count, answer.delays = sink.count, 0, sink.take_delays()
            pipe.send(answer)


class _Crew:
    """The producers of a process: as many threads, each with a loop of its own; one alone is the calling thread."""

    def __init__(self, work: Work, threads: int) -> None:
        self._loops = [Loop(work) for _ in range(threads)]
        self._barrier = threading.Barrier(threads)
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool.shutdown()

    @property
    def calls(self) -> int:
        """All that were made so far."""
        return sum(loop.calls for loop in self._loops)

    def obey(self, order: Order, start_ns: int) -> Answer:
        """Returns when all of them have done so."""
        if len(self._loops) == 1:
            answers = [_obey(self._loops[0], order, start_ns)]
        else:
            answers = list(self._pool.map(lambda loop: self._obey_together(loop, order, start_ns), self._loops))
        return Answer(
            [histogram for answer in answers for histogram in answer.histograms],
            [histogram for answer in answers for histogram in answer.responses],
            sum(answer.emitted for answer in answers),
            max(answer.ended_ns for answer in answers),
            float(np.median([answer.clock_ns for answer in answers])),
        )

    def _obey_together(self, loop: Loop, order: Order, start_ns: int) -> Answer:
        self._barrier.wait(TIMEOUT_SECONDS)  # else a thread that is done early would take another's loop as well
        return _obey(loop, order, start_ns)


def _obey(loop: Loop, order: Order, start_ns: int) -> Answer:
    loop.calibrate()
    before, samples, responses = loop.calls, np.empty(0, np.int64), []
    time.sleep(max(start_ns - time.perf_counter_ns(), 0) / 1e9)
    if order.interval_ns:
        samples = loop.paced(order.calls, start_ns, order.interval_ns)
        responses = [Histogram(with_waiting(samples, order.interval_ns))]
    elif order.timed:
        samples = loop.timed(order.calls, order.seconds)
    else:
        loop.whole(order.calls)
    ended_ns = time.perf_counter_ns()
    return Answer([Histogram(samples)], responses, loop.calls - before, ended_ns, loop.clock_ns)
