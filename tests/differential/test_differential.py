"""The same random programs against the peer and against this library: equal streams, outcomes and calls.

The peer, `nemo-relay`, and this library run in interpreters of their own, the same driver in both. What is
different on purpose:

| what | here | why |
| --- | --- | --- |
| texts of errors, `otel.status_description` | its own | the peer's sentences are its own |
| exceptions of callbacks and middleware | pass as they are | the peer wraps them, anew at each level |
| metadata after an exception | `exception.*` of blocks and calls; `error.type` is the class | the peer: of calls |
| what runs inside a managed call | its child | the peer: its sibling |
| what cannot be recorded | replaced; here in strict mode, and no body returns it | the peer fails the call |
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
| scope end from another context, more payload types, times | see the guide to moving | not part of these programs |

Then the same programs with their work in a worker process, against one process: no difference, in all families, for
middleware that the owner has registered by name, globally or on its scopes. What cannot be done there, asserted below:

| what | in a worker | why |
| --- | --- | --- |
| registering on a scope that another process has pushed | ScopeError: it is done there | that one ends the scope |
| registering in the middle of a call | holds for that worker and its forks, nowhere else | the owner alone shares |
| state of a callback | each process has its own | it is made from its name where it is called |
"""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import callbacks
import driver
import programs
import pytest

from relay_mp import ScopeType, guardrails, pools, scope

HERE = Path(__file__).parent
CI_PROGRAMS = 100
LONG_PROGRAMS = 2000
START_METHODS = ["fork", "spawn", "forkserver"]
WORKER_PROGRAMS = {"bodies": 20, "calls": 30}
"""Run with each start method, in one pool each, by what runs in the pool; see driver.py."""
LONG_WORKER_PROGRAMS = 300


def run(package: str, batch: list, *arguments: str) -> list:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "RELAY_MP_STRICT": "1"}
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
    [(programs.FULL, 1), (0, CI_PROGRAMS)]
    + [pytest.param(start, 500, marks=pytest.mark.long) for start in range(1000, 1000 + LONG_PROGRAMS, 500)],
)
def test_programs_run_as_they_do_in_the_peer(first: int, count: int) -> None:
    seeds = list(range(first, first + count))
    batch = [programs.program(seed) for seed in seeds]
    compare(seeds, batch, run("nemo_relay", batch), run("relay_mp", batch))


@pytest.fixture(scope="module")
def in_one_process() -> dict[int, list]:
    """What the first so many programs do, by how many; run once for all start methods."""
    return {}


def compare_with_workers(count: int, start_method: str, what: str, in_one_process: dict[int, list]) -> list:
    seeds = [programs.FULL, *range(count)]
    batch = [programs.program(seed) for seed in seeds]
    if count not in in_one_process:
        in_one_process[count] = run("relay_mp", batch)
    found = run("relay_mp", batch, start_method, what)
    compare(seeds, batch, in_one_process[count], found)
    return found


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("what", WORKER_PROGRAMS)
def test_programs_run_the_same_in_workers(start_method: str, what: str, in_one_process: dict[int, list]) -> None:
    found = compare_with_workers(WORKER_PROGRAMS[what], start_method, what, in_one_process)
    if what == "calls":
        assert {family for result in found for family in result["called_in_worker"]} == set(driver.FAMILIES)


@pytest.mark.long
@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("what", WORKER_PROGRAMS)
def test_many_programs_run_the_same_in_workers(start_method: str, what: str, in_one_process: dict[int, list]) -> None:
    compare_with_workers(LONG_WORKER_PROGRAMS, start_method, what, in_one_process)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_what_a_worker_registers_in_a_call_is_its_own(session, seen, start_method: str) -> None:
    spec = {"package": "relay_mp", "family": "mark_sanitize", "name": "shared", "behaviour": "same"}
    guardrails.register_mark_sanitize("shared", 2, "callbacks:named", arguments=spec)
    context = multiprocessing.get_context(start_method)
    try:
        with pools.ProcessPoolExecutor(1, mp_context=context) as pool, scope.scope("s", ScopeType.Agent) as handle:
            refused, calls = pool.submit(driver.register_in_a_call, handle).result()
            assert callbacks.drain() == {}  # the state is the worker's
            scope.event("m", data="the owner's")
    finally:
        guardrails.deregister_mark_sanitize("shared")
    session.flush()
    assert [event.data for event in seen if event.name == "m"] == ["by the worker", "the owner's"]
    assert refused == "ScopeError"
    assert calls == {"mark_sanitize": [["shared", "m", "by the worker"]]}
    assert callbacks.drain() == {"mark_sanitize": [["shared", "m", "the owner's"]]}
