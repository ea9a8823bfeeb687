"""A part of the suite: its sides run in turn, and what they return becomes rows.

The sides' processes, their turns, producers and peers are the package's own harness, `relay_mp/_bench`, which
`relay-mp bench` uses too.

    Part.rounds(sides, rounds)         ->  {side's name: [what each of its rounds returned]}
    Part.compare(group, sides, ...)    ->  rows, for sides that are statements
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relay_mp._bench.children import Unavailable
from relay_mp._bench.histogram import Histogram
from relay_mp._bench.loops import Loop, Round, Work
from relay_mp._bench.sides import WARM_UP_ROUNDS, Side, interleave, processes

SMOKE_BELOW = 0.1

_PRELOADED = ["emit", "load", "delivered", "exporters", "growth", "managed", "recovery", "program"]
processes.set_forkserver_preload([f"benchmarks.{name}" for name in _PRELOADED])


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
