"""The same random programs against the peer and against this library: equal streams, outcomes and calls.

The peer, `nemo-relay`, and this library run in interpreters of their own, the same driver in both. What is
different on purpose:

| what | here | why |
| --- | --- | --- |
| texts of errors, `otel.status_description` | its own, beside type and cause | the peer's sentences are its own |
| exceptions of callbacks | `CallbackError`, once, with `__cause__` | the peer wraps anew at each level, no cause |
| a callback that raises CancelledError itself | is cancelled | asyncio's rule; the peer raises RuntimeError |
| `execute()` | a coroutine, which runs when it is awaited | Python's rule; the peer begins at once, in a Future |
| streams | read as the consumer reads | the peer reads ahead, and marks chunks that nobody took |
| a provider or intercept whose stream is none | fails `stream_execute` | the peer fails at the first chunk |
| values that a call passes on | as they are, where no middleware is | the peer copies them through JSON |
| injectors of one priority, several levels | by level, then name, as all families | the peer: this family by name |
| registering on a scope after a body opened one within an execution intercept | holds | the peer loses it |
| headers `x-dynamo-*` | not added | they name the agent's scopes to one vendor's scheduler |
| credential headers that a sanitizer puts back | taken out again | they must not enter shared memory |
| a pending mark with a severity and metadata that is no dict | emitted, without it | the peer loses the mark |
| events that event middleware emits | before the event it looked at | it runs where that one is emitted |
| what is no callable | TypeError at registration | the peer finds out at the first call |
| scope end from another context, more payload types, times | see the README | not part of these programs |
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest

HERE = Path(__file__).parent
CI_PROGRAMS = 100
LONG_PROGRAMS = 2000
WORKER_PROGRAMS = 20
"""Run with each start method, in one pool each."""


def run(package: str, batch: list, *arguments: str) -> list:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(HERE / "driver.py"), package, *arguments]
    done = subprocess.run(
        command, input=json.dumps(batch), capture_output=True, text=True, timeout=250, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results: list = json.loads(done.stdout)
    return results


def compare(seeds: list[int], batch: list, theirs: list, ours: list) -> None:
    for seed, program, expected, found in zip(seeds, batch, theirs, ours, strict=True):
        for part in ("outcomes", "events", "log"):
            assert found[part] == expected[part], f"program {seed}, {part}: {json.dumps(program)}"


@pytest.mark.parametrize(
    ("first", "count"),
    [(0, CI_PROGRAMS)]
    + [pytest.param(start, 500, marks=pytest.mark.long) for start in range(1000, 1000 + LONG_PROGRAMS, 500)],
)
def test_programs_run_as_they_do_in_the_peer(first: int, count: int) -> None:
    seeds = list(range(first, first + count))
    batch = [programs.program(seed) for seed in seeds]
    compare(seeds, batch, run("nemo_relay", batch), run("relay_mp", batch))


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_programs_run_the_same_with_their_bodies_in_workers(start_method: str) -> None:
    seeds = list(range(WORKER_PROGRAMS))
    batch = [programs.program(seed, bodies_in_workers=True) for seed in seeds]
    compare(seeds, batch, run("relay_mp", batch), run("relay_mp", batch, start_method))
