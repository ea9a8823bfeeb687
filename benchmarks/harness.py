"""Runs sides in turn: what compares anything with anything, in one run, on one machine.

Each side lives in a process of its own, started by a forkserver, so that none has another's threads, heap or GIL.
Only one has the turn at a time; the others sleep. The order of the turns moves on by one a round, so that
nobody always follows the same neighbour, and a machine that slows down slows all of them.

    interleave(sides, rounds)  ->  {side's name: [what each of its rounds returned]}
    compare(group, sides, ...) ->  rows, for sides that are statements
"""

import ctypes
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.histogram import Histogram
from benchmarks.loops import Loop, Round, Work

TURN_TIMEOUT_SECONDS = 120.0
END_TIMEOUT_SECONDS = 20.0
WARM_UP_ROUNDS = 1
SMOKE_BELOW = 0.1

# Not fork: this process has NumPy's threads. Not spawn: an interpreter a side would take longer than its rounds.
processes = multiprocessing.get_context("forkserver")
_PRELOADED = ["emit", "load", "delivered", "exporters", "growth", "managed", "recovery", "program"]
processes.set_forkserver_preload([f"benchmarks.{name}" for name in _PRELOADED])

# A side's own children, see `child`: it has one thread when it forks them, or its only other one is the dispatcher.
children = multiprocessing.get_context("fork")


class Unavailable(Exception):
    """A side cannot run here; the reason is printed and kept, and the others go on."""


class BenchmarkError(Exception):
    """A side failed: a defect, not a result."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: as the rows call it.
        open: a module's function, called with `arguments` in the side's process: a context manager that gives the
            function which does one round. Raises Unavailable where this cannot run.
    """

    name: str
    open: Callable[..., AbstractContextManager[Callable[[], Any]]]
    arguments: tuple[Any, ...] = ()


@dataclass
class Part:
    """What a part has found so far.

    Attributes:
        scale: 1.0 for the real run; rounds and counts are multiplied by it. Below `SMOKE_BELOW` sweeps are cut too.
    """

    scale: float = 1.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def scaled(self, number: int, least: int = 1) -> int:
        """A count of this size."""
        return max(int(number * self.scale), least)

    @property
    def is_smoke(self) -> bool:
        return self.scale < SMOKE_BELOW

    def pick(self, values: list[Any]) -> list[Any]:
        """Of a sweep's values or the peers, all; in the smoke size the first two."""
        return values[:2] if self.is_smoke else values

    def skip(self, what: str, reason: object) -> None:
        line = f"skipped: {what}: {str(reason).strip()}"
        if line not in self.skipped:
            self.skipped.append(line)
            print(f"  {line}", flush=True)

    def add(self, group: str, side: str, **figures: Any) -> dict[str, Any]:
        row = {"group": group, "side": side, **figures}
        self.rows.append(row)
        return row

    def rounds(self, sides: list[Side], rounds: int, warm_up: int = WARM_UP_ROUNDS) -> dict[str, list[Any]]:
        """`interleave`, with who is unavailable noted; the smoke size does not warm up."""
        results, unavailable = interleave(sides, rounds, 0 if self.is_smoke else warm_up)
        for name, reason in unavailable.items():
            self.skip(name, reason)
        return results

    def compare(self, group: str, sides: list[Side], rounds: int, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of sides whose rounds are `Round`s; the first that is available is what the ratios are to."""
        results = self.rounds(sides, rounds)
        reference: list[Round] | None = None
        rows = []
        for name, turns in results.items():
            reference = reference or turns
            histogram = Histogram(np.concatenate([turn.samples for turn in turns]))
            rows.append(
                self.add(
                    group,
                    name,
                    **parameters,
                    unit="ns",
                    **histogram.figures(),
                    loop=round(float(np.median([turn.loop for turn in turns])), 1),
                    ratio=_ratio(turns, reference),
                )
            )
        print_rows(group, rows)
        return rows


def _ratio(turns: list[Round], reference: list[Round]) -> float:
    """Median over the rounds of the ratio of the two medians, each taken seconds apart at most."""
    ratios = [
        max(float(np.median(turn.samples)), 1.0) / max(float(np.median(base.samples)), 1.0)
        for turn, base in zip(turns, reference, strict=True)
    ]
    return round(float(np.median(ratios)), 3)


def print_rows(group: str, rows: list[dict[str, Any]]) -> None:
    """Median, p99, p99.9, maximum and ratio of each side."""
    print(f"  {group}")
    for row in rows:
        figures = "  ".join(
            f"{label} {duration(row[name]):>9}"
            for name, label in (("median", "median"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))
            if name in row
        )
        ratio = f"  ratio {row['ratio']:8.2f}" if "ratio" in row else ""
        print(f"    {row['side']:<44} {figures}{ratio}", flush=True)


def duration(nanoseconds: float) -> str:
    """For people: 850 ns, 12.3 us, 4.5 ms, 2.1 s."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            amount = nanoseconds / size
            return f"{amount:.3g} {unit}" if amount < 99.5 else f"{amount:.0f} {unit}"
    return f"{nanoseconds:.0f} ns"


# ------------------------------------------------------------------------------------------- a side's process


def interleave(
    sides: list[Side], rounds: int, warm_up: int = WARM_UP_ROUNDS
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Gives each side a turn a round.

    Returns:
        What each available side's rounds returned, without the warm-up's; and why the others are not.

    Raises:
        BenchmarkError: a side raised, or did not answer within `TURN_TIMEOUT_SECONDS`.
    """
    players = [_Player(side) for side in sides]
    try:
        unavailable = {player.side.name: reason for player in players if (reason := player.ready()) is not None}
        playing = [player for player in players if player.side.name not in unavailable]
        results: dict[str, list[Any]] = {player.side.name: [] for player in playing}
        for number in range(warm_up + rounds):
            first = number % max(len(playing), 1)
            for player in playing[first:] + playing[:first]:
                result = player.turn()
                if number >= warm_up:
                    results[player.side.name].append(result)
        return results, unavailable
    finally:
        for player in players:
            player.dismiss()
        for player in players:
            player.end()


class _Player:
    """A side's process, seen from the process that gives the turns."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._pipe, its_end = processes.Pipe()
        self._process = processes.Process(target=_play, args=(its_end, side), name=side.name)
        self._process.start()
        its_end.close()

    def _receive(self) -> tuple[str, Any]:
        if not self._pipe.poll(TURN_TIMEOUT_SECONDS):
            raise BenchmarkError(f"{self.side.name} did not answer within {TURN_TIMEOUT_SECONDS} s")
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join(1)
            raise BenchmarkError(f"{self.side.name} ended with {self._process.exitcode}") from None
        if kind == "failed":
            raise BenchmarkError(f"{self.side.name} failed:\n{value}")
        return kind, value

    def ready(self) -> str | None:
        """None when it is; else why it is unavailable."""
        kind, value = self._receive()
        return str(value) if kind == "unavailable" else None

    def turn(self) -> Any:
        self._pipe.send(True)
        return self._receive()[1]

    def dismiss(self) -> None:
        with suppress(OSError):
            self._pipe.send(False)

    def end(self) -> None:
        self._process.join(END_TIMEOUT_SECONDS)
        if self._process.is_alive():
            print(f"  {self.side.name} does not end; it is killed", flush=True)
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process.close()


def _play(pipe: Connection, side: Side) -> None:
    """The side's process. It ends when it is dismissed, or when who gives the turns has gone."""
    try:
        with side.open(*side.arguments) as run_round:
            pipe.send(("ready", None))
            with suppress(EOFError):
                while pipe.recv():
                    pipe.send(("round", run_round()))
    except Unavailable as reason:
        pipe.send(("unavailable", str(reason)))
    except (KeyboardInterrupt, BrokenPipeError):
        return
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


class Turn:
    """What a side that is a statement does when it has the turn: `calls` timed each, and as many as a whole."""

    def __init__(self, loop: Loop, calls: int) -> None:
        self.loop = loop
        self.calls = calls

    def __call__(self) -> Round:
        return self.loop.round(self.calls)


@contextmanager
def rounds_of(work: Work, calls: int) -> Iterator[Turn]:
    """The turns of a side that is a statement: `calls` a round.

    Raises:
        Unavailable: the statement raises, as where a peer refuses a payload.
    """
    loop = Loop(work)
    try:
        loop.whole(1)
    except Exception as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from None
    yield Turn(loop, calls)


@contextmanager
def statement(code: str, calls: int, names: dict[str, Any] | None = None) -> Iterator[Turn]:
    """A side that needs nothing set up: `Side(name, statement, (code, calls, names))`."""
    with rounds_of(Work(code, names or {}), calls) as run_round:
        yield run_round


PR_SET_PDEATHSIG = 1


@contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Forks a child that runs `target(its end of a pipe, *arguments)`; at the end of the block it is sent a None.

    It is killed if its parent dies: nothing outlives a benchmark.
    """
    pipe, its_end = children.Pipe()
    process = children.Process(target=_as_child, args=(target, its_end, *arguments))
    process.start()
    its_end.close()
    try:
        yield pipe
    finally:
        with suppress(OSError):
            pipe.send(None)
        process.join(END_TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        pipe.close()


def _as_child(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    target(pipe, *arguments)


def received(pipe: Connection) -> Any:
    """What a child sends next.

    Raises:
        BenchmarkError: nothing within `TURN_TIMEOUT_SECONDS`, or it has died.
    """
    if not pipe.poll(TURN_TIMEOUT_SECONDS):
        raise BenchmarkError(f"a child did not answer within {TURN_TIMEOUT_SECONDS} s")
    try:
        return pipe.recv()
    except EOFError:
        raise BenchmarkError("a child ended without an answer") from None


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 60.0) -> None:
    """Polls, asleep in between.

    Raises:
        BenchmarkError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what}: not within {timeout_seconds} s")
        time.sleep(0.0005)
