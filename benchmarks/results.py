"""What a run found, on what machine, with which versions: benchmarks/results/latest.json."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relay_mp._bench.machine import machine, versions

HERE = Path(__file__).parent
DIRECTORY = HERE / "results"
FILE = "latest.json"
PACKAGES = [
    "relay_mp", "nemo-relay", "faster-fifo", "opentelemetry-sdk", "msgpack", "numpy", "Cython",
]  # fmt: skip


def environment(command: str) -> dict[str, Any]:
    """Machine, versions, commit: what the figures are figures of."""
    return {
        "command": command,
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if _git("status", "--porcelain", "-uno") else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(PACKAGES),
    }


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else "unknown"


def write(results: dict[str, Any], directory: Path) -> Path:
    """As JSON with a row a line, so that two runs can be compared by diff."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = ",\n".join(f"{json.dumps(name)}: {_part(part)}" for name, part in results["parts"].items())
    rest = {name: value for name, value in results.items() if name != "parts"}
    text = json.dumps(rest, indent=1, ensure_ascii=False)[:-2] + f',\n "parts": {{\n{parts}\n}}}}\n'
    file = directory / FILE
    file.write_text(text, encoding="utf-8")
    return file


def _part(part: dict[str, Any]) -> str:
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in part["rows"])
    rest = {name: value for name, value in part.items() if name != "rows"}
    return f'{json.dumps(rest, ensure_ascii=False)[:-1]}, "rows": [\n{rows}\n]}}'


def read(directory: Path) -> dict[str, Any]:
    """What `write` wrote."""
    results: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    return results


def row(results: dict[str, Any], part: str, group: str, side: str) -> dict[str, Any] | None:
    """The row of that side of that group; None if it was not measured."""
    for found in results["parts"].get(part, {}).get("rows", []):
        if found["group"] == group and found["side"] == side:
            return dict(found)
    return None
