"""The command: runs the parts, then writes results, pictures, the table and, if asked, the docs' figures."""

import argparse
import importlib
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import published, results, targets
from benchmarks.harness import Part

PARTS = ["floor", "emit", "load", "delivered", "exporters", "growth", "managed", "recovery", "program"]
SMOKE_SCALE = 0.02


def main() -> None:
    options = _arguments()
    found = results.read(options.output or results.DIRECTORY) if options.render else measure(options)
    print(f"\n{targets.table(found)}\n")
    directory = options.output or (None if options.only or options.smoke else results.DIRECTORY)
    if directory is not None:
        if not options.render:
            print(f"wrote {results.write(found, directory)}")
        draw(found, directory)
    if options.update_docs:
        for page in published.update_all(found):
            print(f"wrote {page}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts that were asked for."""
    found: dict[str, Any] = {**results.environment(_command(options)), "scale": options.scale, "parts": {}}
    began = time.monotonic()
    for name in options.only or PARTS:
        print(name, flush=True)
        module: ModuleType = importlib.import_module(f"benchmarks.{name}")
        part, start = Part(options.scale), time.monotonic()
        module.run(part)
        seconds = round(time.monotonic() - start, 1)
        print(f"  {seconds} s", flush=True)
        found["parts"][name] = {"seconds": seconds, "skipped": part.skipped, "rows": part.rows}
    found["seconds"] = round(time.monotonic() - began, 1)
    print(f"{found['seconds']} s in all")
    return found


def _command(options: argparse.Namespace) -> str:
    """What gives the same figures; where they were written to is nobody's business."""
    only = [f"--only {name}" for name in options.only or []]
    scale = [] if options.scale == 1 else ["--smoke" if options.smoke else f"--scale {options.scale:g}"]
    return " ".join(["python -m benchmarks", *only, *scale])


def draw(found: dict[str, Any], directory: Path) -> None:
    try:
        pictures = importlib.import_module("benchmarks.pictures")
    except ImportError as error:
        print(f"no pictures: {error}; they need matplotlib, of the extra `bench`")
        return
    for file in pictures.draw(found, directory):
        print(f"wrote {file}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--smoke", action="store_true", help="every part, as small as it can be")
    parser.add_argument("--scale", type=float, help="how many rounds and events; 1 is the real run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: benchmarks/results, for a whole run")
    parser.add_argument("--update-docs", action="store_true", help="write the figures of the docs and the README")
    parser.add_argument("--render", action="store_true", help="measure nothing: pictures and docs from latest.json")
    options = parser.parse_args()
    if options.scale is None:
        options.scale = SMOKE_SCALE if options.smoke else 1.0
    if options.update_docs and (options.only or options.smoke):
        parser.error("--update-docs needs a whole run: without --only and --smoke")
    if not 0 < options.scale <= 10:
        parser.error(f"--scale is {options.scale}; expected more than 0, at most 10")
    return options


if __name__ == "__main__":
    main()
