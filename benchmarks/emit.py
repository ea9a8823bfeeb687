"""What a call costs its caller: a mark, and a scope's enter and exit, by payload, beside the peers.

One producer. The dispatcher, or whatever takes a peer's events, runs meanwhile; a round is shorter than what fills
the way to it, and ends when all of it has been delivered. A consumer of a queue between processes is another process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import msgpack
import numpy as np

from benchmarks.harness import Part, Turn, rounds_of, statement
from benchmarks.payloads import CALLS_A_ROUND, PLAIN, SMALL
from benchmarks.peers import PEERS
from relay_mp._bench.children import child, forked, received, wait_until
from relay_mp._bench.loops import Work
from relay_mp._bench.payloads import record
from relay_mp._bench.peers import MARK, RELAY, RELAY_PROCESS, SCOPE, Peer
from relay_mp._bench.sides import Side

ROUNDS = 100
PAYLOADS = {**PLAIN, "NumPy": {"scores": np.linspace(0, 1, 64), "best": np.float32(0.75)}}
VERBS = {"mark": MARK, "with scope": SCOPE}
NOBODY = "relay_mp, nobody subscribed"
PACKB = "msgpack.packb of the record"
EMPTY_CALL = "empty Python function"


def ignore(_event: Any) -> None:
    """A subscriber that does nothing."""


@contextmanager
def heard(peer: Peer, payload: str, verb: str, calls: int) -> Iterator[Turn]:
    """A side: one producer, one consumer that ignores what it gets."""
    with (
        peer.open() as address,
        _consumed(peer, address) as consumed,
        peer.produce(address, PAYLOADS[payload], VERBS[verb]) as work,
        rounds_of(Work(work.statement, work.names, consumed or work.settle), calls) as run_round,
    ):
        yield run_round


@contextmanager
def _consumed(peer: Peer, address: Any) -> Iterator[Callable[[int], None] | None]:
    """Somebody consumes the channel; for a queue, gives what waits until that has been done."""
    if peer == RELAY_PROCESS:
        with peer.consume(address, f"{__name__}:ignore"):
            yield None
    elif not peer.one_stream or peer == RELAY:
        with peer.consume(address, ignore):
            yield None
    else:
        with _consumer_process(peer, address) as seen:
            yield lambda calls: wait_until(lambda: seen.value >= calls, f"{peer.name} delivers {calls} events")


@contextmanager
def _consumer_process(peer: Peer, address: Any) -> Iterator[Any]:
    """A process that counts what comes out of a queue."""
    seen = forked.Value("q", 0, lock=False)
    with child(_count, peer, address, seen) as pipe:
        received(pipe)
        yield seen


def _count(pipe: Connection, peer: Peer, address: Any, seen: Any) -> None:
    def count(_event: Any) -> None:
        seen.value += 1

    with peer.consume(address, count):
        pipe.send("ready")
        pipe.recv()


@contextmanager
def unheard(verb: str, payload: str, calls: int) -> Iterator[Turn]:
    """A side: a session that nobody subscribes to."""
    with (
        RELAY.open() as address,
        RELAY.produce(address, PAYLOADS[payload], VERBS[verb]) as work,
        rounds_of(Work(work.statement, work.names), calls) as run_round,
    ):
        yield run_round


def sides(verb: str, payload: str, peers: list[Peer] = PEERS) -> list[Side]:
    """Whom a group compares. The library first: ratios are to it."""
    calls = CALLS_A_ROUND[payload]
    found = [
        Side("relay_mp", heard, (RELAY, payload, verb, calls)),
        Side(RELAY_PROCESS.title, heard, (RELAY_PROCESS, payload, verb, calls)),
        Side(NOBODY, unheard, (verb, payload, calls)),
        Side(EMPTY_CALL, statement, ("empty()", calls, {"empty": _empty})),
        *(Side(peer.name, heard, (peer, payload, verb, calls)) for peer in peers if _has(peer, verb)),
    ]
    if verb == "mark" and payload != "NumPy":  # msgpack knows no arrays
        found.append(Side(PACKB, packing, (payload, calls)))
    return found


def _empty() -> None:
    return None


@contextmanager
def packing(payload: str, calls: int) -> Iterator[Turn]:
    """A side: msgpack.packb of an event with this payload."""
    names = {"packb": msgpack.packb, "record": record(PAYLOADS[payload])}
    with rounds_of(Work("packb(record)", names), calls) as run_round:
        yield run_round


def _has(peer: Peer, verb: str) -> bool:
    return verb == "mark" or not peer.one_stream


def group(verb: str, payload: str) -> str:
    return f"{verb}, {payload}"


def run(part: Part) -> None:
    for verb in VERBS:
        for payload in part.pick([SMALL, *(name for name in PAYLOADS if name != SMALL)]):
            if verb == "mark" or payload in {"none", SMALL, "2 KiB nested"}:
                compared = sides(verb, payload, part.pick(PEERS))
                part.compare(group(verb, payload), compared, part.scaled(ROUNDS, 2), payload=payload)
