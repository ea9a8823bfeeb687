"""The README's part on performance: table, pictures, command, machine and commit, between two markers."""

from pathlib import Path
from typing import Any

from benchmarks.targets import table

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: written by python -m benchmarks --update-readme -->", "<!-- end of benchmarks -->"


def section(results: dict[str, Any]) -> str:
    """What stands between the markers."""
    machine, versions = results["machine"], results["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in {"relay_mp", "compiler"})
    return f"""\
{table(results)}

Measured with `{results["command"]}` at commit {results["commit"]} on {results["date"]}: {machine["processor"]}, \
{machine["cores"]} cores, {machine["system"]}, load average before the run {machine["load_average_before"]}; {peers}. \
All figures: [latest.json](benchmarks/results/latest.json).

![How long an emit call takes: the share of calls that take longer, by peer](benchmarks/results/latency.svg)

![Emit latency against the number of producers, by peer](benchmarks/results/producers.svg)"""


def update(results: dict[str, Any], file: Path = README) -> None:
    """Rewrites the part between the markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{file} needs {BEGIN!r} and then {END!r}, once each")
    file.write_text(f"{before}{BEGIN}\n\n{section(results)}\n\n{END}{after}", encoding="utf-8")
