"""Runs sides in turn: what compares anything with anything, in one run, on one machine.

Each side lives in a process of its own, started by a forkserver, so that none has another's threads, heap or GIL.
Only one has the turn at a time; the others sleep. The order of the turns moves on by one a round, so that
nobody always follows the same neighbour, and a machine that slows down slows all of them.

    interleave(sides, rounds)  ->  {side's name: [what each of its rounds returned]}
"""

import multiprocessing
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from relay_mp._bench.children import END_TIMEOUT_SECONDS, TURN_TIMEOUT_SECONDS, BenchmarkError, Unavailable

WARM_UP_ROUNDS = 1

# Not fork: this process has NumPy's threads. Not spawn: an interpreter a side would take longer than its rounds.
processes = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: as the rows call it.
        open: a module's function, called with `arguments` in the side's process: a context manager that gives the
            function which does one round. Raises Unavailable where this cannot run.
    """

    name: str
    open: Callable[..., AbstractContextManager[Callable[[], Any]]]
    arguments: tuple[Any, ...] = ()


def interleave(
    sides: list[Side],
    rounds: int,
    warm_up: int = WARM_UP_ROUNDS,
    on_turn: Callable[[int, str], object] = lambda _number, _name: None,
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Gives each side a turn a round.

    Args:
        sides: their names differ.
        rounds: that count.
        warm_up: rounds before, whose results are thrown away.
        on_turn: called before each turn with the round's number, below 0 in the warm-up, and the side's name.

    Returns:
        What each available side's rounds returned, without the warm-up's; and why the others are not.

    Raises:
        BenchmarkError: a side raised, or did not answer within `TURN_TIMEOUT_SECONDS`.
    """
    players = [_Player(side) for side in sides]
    try:
        unavailable = {player.side.name: reason for player in players if (reason := player.ready()) is not None}
        playing = [player for player in players if player.side.name not in unavailable]
        results: dict[str, list[Any]] = {player.side.name: [] for player in playing}
        for number in range(warm_up + rounds):
            first = number % max(len(playing), 1)
            for player in playing[first:] + playing[:first]:
                on_turn(number - warm_up, player.side.name)
                result = player.turn()
                if number >= warm_up:
                    results[player.side.name].append(result)
        return results, unavailable
    finally:
        for player in players:
            player.dismiss()
        for player in players:
            player.end()


class _Player:
    """A side's process, seen from the process that gives the turns."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._pipe, its_end = processes.Pipe()
        self._process = processes.Process(target=_play, args=(its_end, side), name=side.name)
        self._process.start()
        its_end.close()

    def _receive(self) -> tuple[str, Any]:
        if not self._pipe.poll(TURN_TIMEOUT_SECONDS):
            raise BenchmarkError(f"{self.side.name} did not answer within {TURN_TIMEOUT_SECONDS} s")
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join(1)
            raise BenchmarkError(f"{self.side.name} ended with {self._process.exitcode}") from None
        if kind == "failed":
            raise BenchmarkError(f"{self.side.name} failed:\n{value}")
        return kind, value

    def ready(self) -> str | None:
        """None when it is; else why it is unavailable."""
        kind, value = self._receive()
        return str(value) if kind == "unavailable" else None

    def turn(self) -> Any:
        self._pipe.send(True)
        return self._receive()[1]

    def dismiss(self) -> None:
        with suppress(OSError):
            self._pipe.send(False)

    def end(self) -> None:
        self._process.join(END_TIMEOUT_SECONDS)
        if self._process.is_alive():
            print(f"  {self.side.name} does not end; it is killed", file=sys.stderr, flush=True)
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process.close()


def _play(pipe: Connection, side: Side) -> None:
    """The side's process. It ends when it is dismissed, or when who gives the turns has gone."""
    try:
        with side.open(*side.arguments) as run_round:
            pipe.send(("ready", None))
            with suppress(EOFError):
                while pipe.recv():
                    pipe.send(("round", run_round()))
    except Unavailable as reason:
        pipe.send(("unavailable", str(reason)))
    except (KeyboardInterrupt, BrokenPipeError):
        return
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
