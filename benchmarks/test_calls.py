"""The floor and the emit calls under pytest-benchmark, to compare one commit with another:

    pytest benchmarks --benchmark-only --benchmark-autosave
    pytest benchmarks --benchmark-only --benchmark-compare

Between sides it does not take turns: what is compared with a peer is `python -m benchmarks`.
"""

import contextlib

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import emit, floor
from benchmarks.harness import Turn
from benchmarks.payloads import CALLS_A_ROUND
from relay_mp._bench.sides import Side

ROUNDS = 100
SIDES = {
    **{f"floor: {side.name}": side for side in floor.in_python()},
    **{
        f"{emit.group(verb, payload)}: {side.name}": side
        for verb in emit.VERBS
        for payload in CALLS_A_ROUND
        for side in emit.sides(verb, payload, peers=[])
    },
}


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return SIDES[request.param]


def test_call(benchmark: BenchmarkFixture, side: Side) -> None:
    """Rounds of the side's own number of calls; `settle` runs between the rounds."""
    with contextlib.ExitStack() as stack:
        turn = stack.enter_context(side.open(*side.arguments))
        assert isinstance(turn, Turn)
        loop = turn.loop
        benchmark.extra_info["calls_per_round"] = turn.calls
        benchmark.pedantic(
            loop.run, (turn.calls,), setup=lambda: loop.settle(loop.calls) and None, rounds=ROUNDS, warmup_rounds=2
        )
