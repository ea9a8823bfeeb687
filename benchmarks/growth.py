"""How the cost of a mark grows, or does not: stack depth, attached processes, subscribers, ring size, payload size.

Also what it costs to be there at all: importing, attaching, an attached worker's memory. The rows of a curve have
their size as `x`, and are to the smallest one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import psutil

import relay_mp
from benchmarks.emit import ignore
from benchmarks.harness import Part, Turn, print_rows, rounds_of
from benchmarks.native import in_c, program
from relay_mp import ScopeType, scope, subscribers
from relay_mp._bench.children import Unavailable, child, received
from relay_mp._bench.histogram import Histogram
from relay_mp._bench.payloads import FOUR_FIELDS
from relay_mp._bench.peers import RELAY, Relay
from relay_mp._bench.sides import Side

ROUNDS = 60
CALLS = 200
IMPORT_ROUNDS = 7
ATTACH_ROUNDS = 40
WORKER_EVENTS = 1000

DEPTHS = [1, 10, 100, 1000]
PROCESSES = [1, 4, 16, 64]
SUBSCRIBERS = [1, 8, 32]
RING_MIB = [1, 16, 64, 256]
PAYLOAD_BYTES = [0, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]
MEMCPY = "memcpy of as much in C"
SHARED_MEMCPY = "memcpy of as much in C, into a ring of shared memory"


@contextmanager
def marking(
    *, depth: int = 0, processes: int = 0, listeners: int = 1, ring_mib: int = 16, payload_bytes: int | None = None
) -> Iterator[Turn]:
    """A side: marks, with one circumstance changed."""
    payload = FOUR_FIELDS if payload_bytes is None else "x" * payload_bytes
    relay = Relay(ring_bytes=ring_mib << 20)
    with ExitStack() as stack:
        address = stack.enter_context(relay.open())
        for number in range(listeners):
            subscribers.register(f"listener {number}", ignore)
        stack.enter_context(_bystanders(processes))
        for _ in range(depth):
            stack.enter_context(scope.scope("level", ScopeType.Function))
        work = stack.enter_context(relay.produce(address, payload))
        calls = CALLS if payload_bytes is None else min(CALLS, max((ring_mib << 19) // (payload_bytes + 512), 4))
        yield stack.enter_context(rounds_of(work, calls))


class _Sized:
    """`marking` with one circumstance, for another process: picklable."""

    def __init__(self, name: str, value: int) -> None:
        self._circumstance = {name: value}

    def __call__(self) -> Any:
        more = {"ring_mib": 64} if "payload_bytes" in self._circumstance else {}
        return marking(**self._circumstance, **more)


@contextmanager
def _bystanders(number: int) -> Iterator[None]:
    """Processes that have emitted, and sleep."""
    with ExitStack() as stack:
        for pipe in [stack.enter_context(child(_stand_by)) for _ in range(number)]:
            received(pipe)
        yield


def _stand_by(pipe: Any) -> None:
    scope.event("here")
    pipe.send("ready")
    pipe.recv()


# ------------------------------------------------------------------------------------------- being there


@contextmanager
def importing(module: str) -> Iterator[Callable[[], float]]:
    """A side: nanoseconds that a fresh interpreter takes longer for the import than for nothing.

    With bytecode, as an installer leaves it, in a place of its own: not every environment has its own written
    (PYTHONDONTWRITEBYTECODE), and then a checkout would be compiled at each import, and an installed peer not.
    """
    if module == "nemo_relay":
        try:
            __import__(module)
        except ImportError as error:
            raise Unavailable(f"not installed ({error})") from None
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = directory
        _interpreter(f"import {module}", environment)
        yield lambda: max(_interpreter(f"import {module}", environment) - _interpreter("pass", environment), 1.0)


def _interpreter(code: str, environment: dict[str, str]) -> float:
    start = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
    return float(time.perf_counter_ns() - start)


@contextmanager
def attaching() -> Iterator[Callable[[], float]]:
    """A side: nanoseconds of attaching to another process' session, the first event included."""
    with child(_own) as pipe:
        path = received(pipe)

        def run_round() -> float:
            start = time.perf_counter_ns()
            session = relay_mp.attach(path)
            scope.event("here", data=FOUR_FIELDS)
            taken = time.perf_counter_ns() - start
            session.close()
            return float(taken)

        yield run_round


def _own(pipe: Any) -> None:
    with RELAY.open() as address, RELAY.consume(address, ignore):
        pipe.send(address.path)
        pipe.recv()


@contextmanager
def attached_memory() -> Iterator[Callable[[], float]]:
    """A side: bytes that belong to a worker alone (USS) after attaching and `WORKER_EVENTS` events, less before."""
    with RELAY.open() as address, RELAY.consume(address, ignore):

        def run_round() -> float:
            with child(_weigh) as pipe:
                return float(received(pipe))

        yield run_round


def _weigh(pipe: Any) -> None:
    process = psutil.Process()
    process.memory_full_info()
    before = process.memory_full_info().uss
    for _ in range(WORKER_EVENTS):
        scope.event("here", data=FOUR_FIELDS)
    pipe.send(process.memory_full_info().uss - before)


# ------------------------------------------------------------------------------------------- the part


def run(part: Part) -> None:
    _curve(part, "stack depth", "depth", DEPTHS)
    _curve(part, "attached processes", "processes", PROCESSES)
    _curve(part, "subscribers", "listeners", SUBSCRIBERS)
    _curve(part, "ring size, MiB", "ring_mib", RING_MIB)
    _curve(part, "payload, bytes", "payload_bytes", PAYLOAD_BYTES)
    _memcpy(part)
    _presence(part)


def _curve(part: Part, title: str, circumstance: str, values: list[int]) -> None:
    values = part.pick(values)
    sides = [Side(f"{value:,}", _Sized(circumstance, value)) for value in values]
    rows = part.compare(f"growth, {title}", sides, part.scaled(ROUNDS, 2), curve=title)
    for row, value in zip(rows, values, strict=True):
        row["x"] = value


def _memcpy(part: Part) -> None:
    """Into one place, which the caches hold; and into the next of 64 MiB of shared memory, as the ring is."""
    values = part.pick(PAYLOAD_BYTES)
    groups = [
        ("growth, memcpy, bytes", "memcpy", MEMCPY),
        ("growth, memcpy into shared memory, bytes", "ring", SHARED_MEMCPY),
    ]
    try:
        with program() as binary:
            for group, mode, curve in groups:
                sides = [Side(f"{value:,}", in_c, (binary, mode, value, 20)) for value in values]
                rows = part.compare(group, sides, part.scaled(ROUNDS, 2), curve=curve)
                for row, value in zip(rows, values, strict=True):
                    row["x"] = value
    except Unavailable as reason:
        part.skip("memcpy", reason)


def _presence(part: Part) -> None:
    imports = [Side(f"import {name}", importing, (name,)) for name in ("relay_mp", "nemo_relay", "msgpack, asyncio")]
    _times(part, "import", imports, part.scaled(IMPORT_ROUNDS))
    _times(part, "attach", [Side("attach and the first event", attaching)], part.scaled(ATTACH_ROUNDS, 3))
    (grown,) = part.rounds([Side("attached worker", attached_memory)], part.scaled(5)).values()
    row = part.add("memory", "of an attached worker, its own pages", unit="bytes", value=float(np.median(grown)))
    print(f"  memory\n    {row['side']:<44} {row['value'] / 1024:.0f} KiB", flush=True)


def _times(part: Part, group: str, sides: list[Side], rounds: int) -> None:
    rows: list[dict[str, Any]] = []
    for name, turns in part.rounds(sides, rounds).items():
        row = part.add(group, name, unit="ns", **Histogram(np.array(turns, np.int64)).figures())
        row["ratio"] = round(row["median"] / rows[0]["median"], 3) if rows else 1.0
        rows.append(row)
    print_rows(group, rows)
