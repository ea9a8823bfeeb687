"""The figures that the docs show, each between two markers of its page: written by `--update-docs`.

    docs/explanation/benchmarks.md    every target: table, pictures, command, machine and commit
    README.md                         five lines of it

Written from a run's results, which a test compares with what the pages show.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import exporters, results
from benchmarks.delivered import LOOKS
from benchmarks.emit import NOBODY, group
from benchmarks.harness import duration
from benchmarks.payloads import SMALL
from benchmarks.peers import QUEUES
from benchmarks.targets import table, verdicts

ROOT = Path(__file__).parent.parent
BENCHMARKS_PAGE, README = ROOT / "docs" / "explanation" / "benchmarks.md", ROOT / "README.md"


def section(found: dict[str, Any]) -> str:
    """The benchmarks page's part."""
    machine, versions = found["machine"], found["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in {"relay_mp", "compiler"})
    return f"""\
{table(found)}

Measured with `{found["command"]}` at commit {found["commit"]} on {found["date"]}: {machine["processor"]}, \
{machine["cores"]} cores, {machine["system"]}, load average before the run {machine["load_average_before"]}; {peers}. \
All figures: [latest.json](../../benchmarks/results/latest.json).

![How long an emit call takes: the share of calls that take longer, by peer](../../benchmarks/results/latency.svg)

![Emit latency against the number of producers, by peer](../../benchmarks/results/producers.svg)"""


def figures(found: dict[str, Any]) -> str:
    """The README's part: five lines. It needs a whole run, with its peers."""

    def value(figure: str, part: str, group_: str, side: str) -> float:
        row = results.row(found, part, group_, side)
        assert row is not None, f"{side} was not measured in {group_}; run the whole suite with the extra `bench`"
        return float(row[figure])

    mark, eight = group("mark", SMALL), "delivered, 8 producers"
    atof = exporters.group(exporters.ATOF)
    queue = max(value("value", "delivered", eight, queue.name) for queue in QUEUES)
    met = [verdict.met for verdict in verdicts(found)]
    return f"""\
- A mark takes {duration(value("median", "emit", mark, "relay_mp"))} to emit (median; nemo-relay: \
{duration(value("median", "emit", mark, "nemo-relay"))}), and {duration(value("loop", "emit", mark, NOBODY))} while \
nobody subscribes.
- Eight processes deliver {value("value", "delivered", eight, LOOKS):,.0f} events a second to a Python callback that \
reads them (the best of three queues: {queue:,.0f}).
- {value("value", "exporters", atof, exporters.OURS):,.0f} events a second are written as JSON lines (nemo-relay's \
exporter: {value("value", "exporters", atof, exporters.THEIRS):,.0f}).
- After a writer is killed inside an emit, delivery goes on within \
{duration(value("p99", "recovery", "killed writer", "kill to the next delivery"))} (p99).
- {met.count(True)} of {len(met)} targets are met, on {found["machine"]["cores"]} cores. The table has the others too: \
[benchmarks and how to read them](docs/explanation/benchmarks.md)."""


PARTS: dict[Path, tuple[str, Callable[[dict[str, Any]], str]]] = {
    BENCHMARKS_PAGE: ("benchmarks", section),
    README: ("figures", figures),
}
"""A page's part: its name in the markers, and what is written between them."""


def markers(name: str) -> tuple[str, str]:
    """What stands before a part, and what behind it."""
    return f"<!-- {name}: written by python -m benchmarks --update-docs -->", f"<!-- end of {name} -->"


def update(file: Path, name: str, text: str) -> None:
    """Rewrites the part of a file between its markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    opening, closing = markers(name)
    before, begin, rest = file.read_text(encoding="utf-8").partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end or opening in rest or closing in after:
        raise ValueError(f"{file} needs {opening!r} and then {closing!r}, once each")
    file.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}", encoding="utf-8")


def update_all(found: dict[str, Any]) -> list[Path]:
    """Rewrites the part of each page. Returns the pages."""
    for file, (name, part) in PARTS.items():
        update(file, name, part(found))
    return list(PARTS)
