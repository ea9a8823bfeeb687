"""From the emit to a Python callback: events a second, CPU seconds a million events, delay; for the library and peers.

A stopwatch runs from the moment at which all producers begin until the callback has seen the last event. A callback
counts and looks at the payload, as the peers have theirs unpickled by then; the library's is also measured with one
that does not look, for its events are decoded only then. A peer with a stream for each process is given that: each
producer delivers to itself, and all of them count together.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np

from benchmarks.harness import Part, print_rows
from benchmarks.peers import PEERS
from relay_mp._bench.fleet import SENT, DelaySink, Order, Run, Sink, fleet
from relay_mp._bench.histogram import merged
from relay_mp._bench.payloads import FOUR_FIELDS, record
from relay_mp._bench.peers import RELAY, Peer
from relay_mp._bench.sides import Side

PRODUCERS = [1, 2, 8]
ROUNDS = 2
EVENTS = 30_000
RATES_HZ = [1_000, 10_000, 100_000]
DELAY_PRODUCERS = 2
DELAY_SECONDS = 0.5

LOOKS, LOOKS_NOT = "relay_mp", "relay_mp, payload not looked at"
UNPACKB = "bare msgpack.unpackb loop"


class CountingSink(Sink):
    """Does not look at the payload."""

    def __init__(self, _read: Any) -> None:
        super().__init__(None)


@contextmanager
def streaming(peer: Peer, producers: int, events: int, looks: bool) -> Iterator[Callable[[], Run]]:
    """A side: `events` in all, flat out, and every one of them delivered."""
    with fleet(peer, FOUR_FIELDS, producers, Sink if looks else CountingSink) as started:
        order = Order(events // producers, timed=False)
        yield lambda: started.run(order)


@contextmanager
def unpacking(events: int) -> Iterator[Callable[[], float]]:
    """A side: the events a second that msgpack alone would decode, of the same record."""
    packed, unpackb = msgpack.packb(record()), msgpack.unpackb

    def run_round() -> float:
        start = time.perf_counter()
        for _ in range(events):
            unpackb(packed)
        return events / (time.perf_counter() - start)

    yield run_round


@contextmanager
def delaying(peer: Peer, rate_hz: int, seconds: float) -> Iterator[Callable[[], Run]]:
    """A side: events at this rate from `DELAY_PRODUCERS`, each with the time at which it was sent."""
    with fleet(peer, None, DELAY_PRODUCERS, DelaySink, data=SENT) as started:
        each_hz = rate_hz // DELAY_PRODUCERS
        order = Order(max(int(each_hz * seconds), 1), interval_ns=10**9 // each_hz)
        yield lambda: started.run(order)


def run(part: Part) -> None:
    events, rounds = part.scaled(EVENTS, 200), part.scaled(ROUNDS)
    for producers in part.pick(PRODUCERS):
        sides = [
            Side(LOOKS, streaming, (RELAY, producers, events, True)),
            Side(LOOKS_NOT, streaming, (RELAY, producers, events, False)),
            *(Side(peer.name, streaming, (peer, producers, events, True)) for peer in part.pick(PEERS)),
            Side(UNPACKB, unpacking, (events,)),
        ]
        _throughput(part, sides, rounds, producers)
    seconds = DELAY_SECONDS * max(part.scale, 0.1)
    for rate_hz in part.pick(RATES_HZ):
        _delay(part, rate_hz, seconds, rounds)


def _throughput(part: Part, sides: list[Side], rounds: int, producers: int) -> None:
    group, reference = f"delivered, {producers} producers", None
    print(f"  {group}")
    for name, turns in part.rounds(sides, rounds).items():
        rates = [turn if isinstance(turn, float) else turn.delivered / turn.seconds for turn in turns]
        reference = reference or rates
        ratio = float(np.median(np.array(rates) / np.array(reference)))
        row = part.add(
            group, name, producers=producers, unit="events/s", value=round(float(np.median(rates))),
            values=[round(rate) for rate in rates], ratio=round(ratio, 3),
        )  # fmt: skip
        if not isinstance(turns[0], float):
            row |= _costs(turns)
        print_throughput(row)


def _costs(turns: list[Run]) -> dict[str, Any]:
    millions = sum(turn.emitted for turn in turns) / 1e6
    return {
        "producer_cpu_seconds_per_million": round(sum(turn.producer_cpu_seconds for turn in turns) / millions, 2),
        "consumer_cpu_seconds_per_million": round(sum(turn.consumer_cpu_seconds for turn in turns) / millions, 2),
        "lost": sum(turn.emitted - turn.delivered for turn in turns),
    }


def print_throughput(row: dict[str, Any]) -> None:
    cpu = ""
    if "lost" in row:
        cpu = (
            f"  CPU s/million: emit {row['producer_cpu_seconds_per_million']:6.2f}, "
            f"consume {row['consumer_cpu_seconds_per_million']:6.2f}  lost {row['lost']}"
        )
    print(f"    {row['side']:<44} {row['value']:>9,} events/s  ratio {row['ratio']:6.2f}{cpu}", flush=True)


def _delay(part: Part, rate_hz: int, seconds: float, rounds: int) -> None:
    group, rows = f"delay, {rate_hz:,} events/s", []
    sides = [Side(peer.name, delaying, (peer, rate_hz, seconds)) for peer in [RELAY, *part.pick(PEERS)]]
    for name, turns in part.rounds(sides, rounds).items():
        row = part.add(
            group, name, rate_hz=rate_hz, unit="ns", **merged([turn.delays for turn in turns]).figures(),
            reached_hz=round(float(np.median([turn.delivered / turn.seconds for turn in turns]))),
        )  # fmt: skip
        row["ratio"] = round(row["median"] / rows[0]["median"], 3) if rows else 1.0
        rows.append(row)
    print_rows(group, rows)
