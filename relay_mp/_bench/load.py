"""Emit latency under a load of the caller's choice: what `relay-mp bench` measures, and the document that it gives.

Load: processes, threads, rate, payload
    -> sides      the library, the peers, and a floor in which nothing is emitted, in turns of `seconds`
    -> rows       percentiles, bins, spread between the rounds, what was lost
    -> document   rows, machine, method and notes: all that the table, the picture and the JSON show
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack  # type: ignore[import-untyped]

from relay_mp._bench.bins import BINS_A_DECADE
from relay_mp._bench.children import BenchmarkError, Unavailable
from relay_mp._bench.fleet import CountedSink, Fleet, Order, Run, Sink, fleet
from relay_mp._bench.histogram import merged
from relay_mp._bench.machine import governor, machine, versions
from relay_mp._bench.payloads import FOUR_FIELDS
from relay_mp._bench.peers import FLOOR, Peer, Relay
from relay_mp._bench.sides import WARM_UP_ROUNDS, Side, interleave, processes
from relay_mp._session.membership import current_session
from relay_mp._session.stats import Stats

FORMAT = "relay_mp.bench/1"
MAX_CALLS_A_ROUND = 2_000_000
"""Of each thread, flat out: their times are kept until the round ends, 8 bytes each."""
NOISY_MEDIAN, NOISY_P99 = 1.2, 1.5
"""Of the highest round to the lowest: from there on a result is called noisy."""
BUSY_SHARE = 0.5
"""Of the cores, as load average before the run: from there on the machine is called busy."""
FEW_CALLS = 10
"""Above a percentile; one that rests on fewer is named."""
PACKAGES = ("relay_mp", "nemo-relay", "msgpack", "numpy")

processes.set_forkserver_preload([__name__])

_FILES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "atof_file": lambda directory: {"path": str(directory / "events.jsonl")},
    "perfetto": lambda directory: {"path": str(directory / "trace.json")},
    "atif": lambda directory: {"output_directory": str(directory)},
}
"""Kinds of exporters that write files, and where they do unless they are told: in a directory that is removed."""


@dataclass(frozen=True)
class Load:
    """What emits.

    Attributes:
        processes: that emit; 0: threads of the process that owns the session.
        threads: of each process, that emit.
        rate_hz: calls a second of each thread; None: flat out.
        seconds: of a round; flat out it also ends after `MAX_CALLS_A_ROUND` calls of a thread.
        payload: of each event; it must be picklable.
    """

    processes: int = 2
    threads: int = 1
    rate_hz: float | None = 1000.0
    seconds: float = 1.0
    payload: Any = field(default_factory=FOUR_FIELDS.copy)

    @property
    def producers(self) -> int:
        """Threads that emit, in all."""
        return max(self.processes, 1) * self.threads

    def order(self) -> Order:
        """A round, for each producer."""
        if self.rate_hz is None:
            return Order(MAX_CALLS_A_ROUND, seconds=self.seconds)
        return Order(max(round(self.rate_hz * self.seconds), 1), interval_ns=round(1e9 / self.rate_hz))


@contextmanager
def loading(peer: Peer, load: Load) -> Iterator[Callable[[], Run]]:
    """A side: a round is one order to all producers.

    Raises:
        Unavailable: the peer is, or refuses the payload, or an exporter does not start.
    """
    with ExitStack() as stack:
        if isinstance(peer, Relay):
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="relay-mp-bench-")))
            peer = replace(peer, exporters=tuple(_placed(kind, given, directory) for kind, given in peer.exporters))
        make_sink = CountedSink if isinstance(peer, Relay) else Sink
        started = stack.enter_context(fleet(peer, load.payload, load.processes, make_sink, threads=load.threads))
        _try(started, peer)
        order = load.order()
        yield lambda: started.run(order)


def _placed(kind: str, given: dict[str, Any], directory: Path) -> tuple[str, dict[str, Any]]:
    default = _FILES[kind](directory) if kind in _FILES else {}
    return kind, {**default, **given}


def _try(started: Fleet, peer: Peer) -> None:
    """One call of each producer: who refuses the payload is left out, rather than measured."""
    try:
        started.run(Order(1, timed=False))
    except BenchmarkError as error:
        raise Unavailable(f"it does not take the payload: {error}") from None
    session = current_session()
    if isinstance(peer, Relay) and session:
        _check_session(session.stats(), peer)


def _check_session(stats: Stats, relay: Relay) -> None:
    """What the library copes with in a program would make figures that mean something else."""
    if stats.unrecorded:
        raise Unavailable(f"nothing is recorded: {stats.unrecorded}")
    if stats.ring_bytes < relay.ring_bytes:
        raise Unavailable(
            f"there is no room for a ring of {relay.ring_bytes:,} bytes, only for {stats.ring_bytes:,}: give a smaller "
            "--ring, or make room in shared memory"
        )
    if stats.cut:
        raise Unavailable(
            "the payload is over the size limit of an event, an eighth of the ring, and would be cut: "
            "give a smaller --payload or a larger --ring"
        )


# ------------------------------------------------------------------------------------------- the document


def measure(
    load: Load,
    relay: Relay,
    peers: Sequence[Peer],
    rounds: int,
    *,
    described: dict[str, Any],
    on_turn: Callable[[int, str], object] = lambda _number, _name: None,
) -> dict[str, Any]:
    """Measures the library, the peers and the floor.

    Args:
        load: what emits.
        relay: the session.
        peers: what it is compared with.
        rounds: that count, after a round of warm-up.
        described: how the payload and the command are called in the document: "payload", "command".
        on_turn: see `interleave`.

    Returns:
        The document: JSON types only.

    Raises:
        Unavailable: the library's own side could not start.
        BenchmarkError: a side failed.
    """
    before = {**machine(), "governor": governor()}
    sides = [Side(peer.title, loading, (peer, load)) for peer in (relay, *peers, FLOOR)]
    began = time.monotonic()
    turns, unavailable = interleave(sides, rounds, WARM_UP_ROUNDS, on_turn)
    if relay.title in unavailable:
        raise Unavailable(unavailable[relay.title])
    document = {
        "format": FORMAT,
        "command": described["command"],
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": before,
        "versions": versions(PACKAGES),
        "load": _load(load, relay, rounds, described["payload"]),
        "method": _method(load),
        "rows": [_row(name, runs) for name, runs in turns.items()],
        "unavailable": unavailable,
        "seconds": round(time.monotonic() - began, 1),
    }
    return {**document, "notes": list(_notes(document, load.producers))}


def _load(load: Load, relay: Relay, rounds: int, payload: str) -> dict[str, Any]:
    return {
        "processes": load.processes,
        "threads": load.threads,
        "rate_hz": load.rate_hz,
        "seconds": load.seconds,
        "rounds": rounds,
        "warm_up_rounds": WARM_UP_ROUNDS,
        "payload": payload,
        "payload_msgpack_bytes": _packed_bytes(load.payload),
        "dispatcher": relay.dispatcher,
        "ring_bytes": relay.ring_bytes,
        "on_full": relay.on_full,
        "exporters": [kind for kind, _ in relay.exporters],
    }


def _packed_bytes(payload: Any) -> int | None:
    try:
        return len(msgpack.packb(payload))
    except (TypeError, ValueError, OverflowError):  # such as an array, which only the library records
        return None


def _method(load: Load) -> dict[str, str]:
    """What the figures are, in words."""
    omission = (
        "flat out: a thread makes its next call as soon as the last one is over, so that no call is due meanwhile, and "
        "there is nothing to correct; a slow call means fewer calls"
        if load.rate_hz is None
        else "percentiles are of the call alone; `corrected` adds to each call the time that those before it in its "
        "thread were behind the pace (w' = max(0, w + call - interval)), as if each had begun when it was due; that "
        "the system woke a thread late is in neither"
    )
    return {
        "interval": "one emit call, from before it to after it has returned, as the emitting thread sees it; all "
        "threads begin a round together, and their calls are due at the same moments; the garbage collector stays on",
        "clock": "time.perf_counter_ns; what reading it costs (`clock_ns`) is taken off each call, at least 1 ns stays",
        "warm_up": f"{WARM_UP_ROUNDS} round of the same size, thrown away",
        "rounds": "the sides take turns, each in processes of its own; the order moves on by one a round. A round ends "
        "when all of its events are delivered; percentiles are of the calls of all rounds and threads",
        "full_ring": "on_full=block: the call waits for space, which is in its time; on_full=drop: it returns at once, "
        "and the event counts as lost",
        "coordinated_omission": omission,
        "spread": "the highest round's figure to the lowest's",
        "floor": "msgpack.packb of such an event in the call's place, with nothing emitted: what the machine and a "
        "call after a pause take",
        "bins": f"counts of calls by time; bin n begins at 10 ** (n / {BINS_A_DECADE}) ns",
    }


def _row(name: str, runs: list[Run]) -> dict[str, Any]:
    latencies, responses = merged([run.latencies for run in runs]), [each for run in runs for each in run.responses]
    emitted, delivered = sum(run.emitted for run in runs), sum(run.delivered for run in runs)
    each_round = [
        {name: run.latencies.figures()[name] for name in ("median", "p99") if name in run.latencies.figures()}
        for run in runs
    ]
    return {
        "side": name,
        "unit": "ns",
        **latencies.figures(),
        "corrected": merged(responses).figures() if responses else None,
        "reached_hz": round(emitted / sum(run.emitting_seconds for run in runs), 1),
        "emitted": emitted,
        "delivered": delivered,
        "lost": emitted - delivered,
        "clock_ns": runs[-1].clock_ns,
        "rounds": each_round,
        "spread": {
            figure: round(max(values) / min(values), 2)
            for figure in ("median", "p99")
            if (values := [found[figure] for found in each_round if figure in found])
        },
    }


def _notes(document: dict[str, Any], producers: int) -> Iterator[str]:
    """What a reader must know to trust the figures, or not."""
    at = document["machine"]
    if few := _few_calls(document["rows"][0]):
        yield few
    if at["load_average_before"] >= BUSY_SHARE * at["cores"]:
        yield (
            f"the machine was busy before the run: load average {at['load_average_before']:g} on {at['cores']} cores; "
            "measure again when it is idle"
        )
    if at["governor"] not in (None, "performance"):
        yield f"the CPU governor is {at['governor']}: clock rates vary; `performance` holds them"
    if producers >= at["cores"]:
        yield (
            f"{producers} emitting threads and a dispatcher share {at['cores']} cores and preempt each other: "
            "the floor shows what of the tail is the machine's"
        )
    if varied := [each for row in document["rows"] for each in _varied(row)]:
        yield f"noisy, from round to round: {'; '.join(varied)}"
    for row in document["rows"]:
        if row["lost"]:
            yield f"{row['side']}: {row['lost']:,} of {row['emitted']:,} events were lost"
    yield from (f"{name} is left out: {reason}" for name, reason in document["unavailable"].items())


def _varied(row: dict[str, Any]) -> Iterator[str]:
    for figure, noisy in (("median", NOISY_MEDIAN), ("p99", NOISY_P99)):
        if row["spread"].get(figure, 1.0) >= noisy:
            values = [found[figure] for found in row["rounds"] if figure in found]
            yield f"{figure} of {row['side'].partition(':')[0]} {min(values) / 1000:.3g} to {max(values) / 1000:.3g} µs"


def _few_calls(row: dict[str, Any]) -> str | None:
    """Of a row's highest percentile, where it rests on few calls: what to do for more."""
    highest, share = next(
        ((label, share) for name, label, share in _SHARES if name in row), ("median", 0.5)
    )  # fmt: skip
    above = row["count"] * share
    if above >= FEW_CALLS:
        return None
    return (
        f"{highest} rests on {max(round(above), 1)} of {row['count']:,} calls; more --seconds or --rounds make it firm"
    )


_SHARES = (("p9999", "p99.99", 0.0001), ("p999", "p99.9", 0.001), ("p99", "p99", 0.01), ("p90", "p90", 0.1))
