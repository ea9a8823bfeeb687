"""The columns: a row a scope or a mark, of all runs that the page shows, in the order in which they began.

    envelope ──▶ Run.take() ──▶ columns ──since(cursor)──▶ Batch: rows that are new, rows that have ended

One thread fills each run, any number of them reads; one lock, held for a batch. A reader keeps a cursor, and is told of
a row when it begins and when it ends: what is sent is the state of the columns, so that a reader that comes late, or
is slow, gets the same rows as one that was there, and nothing is queued for it.

There are at most `limit` rows. Beyond that the oldest quarter goes, except for scopes that are open; rows then have
other numbers, `generation` counts up, and every reader begins anew.
"""

import math
import threading
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from relay_mp.view.envelope import END, MARK, Envelope
from relay_mp.view.payloads import Payloads

__all__ = ["COLUMNS", "MAX_ROWS", "Batch", "Cursor", "Rows", "Run"]

MAX_ROWS = 1_000_000
"""Scopes and marks that are kept; the oldest go beyond that."""

FAILED, NO_START = 1, 2
"""Bits of the column `flags`: the scope failed; its start was not seen."""

COLUMNS = {
    "parent": "i", "track": "I", "name": "I", "kind": "B", "flags": "B", "start": "d", "end": "d", "read": "I",
    "written": "I", "cost": "d",
}  # fmt: skip
"""What the page gets, by the type code of `array`: little-endian on every platform there are wheels for."""
ENDED = ("flags", "end", "read", "written", "cost")
"""What a scope's end changes."""
REFERENCES = {"opened_at": "q", "closed_at": "q"}
"""Where the lines of start and end are, see payloads; -1: there is none."""

_OPEN = math.nan


@dataclass
class Cursor:
    """How far a reader is."""

    generation: int = -1
    rows: int = 0
    changes: int = 0
    names: int = 0
    tracks: int = 0


@dataclass
class Batch:
    """What is new for a reader: columns as bytes.

    Attributes:
        restart: forget everything, rows have other numbers now.
        first: the number of the first new row.
        columns: of new rows, by name.
        ended: numbers of rows that the reader has and that have ended, and their columns.
        names, tracks: new ones; a track is (run, pid, thread).
    """

    generation: int
    restart: bool
    first: int
    columns: dict[str, bytes]
    ended: dict[str, bytes]
    names: list[str]
    tracks: list[tuple[int, int, int]]

    def __bool__(self) -> bool:
        return self.restart or bool(self.columns or self.ended or self.names or self.tracks)


@dataclass
class Run:
    """One file or session among the rows. Its own thread changes it, through `Rows.take`.

    Attributes:
        name: what the page calls it.
        state: "reading", "complete", "live", "ended" or "failed".
        problem: what is wrong, in words; empty: nothing.
        progress: of a file, the part that is read.
        events: how many were taken.
        lost: events that marks say were lost in the session.
        missed: events that the viewer was too slow for.
        unreadable: lines that hold no event.
        dropped: rows that were given up for `limit`.
    """

    number: int
    name: str
    payloads: Payloads
    state: str = "reading"
    problem: str = ""
    progress: float = 0.0
    events: int = 0
    lost: int = 0
    missed: int = 0
    unreadable: int = 0
    dropped: int = 0
    ids: dict[bytes, int] = field(default_factory=dict, repr=False)

    def status(self) -> dict[str, Any]:
        """What the page says about it."""
        shown = ("name", "state", "problem", "progress", "events", "lost", "missed", "unreadable", "dropped")
        return {name: getattr(self, name) for name in shown} | {"given_up": getattr(self.payloads, "given_up", 0)}


class Rows:
    """All rows.

    Args:
        limit: how many are kept, at least 4.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        if limit < 4:
            raise ValueError(f"limit is {limit}; expected at least 4 rows")
        self.limit = limit
        self.lock = threading.Lock()
        self.runs: list[Run] = []
        self.generation = 0
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in (COLUMNS | REFERENCES).items()}
        self._run_of_row = array("B")
        self._names: dict[bytes, int] = {}
        self._name_list: list[str] = []
        self._tracks: dict[tuple[int, int, int], int] = {}
        self._changed = array("I")

    def __len__(self) -> int:
        return len(self._run_of_row)

    def add_run(self, name: str, payloads: Payloads) -> Run:
        """One more file or session."""
        run = Run(len(self.runs), name, payloads)
        self.runs.append(run)
        return run

    def take(self, run: Run, envelopes: Iterable[tuple[Envelope, int]]) -> None:
        """Events of a run in their order, each with the reference of its line."""
        with self.lock:
            for event, reference in envelopes:
                run.events += 1
                if event.phase == END:
                    self._end(run, event, reference)
                else:
                    self._begin(run, event, reference, event.time_us if event.phase == MARK else _OPEN)
                    run.lost += event.lost
            if len(self) > self.limit:
                self._shrink()

    def _begin(self, run: Run, event: Envelope, reference: int, end: float) -> int:
        row = len(self._run_of_row)
        parent = run.ids.get(event.parent, -1) if event.parent is not None else -1
        run.ids[event.uuid] = row
        name = self._names.get(event.name)
        if name is None:
            name = self._names[event.name] = len(self._name_list)
            self._name_list.append(event.name.decode("utf-8", "replace"))
        pid, thread = event.pid, event.thread_id
        track = self._tracks.setdefault((run.number, pid, thread), len(self._tracks))
        if not pid and parent >= 0:
            track = self.columns["track"][parent]
        values = (
            parent, track, name, event.kind, FAILED if event.is_error else 0, event.time_us, end, event.read_tokens,
            event.written_tokens, event.cost, reference, -1,
        )  # fmt: skip
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)
        self._run_of_row.append(run.number)
        return row

    def _end(self, run: Run, event: Envelope, reference: int) -> None:
        columns = self.columns
        row = run.ids.get(event.uuid)
        if row is None:
            row = self._begin(run, event, -1, event.time_us)
            columns["flags"][row] |= NO_START
        elif columns["end"][row] == columns["end"][row]:
            return  # it has ended: a line that was delivered again
        columns["end"][row] = event.time_us
        columns["flags"][row] |= FAILED if event.is_error else 0
        columns["read"][row], columns["written"][row] = event.read_tokens, event.written_tokens
        columns["cost"][row] = event.cost
        columns["closed_at"][row] = reference
        self._changed.append(row)

    def _shrink(self) -> None:
        """Gives up the oldest quarter, but for open scopes."""
        cut = len(self) - self.limit * 3 // 4
        end = self.columns["end"]
        kept = [row for row in range(cut) if end[row] != end[row]]
        for row in range(cut):
            self.runs[self._run_of_row[row]].dropped += end[row] == end[row]
        moved = {old: new for new, old in enumerate(kept)}
        by = cut - len(kept)
        for name, column in self.columns.items():
            self.columns[name] = array(column.typecode, [column[row] for row in kept]) + column[cut:]
        runs = self._run_of_row
        self._run_of_row = array("B", [runs[row] for row in kept]) + runs[cut:]
        self.columns["parent"] = array("i", [moved.get(p, p - by if p >= cut else -1) for p in self.columns["parent"]])
        for run in self.runs:
            run.ids = {u: moved.get(row, row - by) for u, row in run.ids.items() if row >= cut or row in moved}
        self._changed = array("I")
        self.generation += 1

    def since(self, cursor: Cursor, limit: int) -> Batch:
        """What is new after `cursor`, up to `limit` rows; moves the cursor there."""
        with self.lock:
            restart = cursor.generation != self.generation
            if restart:
                cursor.generation, cursor.rows, cursor.changes = self.generation, 0, len(self._changed)
                cursor.names = cursor.tracks = 0
            first, last = cursor.rows, min(len(self), cursor.rows + limit)
            until = min(len(self._changed), cursor.changes + limit)
            columns = {name: self.columns[name][first:last].tobytes() for name in COLUMNS} if last > first else {}
            batch = Batch(
                self.generation, restart, first, columns, self._ended(self._changed[cursor.changes : until], first),
                self._name_list[cursor.names :], list(self._tracks)[cursor.tracks :],
            )  # fmt: skip
            cursor.rows, cursor.changes = last, until
            cursor.names, cursor.tracks = len(self._name_list), len(self._tracks)
            return batch

    def _ended(self, changed: "array[int]", sent: int) -> dict[str, bytes]:
        rows = array("I", sorted({row for row in changed if row < sent}))
        if not rows:
            return {}
        columns = ((name, self.columns[name]) for name in ENDED)
        found = {name: array(column.typecode, [column[row] for row in rows]).tobytes() for name, column in columns}
        return {"row": rows.tobytes(), **found}

    def lines(self, row: int) -> tuple[Run, int, int]:
        """The run of a row, and the references of its lines.

        Raises:
            IndexError: there is no such row.
        """
        with self.lock:
            if not 0 <= row < len(self):
                raise IndexError(f"there is no row {row}; there are {len(self)}")
            return self.runs[self._run_of_row[row]], self.columns["opened_at"][row], self.columns["closed_at"][row]

    def find(self, uuid: str) -> int | None:
        """The row of a scope or mark; of several runs, the first."""
        key = uuid.encode()
        with self.lock:
            return next((run.ids[key] for run in self.runs if key in run.ids), None)

    def close(self) -> None:
        """Gives up what the runs have open."""
        for run in self.runs:
            run.payloads.close()
