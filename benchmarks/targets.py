"""The targets, from a run's rows: what was aimed at, what was measured, whether it was met.

Every factor is stated so that more is worse: ours over theirs for times, theirs over ours for rates. Where the target
leaves open what counts as reaching it, the row says how it is read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import exporters
from benchmarks import results as run_results
from benchmarks.delivered import LOOKS, LOOKS_NOT, UNPACKB
from benchmarks.emit import EMPTY_CALL, NOBODY, PACKB, group
from benchmarks.harness import duration
from benchmarks.load import FLAT_OUT, PACED
from benchmarks.payloads import SMALL
from benchmarks.peers import QUEUES
from relay_mp._bench.peers import FLOOR

FLAT_WITHIN = 1.25
MEMCPYS = 4.0
"""What "at memcpy speed" is read as: a payload is copied into the record, checksummed, and copied into the ring. The
memcpy it is measured by goes into the next place of shared memory as large as the ring, which no cache holds; the
figure of one that stays within the caches stands beside it."""
SLOPE_BYTES = ("16,384", "262,144")


@dataclass(frozen=True)
class Verdict:
    """One line of the table; `met` is None where something to compare with was not there."""

    what: str
    target: str
    figure: str
    met: bool | None


class _Missing(Exception):
    """A row that a target needs was not measured."""


class _Run:
    def __init__(self, results: dict[str, Any]) -> None:
        self._results = results

    def value(self, figure: str, part: str, group_: str, side: str) -> float:
        found = run_results.row(self._results, part, group_, side)
        if found is None or figure not in found:
            raise _Missing(f"{side} was not measured")
        return float(found[figure])


def _times(run: _Run, figure: str, ours: tuple[str, str, str], theirs: tuple[str, str, str], most: float) -> Any:
    """Ours over theirs, at most `most`."""
    mine, other = run.value(figure, *ours), run.value(figure, *theirs)
    ratio = mine / max(other, 1.0)
    return f"{duration(mine)}, theirs {duration(other)}: {_fraction(ratio)}", ratio <= most


def _fraction(ratio: float) -> str:
    return f"1/{1 / ratio:.1f}" if ratio < 0.5 else f"{ratio:.2f}x"


MARK, SCOPE = group("mark", SMALL), group("with scope", SMALL)


def _mark_nemo(run: _Run) -> Any:
    return _times(run, "median", ("emit", MARK, "relay_mp"), ("emit", MARK, "nemo-relay"), 1 / 20)


def _mark_packb(run: _Run) -> Any:
    return _times(run, "median", ("emit", MARK, "relay_mp"), ("emit", MARK, PACKB), 0.5)


def _p99(mode: str) -> Callable[[_Run], Any]:
    eight, one = f"{mode}, 8 producers", f"{mode}, 1 producers"
    return lambda run: _times(run, "p99", ("load", eight, "relay_mp"), ("load", one, "nemo-relay"), 1 / 20)


def _p99_paced(run: _Run) -> Any:
    figure, met = _p99(PACED)(run)
    try:
        floor = run.value("p99", "load", f"{PACED}, 8 producers", FLOOR.name)
    except _Missing:
        return figure, met
    return f"{figure}; `msgpack.packb` alone in their place {duration(floor)}", met


def _scope(run: _Run) -> Any:
    return _times(run, "median", ("emit", SCOPE, "relay_mp"), ("emit", SCOPE, "nemo-relay"), 1 / 20)


def _nobody(run: _Run) -> Any:
    return _times(run, "loop", ("emit", MARK, NOBODY), ("emit", MARK, EMPTY_CALL), 3.0)


def _delivered_queues(side: str) -> Callable[[_Run], Any]:
    def judge(run: _Run) -> Any:
        ratios = []
        for producers in (2, 8):
            named = f"delivered, {producers} producers"
            best = max(run.value("value", "delivered", named, queue.name) for queue in QUEUES)
            ratios.append(run.value("value", "delivered", named, side) / best)
        return " and ".join(f"{ratio:.1f}x" for ratio in ratios), min(ratios) >= 4

    return judge


def _delivered_unpackb(side: str) -> Callable[[_Run], Any]:
    def judge(run: _Run) -> Any:
        groups = [f"delivered, {producers} producers" for producers in (2, 8)]
        rates = [run.value("value", "delivered", named, side) for named in groups]
        ratios = [
            rate / run.value("value", "delivered", named, UNPACKB) for rate, named in zip(rates, groups, strict=True)
        ]
        shown = " and ".join(f"{ratio:.2f}x ({rate:,.0f}/s)" for ratio, rate in zip(ratios, rates, strict=True))
        return shown, min(ratios) >= 0.8

    return judge


def _exported(format_name: str, least: float) -> Callable[[_Run], Any]:
    """Our rates over theirs: `ratio` is the median of the rounds' own ratios, as the sides take turns. Judged by the
    better dispatcher: which one that is depends on the format, and whoever exports chooses it."""

    def judge(run: _Run) -> Any:
        place = ("exporters", exporters.group(format_name))
        theirs, base = run.value("value", *place, exporters.THEIRS), run.value("ratio", *place, exporters.THEIRS)
        shown, factors = [], []
        for who, where in ((exporters.OURS, "thread"), (exporters.OURS_IN_PROCESS, "process")):
            factors.append(run.value("ratio", *place, who) / base)
            shown.append(f"dispatcher {where} {run.value('value', *place, who):,.0f}/s: {factors[-1]:.2f}x")
        return f"{', '.join(shown)}; theirs {theirs:,.0f}/s", max(factors) >= least

    return judge


def _recovery(run: _Run) -> Any:
    p99 = run.value("p99", "recovery", "killed writer", "kill to the next delivery")
    return duration(p99), p99 < 50e6


def _undelayed(run: _Run) -> Any:
    behind = run.value("p99", "recovery", "killed writer", "emit calls behind the dead claim")
    recovery = run.value("median", "recovery", "killed writer", "kill to the next delivery")
    return f"p99 {duration(behind)}, recovery's median {duration(recovery)}", behind < recovery / 10


def _flat(curve: str, least: str, most: str) -> Callable[[_Run], Any]:
    named = f"growth, {curve}"

    def judge(run: _Run) -> Any:
        ratio = run.value("median", "growth", named, most) / run.value("median", "growth", named, least)
        return f"{ratio:.2f}x", ratio <= FLAT_WITHIN

    return judge


def _occupancy(run: _Run) -> Any:
    named = "ring occupancy, 1 producers"
    ratio = run.value("median", "load", named, "half full") / run.value("median", "load", named, "nearly empty")
    return f"{ratio:.2f}x", ratio <= FLAT_WITHIN


def _linear(run: _Run) -> Any:
    small, large = SLOPE_BYTES
    size = int(large.replace(",", "")) - int(small.replace(",", ""))

    def slope(named: str) -> float:
        return (run.value("median", "growth", named, large) - run.value("median", "growth", named, small)) / size

    ours = slope("growth, payload, bytes")
    copy, cached = slope("growth, memcpy into shared memory, bytes"), slope("growth, memcpy, bytes")
    copies = f"memcpy into a ring of shared memory {1 / copy:.1f} GB/s, within the caches {1 / cached:.1f} GB/s"
    return f"{1 / ours:.1f} GB/s, {copies}: {ours / copy:.1f} times as long", ours / copy <= MEMCPYS


def _import(run: _Run) -> Any:
    ours, theirs = (("growth", "import", f"import {name}") for name in ("relay_mp", "nemo_relay"))
    return _times(run, "median", ours, theirs, 1.0)


def _managed(verb: str) -> Callable[[_Run], Any]:
    named = f"managed, {verb}"
    return lambda run: _times(run, "median", ("managed", named, "relay_mp"), ("managed", named, "nemo-relay"), 0.1)


_QUEUE_TARGET = "at least 4x the best of multiprocessing.Queue, SimpleQueue, faster-fifo"
_UNPACKB_TARGET = "at least 0.8x a bare `msgpack.unpackb` loop"
_FLAT_TARGET = f"flat (read as: within {FLAT_WITHIN}x)"
TARGETS: list[tuple[str, str, Callable[[_Run], Any]]] = [
    ("mark, median", "at most 1/20 of nemo-relay's", _mark_nemo),
    ("mark, median", "at most half of `msgpack.packb` of the record", _mark_packb),
    ("mark, p99, 8 producers, paced", "at most 1/20 of nemo-relay's with one process", _p99_paced),
    ("mark, p99, 8 producers, flat out", "at most 1/20 of nemo-relay's with one process", _p99(FLAT_OUT)),
    ("`with scope(...)`, median", "at most 1/20 of nemo-relay's", _scope),
    ("mark, nobody subscribed", "at most 3x an empty Python function call", _nobody),
    ("delivered, 2 and 8 producers, callback reads the payload", _QUEUE_TARGET, _delivered_queues(LOOKS)),
    ("the same", _UNPACKB_TARGET, _delivered_unpackb(LOOKS)),
    ("delivered, 2 and 8 producers, callback does not", _QUEUE_TARGET, _delivered_queues(LOOKS_NOT)),
    ("the same", _UNPACKB_TARGET, _delivered_unpackb(LOOKS_NOT)),
    ("written as ATOF JSONL", "at least 10x nemo-relay's own file exporter", _exported(exporters.ATOF, 10)),
    ("written as ATIF", "at least 5x nemo-relay's own exporter", _exported(exporters.ATIF, 5)),
    ("posted as OTLP over HTTP", "at least 5x nemo-relay's own exporter", _exported(exporters.OTLP, 5)),
    ("recovery from a killed writer, p99", "under 50 ms", _recovery),
    ("emit behind a killed writer", "not delayed (read as: under a tenth of the recovery)", _undelayed),
    ("emit, stack depth 1000 against 1", _FLAT_TARGET, _flat("stack depth", "1", "1,000")),
    ("emit, 64 attached processes against 1", _FLAT_TARGET, _flat("attached processes", "1", "64")),
    ("emit, ring half full against nearly empty", _FLAT_TARGET, _occupancy),
    ("emit, payload 16 to 256 KiB", f"linear at memcpy speed (read as: at most {MEMCPYS:.0f} copies)", _linear),
    ("`import relay_mp`", "no more than `import nemo_relay`", _import),
    ("`await tools.execute(...)`, no middleware", "at most 1/10 of nemo-relay's", _managed("tools.execute")),
    ("`await llm.execute(...)`, no middleware", "at most 1/10 of nemo-relay's", _managed("llm.execute")),
]


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Each target's."""
    run, found = _Run(results), []
    for what, target, judge in TARGETS:
        try:
            figure, met = judge(run)
        except _Missing as missing:
            figure, met = str(missing), None
        found.append(Verdict(what, target, figure, met))
    return found


def table(results: dict[str, Any]) -> str:
    """The verdicts in Markdown."""
    said = {True: "met", False: "**missed**", None: "not measured"}
    lines = ["| what | target | measured | |", "| --- | --- | --- | --- |"]
    lines += [f"| {each.what} | {each.target} | {each.figure} | {said[each.met]} |" for each in verdicts(results)]
    return "\n".join(lines)
