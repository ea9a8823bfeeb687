"""The command: runs the parts, then writes results, pictures, the table and, if asked, the docs' figures.

It first says what is not installed and what is left out for it. It ends with 1 if a part failed.
"""

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import needs, published, results, targets
from benchmarks.harness import Part

PARTS = ["floor", "emit", "load", "delivered", "exporters", "growth", "managed", "recovery", "program"]
SMOKE_SCALE = 0.02


def main() -> int:
    """The exit code."""
    options = _arguments()
    found = results.read(options.output or results.DIRECTORY) if options.render else measure(options)
    print(f"\n{targets.table(found)}\n")
    directory = options.output or (None if options.only or options.smoke else results.DIRECTORY)
    if directory is not None:
        if not options.render:
            print(f"wrote {results.write(found, directory)}")
        draw(found, directory)
    failed = [name for name, part in found["parts"].items() if "failed" in part]
    if failed:
        print(f"failed: {', '.join(failed)}; see above. The other parts are complete.", file=sys.stderr)
        return 1
    if options.update_docs:
        for page in published.update_all(found):
            print(f"wrote {page}")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts that were asked for."""
    found: dict[str, Any] = {**results.environment(_command(options)), "scale": options.scale, "parts": {}}
    began = time.monotonic()
    for line in needs.missing(options.only or PARTS):
        print(line, flush=True)
    for name in options.only or PARTS:
        found["parts"][name] = measure_part(name, options.scale)
    found["seconds"] = round(time.monotonic() - began, 1)
    print(f"{found['seconds']} s in all")
    return found


def measure_part(name: str, scale: float) -> dict[str, Any]:
    """What the part has found; where it failed, what it had found until then, and why, as "failed"."""
    print(name, flush=True)
    part, start, failure = Part(scale), time.monotonic(), {}
    try:
        module: ModuleType = importlib.import_module(f"benchmarks.{name}")
        module.run(part)
    except Exception as error:  # whatever it is, it costs this part and no other
        traceback.print_exc()
        failure = {"failed": f"{type(error).__name__}: {error}"}
    seconds = round(time.monotonic() - start, 1)
    print(f"  {seconds} s", flush=True)
    return {"seconds": seconds, "skipped": part.skipped, **failure, "rows": part.rows}


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
    sys.exit(main())
