"""A writer is killed between its claim and its commit: how soon do the others' events arrive, and are they held up?

Each round a C program takes part in the session, claims space, and stays there; then another producer's events are
stuck behind it. It is killed (SIGKILL). What is measured is the time from the kill to the delivery of the first of
those events, and what the other producer's emit calls cost meanwhile.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.harness import Part, print_rows
from benchmarks.native import program
from relay_mp._bench.children import BenchmarkError, Unavailable
from relay_mp._bench.histogram import Histogram
from relay_mp._bench.loops import Loop
from relay_mp._bench.payloads import FOUR_FIELDS
from relay_mp._bench.peers import RELAY
from relay_mp._bench.sides import Side

KILLS = 120
EVENTS_BEHIND = 50
DELIVERY_TIMEOUT_SECONDS = 30.0


class _Arrivals:
    """A subscriber that tells when the next event arrives."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.at_ns = 0

    def __call__(self, _event: Any) -> None:
        if not self.arrived.is_set():
            self.at_ns = time.perf_counter_ns()
            self.arrived.set()


@contextmanager
def killing(binary: str) -> Iterator[Callable[[], tuple[int, Any]]]:
    """A side: one kill a round. Gives the recovery's nanoseconds, and those of each emit behind the dead claim."""
    arrivals = _Arrivals()
    with (
        RELAY.open() as address,
        RELAY.consume(address, arrivals),
        RELAY.produce(address, FOUR_FIELDS) as work,
    ):
        loop = Loop(work)
        loop.calibrate()

        def run_round() -> tuple[int, Any]:
            work.settle(loop.calls)
            with _claimant(binary, address.path) as pid:
                arrivals.arrived.clear()
                behind = loop.timed(EVENTS_BEHIND)
                killed_ns = time.perf_counter_ns()
                os.kill(pid, signal.SIGKILL)
                if not arrivals.arrived.wait(DELIVERY_TIMEOUT_SECONDS):
                    raise BenchmarkError("nothing was delivered after the kill")
            if arrivals.at_ns < killed_ns:
                raise BenchmarkError("an event was delivered past a claim that was not finished")
            return arrivals.at_ns - killed_ns, behind

        yield run_round


@contextmanager
def _claimant(binary: str, path: str) -> Iterator[int]:
    with subprocess.Popen([binary, "claim", path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        if writer.stdout.readline() != "claimed\n":
            raise BenchmarkError("the writer that is to be killed could not claim")
        yield writer.pid
        writer.kill()


def run(part: Part) -> None:
    try:
        with program() as binary:
            turns = part.rounds([Side("relay_mp", killing, (binary,))], part.scaled(KILLS, 3))["relay_mp"]
    except Unavailable as reason:
        part.skip("recovery", reason)
        return
    recoveries = Histogram(np.array([recovery for recovery, _ in turns], np.int64))
    behind = Histogram(np.concatenate([samples for _, samples in turns]))
    rows = [
        part.add("killed writer", "kill to the next delivery", unit="ns", **recoveries.figures()),
        part.add("killed writer", "emit calls behind the dead claim", unit="ns", **behind.figures()),
    ]
    rows[0]["p99"] = round(recoveries.percentile(99), 1)  # of few kills it is the maximum or next to it
    print_rows("killed writer", rows)
