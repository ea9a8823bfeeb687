"""The cost in a real program: examples/worker_pool.py with and without the library, whole run, time and CPU.

Without: its scopes and marks are made no-ops and its pool the standard library's, in the same code. Silent: the library
is there, and nobody listens. Listened to: a session, the example's progress subscriber, and the ATOF file.
"""

import concurrent.futures
import contextlib
import importlib
import io
import resource
import sys
import sysconfig
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import relay_mp
from benchmarks.harness import Part
from relay_mp._bench.children import child, received
from relay_mp._bench.sides import Side

EXAMPLES = Path(__file__).parent.parent / "examples"
ROUNDS = 3
QUESTIONS = 12
WORKERS = 2
SMOKE_MODULES = ["argparse", "queue", "shutil", "textwrap"]
MODES = {"without the library": "without", "nobody subscribed": "silent", "subscriber and ATOF file": "heard"}


@contextmanager
def running(mode: str, questions: int, modules: list[str] | None) -> Iterator[Callable[[], tuple[float, float, int]]]:
    """A side: one run of the example a round, in a process of its own: wall and CPU seconds, and events.

    Args:
        modules: of the standard library, which the example is to read; None: all of it.
    """

    def run_round() -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as library:
            for name in modules or []:
                Path(library, f"{name}.py").symlink_to(Path(sysconfig.get_path("stdlib"), f"{name}.py"))
            return _received_from(mode, questions, Path(library) if modules else None)

    yield run_round


def _received_from(mode: str, questions: int, library: Path | None) -> tuple[float, float, int]:
    with child(_run_once, mode, questions, library) as pipe:
        result: tuple[float, float, int] = received(pipe)
    return result


def _run_once(pipe: Any, mode: str, number: int, library: Path | None) -> None:
    sys.path.insert(0, str(EXAMPLES))
    example = importlib.import_module("worker_pool")
    read_corpus = example.stdlib_search.read_corpus
    example.stdlib_search.read_corpus = lambda: read_corpus(library)
    lines = (EXAMPLES / "questions.txt").read_text(encoding="utf-8").splitlines()
    questions = [line for line in lines if line.strip() and not line.startswith("#")][:number]
    start, cpu = time.perf_counter(), _cpu_seconds()
    with contextlib.redirect_stdout(io.StringIO()):
        events = {"without": _without, "silent": _silent, "heard": _heard}[mode](example, questions)
    pipe.send((time.perf_counter() - start, _cpu_seconds() - cpu, events))


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    own, waited = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + waited.ru_utime + waited.ru_stime


def _without(example: Any, questions: list[str]) -> int:
    example.pools = concurrent.futures
    example.scope = types.SimpleNamespace(event=lambda *_arguments, **_keywords: None)
    example.step = lambda *_arguments, **_keywords: contextlib.nullcontext()
    example.run(questions, WORKERS, "fork")
    return 0


def _silent(example: Any, questions: list[str]) -> int:
    example.run(questions, WORKERS, "fork")
    return 0


def _heard(example: Any, questions: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="relay-mp-bench-") as directory, relay_mp.session() as session:
        relay_mp.subscribers.register("progress", example.show_progress)
        config = relay_mp.AtofExporterConfig()
        config.output_directory = directory
        exporter = relay_mp.AtofExporter(config)
        exporter.register("file")
        example.run(questions, WORKERS, "fork")
        exporter.shutdown()
        return session.stats().emitted


def run(part: Part) -> None:
    questions = part.scaled(QUESTIONS, 1)
    modules = SMOKE_MODULES if part.is_smoke else None
    sides = [Side(title, running, (mode, questions, modules)) for title, mode in MODES.items()]
    results = part.rounds(sides, part.scaled(ROUNDS), warm_up=0)
    group = "examples/worker_pool.py"
    print(f"  {group}, {questions} questions, {WORKERS} workers")
    base = np.array(results["without the library"])
    for side, turns in results.items():
        wall, cpu, events = np.median(np.array(turns), axis=0)
        ratios = np.median(np.array(turns)[:, :2] / base[:, :2], axis=0)
        row = part.add(
            group, side, unit="s", value=round(float(wall), 3), cpu_seconds=round(float(cpu), 3), events=int(events),
            ratio=round(float(ratios[0]), 3), cpu_ratio=round(float(ratios[1]), 3),
        )  # fmt: skip
        print(
            f"    {side:<44} {wall:6.2f} s, ratio {row['ratio']:.3f}   CPU {cpu:6.2f} s, ratio {row['cpu_ratio']:.3f}"
            f"   {int(events)} events",
            flush=True,
        )
