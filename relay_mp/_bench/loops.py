"""A statement in a loop, compiled as timeit does it, so that no call of the harness' own is in what is timed.

Each call is timed by itself, for the distribution; a whole loop of them, for the cost of one without the clock's.
What the clock and the loop themselves cost is measured beside each and taken off. The garbage collector stays on, as
in a program.
"""

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALIBRATION_CALLS = 64

# A paced call begins when it is due, as near as sleep gets to it; who is late makes up for it without a pause.
_TEMPLATE = """
{define} timed(samples, until):
    for made in _range(len(samples)):
        start = _clock()
        {statement}
        samples[made] = _clock() - start
        if start > until:
            return made + 1
    return len(samples)

{define} whole(calls):
    start = _clock()
    for _ in _range(calls):
        {statement}
    return _clock() - start

{define} paced(samples, due, interval):
    for made in _range(len(samples)):
        start = _clock()
        if start < due:
            _sleep((due - start) / 1e9)
            start = _clock()
        {statement}
        samples[made] = _clock() - start
        due += interval
    return len(samples)
"""
FOR_EVER = 1 << 62


def _settled(_calls: int) -> None:
    return None


@dataclass
class Work:
    """What a side does.

    Attributes:
        statement: one call; awaits if it is to be run in an event loop.
        names: what the statement refers to.
        settle: called with the number of calls so far, outside the timing: returns when what they caused is over.
    """

    statement: str
    names: dict[str, Any] = field(default_factory=dict)
    settle: Callable[[int], object] = _settled


@dataclass
class Round:
    """One turn of a side: nanoseconds of each call, and of a call in a whole loop."""

    samples: NDArray[np.int64]
    loop: float


class Loop:
    """Runs a statement; counts its calls.

    Attributes:
        calls: made so far.
        settle: of its work.
        clock_ns: what the clock costs of each timed call, which is taken off.
    """

    def __init__(self, work: Work) -> None:
        self.calls = 0
        self.settle = work.settle
        self._functions = _compiled(work.statement, work.names)
        self._empty = _compiled("pass", {})
        self.clock_ns = 0.0

    def calibrate(self) -> None:
        """Measures what the clock costs here and now."""
        samples = _zeros(CALIBRATION_CALLS)
        self._empty["timed"](samples, FOR_EVER)
        self.clock_ns = float(np.median(samples))

    def timed(self, calls: int, seconds: float = 0.0) -> NDArray[np.int64]:
        """Nanoseconds of each call; none but the first is begun once so many `seconds` have passed; 0: no limit."""
        samples = _zeros(calls)
        until = time.perf_counter_ns() + int(seconds * 1e9) if seconds else FOR_EVER
        made = self._functions["timed"](samples, until)
        return self._net(samples[:made])

    def paced(self, calls: int, start: int, interval: int) -> NDArray[np.int64]:
        """The same, one call every `interval` nanoseconds from `start` on."""
        samples = _zeros(calls)
        self._functions["paced"](samples, start, interval)
        return self._net(samples)

    def run(self, calls: int) -> int:
        """Nanoseconds of all calls, in a loop with no clock in it."""
        self.calls += calls
        return self._functions["whole"](calls)

    def whole(self, calls: int) -> float:
        """Nanoseconds of a call in such a loop."""
        empty = self._empty["whole"](calls)
        return float(self.run(calls) - empty) / calls

    def _net(self, samples: "array[int]") -> NDArray[np.int64]:
        self.calls += len(samples)
        return np.array(samples, np.int64) - int(self.clock_ns)

    def round(self, calls: int) -> Round:
        """One turn: `calls` timed each, then as many as a whole; settled after each."""
        self.calibrate()
        samples = self.timed(calls)
        self.settle(self.calls)
        loop = self.whole(calls)
        self.settle(self.calls)
        return Round(samples, loop)


def _zeros(calls: int) -> "array[int]":
    """Room for samples, 8 bytes each."""
    return array("q", [0]) * calls


def with_waiting(samples: NDArray[np.int64], interval: int) -> NDArray[np.int64]:
    """What each paced call would have taken from the moment at which it was due, had the one before been over by then.

    A call that takes longer than the interval delays those that are due meanwhile: each waits for as long as the calls
    before it were behind their pace (Lindley's recursion: w' = max(0, w + sample - interval)), and this is added to its
    own time. So the corrected percentiles do not omit what one slow call does to the others. That the system woke the
    producer late is not in it: it is no call's.

    Args:
        samples: nanoseconds of the calls of one producer, in order.
        interval: nanoseconds between two that are due.
    """
    behind = np.concatenate([np.zeros(1, np.int64), np.cumsum(samples[:-1] - interval)])
    return samples + behind - np.minimum.accumulate(behind) if len(samples) else samples


def _compiled(statement: str, names: dict[str, Any]) -> dict[str, Callable[..., int]]:
    is_async = "await " in statement
    source = _TEMPLATE.format(define="async def" if is_async else "def", statement=statement)
    space = {"_clock": time.perf_counter_ns, "_range": range, "_sleep": time.sleep, **names}
    exec(compile(source, f"<{statement}>", "exec"), space)
    functions = {name: space[name] for name in ("timed", "whole", "paced")}
    return {name: _run_async(function) for name, function in functions.items()} if is_async else functions


def _run_async(function: Callable[..., Any]) -> Callable[..., int]:
    def run(*arguments: Any) -> int:
        return int(asyncio.run(function(*arguments)))

    return run
