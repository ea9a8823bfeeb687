"""What an emit costs, beside its floor: an empty call, the clock, and msgpack of the same record.

    tox -e bench        or: pytest benchmarks --benchmark-only

All in one run and one process, so that the ratios hold on a noisy machine; see `Median` and `Max`.
"""

import os
import time
from collections.abc import Iterator

import msgpack
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import relay_mp
from relay_mp import scope

FIELDS = {"step": 1, "name": "abc", "score": 0.5, "ok": True}
ROUND_EVENTS = 200
"""Fewer than fill the ring: a round measures emitting, not waiting for the subscriber."""


def _ignore(_event: relay_mp.Event) -> None:
    return None


@pytest.fixture
def listening() -> Iterator[None]:
    """A session with one live Python subscriber, in a thread of this process."""
    with relay_mp.session():
        relay_mp.subscribers.register("benchmark", _ignore)
        yield


def _measure(benchmark: BenchmarkFixture, function: object, flush: bool = False) -> None:
    benchmark.group = "emit"
    setup = (lambda: relay_mp.subscribers.flush() and None) if flush else None
    benchmark.pedantic(_repeat(function), setup=setup, rounds=200, warmup_rounds=5)
    benchmark.extra_info["calls_per_round"] = ROUND_EVENTS


def _repeat(function: object) -> object:
    def repeated(call: object = function) -> None:
        for _ in range(ROUND_EVENTS):
            call()  # type: ignore[operator]

    return repeated


def test_floor_empty_call(benchmark: BenchmarkFixture) -> None:
    _measure(benchmark, lambda: None)


def test_floor_clock(benchmark: BenchmarkFixture) -> None:
    _measure(benchmark, time.time_ns)


def test_floor_packb_of_the_record(benchmark: BenchmarkFixture) -> None:
    uuid = os.urandom(16)
    record = [2, uuid, uuid, time.time_ns() // 1000, "planning", None, 0, 1, None, FIELDS, None, None, None]
    _measure(benchmark, lambda: msgpack.packb(record))


def test_mark_with_nobody_subscribed(benchmark: BenchmarkFixture) -> None:
    _measure(benchmark, lambda: scope.event("planning", data=FIELDS))


@pytest.mark.usefixtures("listening")
def test_mark(benchmark: BenchmarkFixture) -> None:
    _measure(benchmark, lambda: scope.event("planning", data=FIELDS), flush=True)


@pytest.mark.usefixtures("listening")
def test_with_scope(benchmark: BenchmarkFixture) -> None:
    def enter_and_exit() -> None:
        with scope.scope("step", relay_mp.ScopeType.Function):
            pass

    _measure(benchmark, enter_and_exit, flush=True)
