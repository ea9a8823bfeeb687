"""A run added up by category and name, and two runs compared.

Run ──▶ Summary: totals, a Row for each category and name, the longest roots
Summary, Summary ──▶ Difference: what is in both, in one only, and what has changed
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from relay_mp._runs.calls import Usage
from relay_mp._runs.run import Run, Scope

PERCENTILES = (50, 95, 99)


@dataclass(slots=True)
class Row:
    """The scopes of one category and name. Times are microseconds; an open scope lasts until the run's last event.

    Attributes:
        count: all; `open` and `errors` of them.
        durations_us: sorted.
        self_us: time in which no child was open, added up.
        usage: of LLM calls.
    """

    category: str
    name: str
    count: int = 0
    open: int = 0
    errors: int = 0
    durations_us: list[int] = field(default_factory=list)
    self_us: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def total_us(self) -> int:
        """Of all of them, one after another."""
        return sum(self.durations_us)

    def percentile_us(self, percent: float) -> int:
        """The duration that so many percent of them do not exceed: one of those that are there."""
        return percentile(self.durations_us, percent)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "category": self.category,
            "name": self.name,
            "count": self.count,
            "open": self.open,
            "errors": self.errors,
            **{f"p{percent}_us": self.percentile_us(percent) for percent in PERCENTILES},
            "total_us": self.total_us,
            "self_us": self.self_us,
            **self.usage.to_dict(),
        }


def percentile(ordered: Sequence[int], percent: float) -> int:
    """By nearest rank; 0 of nothing."""
    if not ordered:
        return 0
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


class Summary:
    """A run added up.

    Args:
        run: what is to be added up; it is kept.

    Attributes:
        rows: the one that took the most time of its own first.
        usage: of all LLM calls.
        errors, open: of all scopes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.usage = Usage()
        rows: dict[tuple[str, str], Row] = {}
        for root in run.roots:
            for scope in root.walk():
                key = scope.category, scope.name
                _count(rows.setdefault(key, Row(*key)), scope, run.last_us)
        for row in rows.values():
            row.durations_us.sort()
            self.usage.add(row.usage)
        self.rows = sorted(rows.values(), key=lambda row: (-row.self_us, row.category, row.name))
        self.errors = sum(row.errors for row in self.rows)
        self.open = sum(row.open for row in self.rows)

    def longest_roots(self, limit: int) -> list[Scope]:
        """The runs at the top that took longest."""
        return sorted(self.run.roots, key=lambda root: -root.duration_us(self.run.last_us))[:limit]

    def to_dict(self, longest: int) -> dict[str, Any]:
        """JSON types.

        Args:
            longest: of so many roots the tree is in it.
        """
        run = self.run
        return {
            "events": run.events,
            "marks": run.marks,
            "scopes": len(run.scopes),
            "open": self.open,
            "errors": self.errors,
            "processes": len(run.pids),
            "sessions": list(run.sessions),
            "first_us": run.first_us,
            "last_us": run.last_us,
            "duration_us": run.duration_us,
            "losses": dict(run.losses),
            **self.usage.to_dict(),
            "by_name": [row.to_dict() for row in self.rows],
            "longest": [tree_list(root, run.last_us) for root in self.longest_roots(longest)],
        }


def _count(row: Row, scope: Scope, now_us: int) -> None:
    row.count += 1
    row.open += scope.status == "open"
    row.errors += scope.status == "error"
    row.durations_us.append(scope.duration_us(now_us))
    row.self_us += scope.self_us(now_us)
    if scope.counts_usage:
        row.usage.add(scope.usage)


def scope_dict(scope: Scope, now_us: int) -> dict[str, Any]:
    """A scope in JSON types, without its children."""
    return {
        "uuid": scope.uuid,
        "parent_uuid": scope.parent_uuid,
        "name": scope.name,
        "category": scope.category,
        "pid": scope.pid,
        "thread_id": scope.thread_id,
        "start_us": scope.start_us,
        "end_us": scope.end_us,
        "duration_us": scope.duration_us(now_us),
        "self_us": scope.self_us(now_us),
        "status": scope.status,
        "error": scope.error,
        "model": scope.model,
        "marks": scope.marks,
        **scope.usage.to_dict(),
    }


def with_depths(root: Scope) -> Iterator[tuple[Scope, int]]:
    """A scope and all below it, parents first, each with how many scopes of the tree are around it."""
    depths = {root.uuid: 0}
    for scope in root.walk():
        if scope is not root and scope.parent is not None:
            depths[scope.uuid] = depths[scope.parent.uuid] + 1
        yield scope, depths[scope.uuid]


def tree_list(root: Scope, now_us: int) -> list[dict[str, Any]]:
    """A scope and all below it in JSON types, parents first, each with its `depth`: flat, for agents nest deep."""
    return [{"depth": depth, **scope_dict(scope, now_us)} for scope, depth in with_depths(root)]


@dataclass(slots=True)
class Change:
    """One category and name in two runs; a row of a run that has none is empty."""

    before: Row
    after: Row

    @property
    def self_us(self) -> int:
        """How much more time of its own it took in the second run."""
        return self.after.self_us - self.before.self_us

    @property
    def is_different(self) -> bool:
        """Whether the two differ in anything that is shown."""
        return self.before.to_dict() != self.after.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """JSON types: each run's row; None for one that has none."""
        rows = (row.to_dict() if row.count else None for row in (self.before, self.after))
        return {"category": self.before.category, "name": self.before.name, **dict(zip("ab", rows, strict=True))}


def compared(before: Summary, after: Summary) -> list[Change]:
    """Two runs by category and name; what has changed most comes first."""
    first, second = ({(row.category, row.name): row for row in summary.rows} for summary in (before, after))
    keys = dict.fromkeys([*first, *second])
    changes = [Change(first.get(key, Row(*key)), second.get(key, Row(*key))) for key in keys]
    return sorted(changes, key=lambda change: (-abs(change.self_us), change.before.category, change.before.name))
