"""Emit latency under load: what this library is for. Many producers at once, paced and flat out, ring empty to full.

What is timed is the call, not its lateness: a paced producer that is held up makes its next calls late, and that shows
in the call that held it up only.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import Part, print_rows
from benchmarks.peers import PEERS
from relay_mp import subscribers
from relay_mp._bench.children import wait_until
from relay_mp._bench.fleet import Fleet, Order, Run, Sink, fleet
from relay_mp._bench.histogram import Histogram, merged
from relay_mp._bench.payloads import FOUR_FIELDS
from relay_mp._bench.peers import FLOOR, Peer, Relay
from relay_mp._bench.sides import Side

PRODUCERS = [1, 2, 4, 8, 16]
ROUNDS = 2
SECONDS = 0.3
PACE_HZ = 1000
RECORD_BYTES = 256  # of such an event in the ring
BURST_SHARE = 0.75
"""Flat out, the library's producers emit this much of the ring: with the dispatcher at work, it does not fill."""
ROOMY = Relay(ring_bytes=64 << 20)

PACED, FLAT_OUT = f"paced, {PACE_HZ} a second each", "flat out"
OCCUPANCIES = {"nearly empty": 0.0, "half full": 0.5, "full, on_full='drop'": 1.0}
BLOCKING = "full, on_full='block'"


def burst_calls(ring_bytes: int, producers: int, share: float = BURST_SHARE) -> int:
    """Calls of each producer that fill this share of a ring."""
    return int(ring_bytes * share / RECORD_BYTES / producers)


def _order(mode: str, peer: Peer, producers: int, seconds: float) -> Order:
    if mode == PACED:
        return Order(int(PACE_HZ * seconds), interval_ns=10**9 // PACE_HZ)
    if isinstance(peer, Relay) and mode == FLAT_OUT:
        return Order(max(int(burst_calls(peer.ring_bytes, producers) * seconds / SECONDS), 1))
    return Order(1_000_000, seconds=seconds)


@contextmanager
def producing(peer: Peer, mode: str, producers: int, threads: bool, seconds: float) -> Iterator[Callable[[], Run]]:
    """A side: so many producers; a round is one order to all of them."""
    processes, threads_of_each = (0, producers) if threads else (producers, 1)
    with fleet(peer, FOUR_FIELDS, processes, threads=threads_of_each) as started:
        order = _order(mode, peer, producers, seconds)
        yield lambda: started.run(order)


class Latch(Sink):
    """A subscriber that can be held: then nothing leaves the ring."""

    def __init__(self, read: Any) -> None:
        super().__init__(read)
        self.opened = threading.Event()
        self.opened.set()
        self.holding = threading.Event()

    def __call__(self, event: Any) -> None:
        if not self.opened.is_set():
            self.holding.set()
            self.opened.wait()
        super().__call__(event)


@contextmanager
def occupied(share: float, producers: int, scale: float) -> Iterator[Callable[[], Histogram]]:
    """A side: the ring is filled up to `share` and held there; then the producers emit into what is left.

    Of a full one, each call drops its event and says so by its count.
    """
    relay = Relay(on_full="drop", ring_bytes=4 << 20)
    latches: list[Latch] = []

    def make_latch(read: Any) -> Latch:
        latches.append(Latch(read))
        return latches[0]

    with fleet(relay, FOUR_FIELDS, producers, make_latch) as started:
        (latch,) = latches
        burst = Order(max(int(burst_calls(relay.ring_bytes, producers, 0.2) * scale), 20))
        yield lambda: _held_run(started, latch, relay, share, producers, burst)


def _held_run(started: Fleet, latch: Latch, relay: Relay, share: float, producers: int, burst: Order) -> Histogram:
    latch.holding.clear()
    if share:
        latch.opened.clear()
        fill = burst_calls(relay.ring_bytes, producers, share if share < 1 else 1.2)
        started.command(Order(fill, timed=False))
        started.answers()
        wait_until(latch.holding.is_set, "the subscriber is held")
    started.command(burst)
    answers = started.answers()
    latch.opened.set()
    subscribers.flush()
    return merged([histogram for answer in answers for histogram in answer.histograms])


def run(part: Part) -> None:
    seconds = SECONDS * max(part.scale, 0.1)
    rounds = part.scaled(ROUNDS)
    for mode in (PACED, FLAT_OUT):
        for producers in part.pick(PRODUCERS):
            sides = [Side("relay_mp", producing, (ROOMY, mode, producers, False, seconds))]
            sides.append(Side("relay_mp, threads", producing, (ROOMY, mode, producers, True, seconds)))
            others = [*part.pick(PEERS), *([FLOOR] if mode == PACED else [])]
            sides += [Side(peer.name, producing, (peer, mode, producers, False, seconds)) for peer in others]
            _add(part, f"{mode}, {producers} producers", sides, rounds, mode=mode, producers=producers)
    for producers in part.pick([1, 8]):
        sides = [Side(name, occupied, (share, producers, part.scale)) for name, share in OCCUPANCIES.items()]
        sides.append(Side(BLOCKING, producing, (Relay(ring_bytes=1 << 20), BLOCKING, producers, False, seconds)))
        _add(part, f"ring occupancy, {producers} producers", sides, rounds, producers=producers)


def _add(part: Part, group: str, sides: list[Side], rounds: int, **parameters: Any) -> None:
    rows = []
    for name, turns in part.rounds(sides, rounds).items():
        histograms = [turn if isinstance(turn, Histogram) else turn.latencies for turn in turns]
        row = part.add(group, name, **parameters, unit="ns", **merged(histograms).figures())
        if not isinstance(turns[0], Histogram):
            each = [merged(list(of_one)).percentile(99) for of_one in zip(*(t.histograms for t in turns), strict=True)]
            row["p99_by_producer"] = [round(p99) for p99 in each]
            row["lost"] = sum(turn.emitted - turn.delivered for turn in turns)
        row["ratio"] = round(row["median"] / rows[0]["median"], 3) if rows else 1.0
        rows.append(row)
    print_rows(group, rows)
