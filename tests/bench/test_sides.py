"""Sides take turns, and one that cannot run or fails says so."""

from contextlib import contextmanager

import pytest

from relay_mp._bench.children import BenchmarkError, Unavailable
from relay_mp._bench.sides import Side, interleave


@contextmanager
def writing(file, name):
    """A side that leaves a line each time it has the turn."""
    with open(file, "a", encoding="utf-8") as lines:

        def run_round():
            print(name, file=lines, flush=True)
            return name

        yield run_round


@contextmanager
def unavailable():
    raise Unavailable("not today")
    yield


@contextmanager
def failing():
    yield lambda: 1 / 0


def test_sides_take_turns_and_nobody_is_always_first(tmp_path):
    file = tmp_path / "turns"
    sides = [*(Side(name, writing, (file, name)) for name in "abc"), Side("d", unavailable)]
    found, missing = interleave(sides, rounds=3, warm_up=1)
    assert found == {name: [name] * 3 for name in "abc"}
    assert missing == {"d": "not today"}
    turns = file.read_text(encoding="utf-8").split()
    assert ["".join(turn) for turn in zip(*[iter(turns)] * 3, strict=True)] == ["abc", "bca", "cab", "abc"]


def test_a_side_that_fails_fails_the_run():
    with pytest.raises(BenchmarkError, match="ZeroDivisionError"):
        interleave([Side("broken", failing)], rounds=1)
