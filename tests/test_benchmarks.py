"""The benchmark suite runs through, says what it found and leaves nothing; the emit path costs few instructions.

No time is judged here: in the smoke size, on a machine that does other work, figures mean nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as command
from benchmarks import callgrind, needs, published, results, targets
from benchmarks.__main__ import PARTS
from relay_mp._bench.children import BenchmarkError

ROOT = Path(__file__).resolve().parents[1]
RUN_TIMEOUT_SECONDS = 280
MARKER = "RELAY_MP_BENCHMARK_TEST"

MOST_PACKBS = 0.55
"""Of instructions, for a mark with four fields; 0.35 as this was written (2870 to 8200, CPython 3.11, msgpack 1.2)."""


def of_this_run(value):
    """Processes that have the marker in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the suite uses Linux's ways to end and to weigh processes")
def test_the_smoke_size_runs_every_part_and_leaves_nothing(tmp_path):
    segments, output = tmp_path / "segments", tmp_path / "output"
    segments.mkdir()
    environment = {**os.environ, "RELAY_MP_DIRECTORY": str(segments), MARKER: str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", "--output", output],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "it is killed" not in ran.stderr
    found = results.read(output)
    assert list(found["parts"]) == PARTS
    for name, part in found["parts"].items():
        assert part["rows"] or part["skipped"], f"{name} has found nothing, and does not say why"
        assert "failed" not in part
        for row in part["rows"]:
            check_row(row)
    check_comparisons(found)
    assert ran.stdout.count("\n| ") == len(targets.TARGETS) + 2
    assert {"python", "relay_mp", "msgpack"} <= set(found["versions"])
    assert {"processor", "cores", "system"} <= set(found["machine"])
    assert (output / results.FILE).stat().st_size < 200_000
    assert list(segments.iterdir()) == []
    # multiprocessing's forkserver and resource tracker end by themselves, just after who started them.
    deadline = time.monotonic() + 20
    while left := of_this_run(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def check_row(row):
    assert {"group", "side", "unit"} <= set(row)
    if row["unit"] == "ns":
        figures = [row[name] for name in ("median", "p90", "p99", "p999", "p9999", "max") if name in row]
        assert figures == sorted(figures), row
        assert sum(row["bins"]["counts"]) == row["count"] > 0
    else:
        assert row["value"] > 0, row


def check_comparisons(found):
    """The library is in each of them, and its events all arrived."""
    for part in ("emit", "load", "delivered", "exporters"):
        rows = found["parts"][part]["rows"]
        for group in dict.fromkeys(row["group"] for row in rows if not row["group"].startswith("ring occupancy")):
            sides = [row["side"] for row in rows if row["group"] == group]
            assert sides[0] == "relay_mp"
            assert len(sides) == len(set(sides)) > 1
    for row in found["parts"]["load"]["rows"] + found["parts"]["delivered"]["rows"]:
        assert row.get("lost", 0) == 0 or not row["side"].startswith("relay_mp"), row


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind, which counts instructions, is not installed")
def test_a_mark_takes_few_instructions_beside_msgpack():
    counted = callgrind.instructions()
    assert counted["packb"] > 1000, counted
    assert counted["mark"] < MOST_PACKBS * counted["packb"], counted


@pytest.mark.parametrize("page", published.PARTS, ids=lambda page: page.name)
def test_the_docs_show_what_latest_json_holds(page):
    name, part = published.PARTS[page]
    opening, closing = published.markers(name)
    shown = page.read_text(encoding="utf-8").partition(opening)[2].partition(closing)[0]
    assert shown.strip() == part(results.read(results.DIRECTORY))


def test_the_pictures_of_the_docs_are_there():
    text = published.BENCHMARKS_PAGE.read_text(encoding="utf-8")
    for picture in ("latency", "producers"):
        assert f"../../benchmarks/results/{picture}.svg" in text
        assert (results.DIRECTORY / f"{picture}.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_page_is_rewritten_between_its_markers_only(tmp_path):
    file = tmp_path / "page.md"
    opening, closing = published.markers("figures")
    file.write_text(f"before\n{opening}\nold\n{closing}\nafter\n", encoding="utf-8")
    published.update(file, "figures", "new")
    assert file.read_text(encoding="utf-8") == f"before\n{opening}\n\nnew\n\n{closing}\nafter\n"
    file.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="needs"):
        published.update(file, "figures", "new")


# ------------------------------------------------------------------------------------------- its parts


def part_module(name, *, fails):
    def run(part):
        part.add("group", name, unit="bytes", value=1)
        if fails:
            raise BenchmarkError("no receiver")

    module = types.ModuleType(f"benchmarks.{name}")
    module.run = run
    return module


def test_a_part_that_fails_costs_only_itself(tmp_path, monkeypatch, capsys):
    names = ["first", "broken", "last"]
    for name in names:
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", part_module(name, fails=name == "broken"))
    monkeypatch.setattr(command, "PARTS", names)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--output", str(tmp_path), "--update-docs"])
    monkeypatch.setattr(published, "update_all", lambda _found: pytest.fail("figures of a run that failed"))
    assert command.main() == 1
    parts = results.read(tmp_path)["parts"]
    assert {name: part["rows"][0]["side"] for name, part in parts.items()} == {name: name for name in names}
    assert {name: part.get("failed") for name, part in parts.items()} == {
        "first": None, "broken": "BenchmarkError: no receiver", "last": None,
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "failed: broken" in said


def test_what_is_missing_is_said_before_it_is_measured(monkeypatch):
    absent = needs.Need("peer", "its sides", ("emit", "load"), lambda: False)
    monkeypatch.setattr(needs, "NEEDS", [absent, needs.Need("here", "nothing", (), lambda: True)])
    assert list(needs.missing(["emit", "floor"])) == [
        "peer is not installed: left out in emit: its sides; pip install '.[bench]'"
    ]
    assert list(needs.missing(["floor"])) == []


def test_a_target_is_met_missed_or_not_measured():
    def found(nemo):
        rows = [{"group": "mark, 4 fields", "side": "relay_mp", "median": 500.0}, *nemo]
        return json.loads(json.dumps({"parts": {"emit": {"rows": rows}}}))

    def judged(*nemo):
        return targets.verdicts(found(nemo))[0]

    assert judged({"group": "mark, 4 fields", "side": "nemo-relay", "median": 10_000.0}).met is True
    missed = judged({"group": "mark, 4 fields", "side": "nemo-relay", "median": 9_000.0})
    assert missed.met is False
    assert missed.figure == "500 ns, theirs 9 µs: 1/18.0"
    assert judged().met is None
