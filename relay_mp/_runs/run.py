"""The model of a run: its scopes, each with its parent, times, emitter, state, tokens and costs.

    run = Run.of(Recording(["events.jsonl"]))
    for root in run.roots: ...

Events may come in any order: what ends before it has started, as where two files are given the wrong way round, is one
scope all the same. A scope whose end is not there is open; it lasts until the run's last event. A scope whose start is
not there, as where old files were removed, begins with its end.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

from relay_mp._runs.calls import Usage, usage_of_call
from relay_mp._runs.reading import RecordedEvent

Status: TypeAlias = Literal["open", "ok", "error"]

LOSS_MARK = "relay_mp.loss"
LLM = "llm"


class Scope:
    """A scope of a recorded run.

    Attributes:
        uuid, parent_uuid, name, category, pid, thread_id, seq, session: as its first event has them.
        start_us: None where the start is not in the file.
        end_us: None while it is open.
        status: "open", "ok", or "error" where its end says so.
        error: the exception's type and message, or what the end says in their place; None without an error.
        model: of an LLM call, the model that answered.
        usage: of an LLM call; empty where its events do not say.
        parent: the scope around it, where the file has that.
        children: in the order of their starts.
        marks: how many marks stand directly under it.
    """

    __slots__ = (
        "category", "children", "end_us", "error", "marks", "model", "name", "parent", "parent_uuid", "pid", "seq",
        "session", "start_us", "status", "thread_id", "usage", "uuid", "waiting",
    )  # fmt: skip

    def __init__(self, event: RecordedEvent) -> None:
        self.uuid = event.uuid
        self.parent_uuid = event.parent_uuid
        self.name = event.name
        self.category = event.category or "unknown"
        self.pid = event.pid
        self.thread_id = event.thread_id
        self.seq = event.seq
        self.session = event.session
        self.start_us: int | None = None
        self.end_us: int | None = None
        self.status: Status = "open"
        self.error: str | None = None
        self.model: str | None = None
        self.usage = NO_USAGE
        self.parent: Scope | None = None
        self.children: list[Scope] = []
        self.marks = 0
        self.waiting: RecordedEvent | None = None
        """Of an LLM call, whichever event came first, until the other does: the two are read together."""

    def add(self, event: RecordedEvent) -> None:
        """Its start, or its end."""
        if event.kind == "start":
            self.start_us, self.parent_uuid = event.timestamp_us, event.parent_uuid
            self.pid, self.thread_id, self.seq = event.pid, event.thread_id, event.seq
        else:
            self.end_us = event.timestamp_us
            self.error = error_of(event.fields.get("metadata"))
            self.status = "ok" if self.error is None else "error"
        if self.category == LLM:
            self._add_call(event)

    def _add_call(self, event: RecordedEvent) -> None:
        other, self.waiting = self.waiting, event
        start, end = (event, other) if event.kind == "start" else (other, event)
        if end is not None:
            self.usage, self.model = usage_of_call(start, end)
        if start is not None and end is not None:
            self.waiting = None

    def duration_us(self, now_us: int) -> int:
        """How long it lasted; while it is open, until `now_us`."""
        return max(self._ends(now_us) - self._begins(now_us), 0)

    def self_us(self, now_us: int) -> int:
        """Of that, how long no child of it was open: children that run at the same time count once."""
        begins, ends = self._begins(now_us), self._ends(now_us)
        covered, until = 0, begins
        for start, end in sorted((child._begins(now_us), child._ends(now_us)) for child in self.children):
            start, end = max(start, until), min(end, ends)  # noqa: PLW2901 - clipped to what is not covered yet
            if end > start:
                covered += end - start
                until = end
        return max(ends - begins - covered, 0)

    def _begins(self, now_us: int) -> int:
        return self.start_us if self.start_us is not None else self._ends(now_us)

    def _ends(self, now_us: int) -> int:
        return self.end_us if self.end_us is not None else now_us

    def walk(self) -> Iterator["Scope"]:
        """This scope and all below it, parents first. Not by recursion: agents nest deep."""
        waiting = [self]
        while waiting:
            scope = waiting.pop()
            yield scope
            waiting.extend(reversed(scope.children))

    def total_usage(self) -> Usage:
        """Tokens and costs of all LLM calls in it. Of nested LLM scopes, which describe one call, the inner counts."""
        total = Usage()
        for scope in self.walk():
            if scope.counts_usage:
                total.add(scope.usage)
        return total

    @property
    def counts_usage(self) -> bool:
        """Whether its usage is its own, and not that of an LLM scope inside it."""
        return bool(self.usage) and not any(inner.usage for child in self.children for inner in child.walk())


NO_USAGE = Usage()
"""What all scopes have that are not LLM calls; it is never added to."""


class Run:
    """What files, or a session so far, tell.

    Attributes:
        scopes: by UUID, in the order in which they were first seen.
        events, marks: how many there were.
        losses: events that are not there, by cause, as the stream's own marks say.
        pids: of the processes that emitted; those of marks too.
        sessions: the ids of the sessions, in order.
        first_us, last_us: times of the first and of the last event; 0 of an empty run.
    """

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.events = self.marks = 0
        self.losses: Counter[str] = Counter()
        self.pids: set[int] = set()
        self.sessions: dict[str, None] = {}
        self.first_us = self.last_us = 0
        self._marks_of: Counter[str] = Counter()
        self._roots: list[Scope] | None = None

    @classmethod
    def of(cls, events: Iterable[RecordedEvent]) -> "Run":
        """The run of these events. Cyclic garbage is not collected meanwhile: there is none, and much to go through."""
        run, was_on = cls(), gc.isenabled()
        gc.disable()
        try:
            for event in events:
                run.add(event)
        finally:
            if was_on:
                gc.enable()
        return run

    def add(self, event: RecordedEvent) -> None:
        """One more event."""
        self._roots = None
        self.events += 1
        self.first_us = min(self.first_us or event.timestamp_us, event.timestamp_us)
        self.last_us = max(self.last_us, event.timestamp_us)
        if event.pid:
            self.pids.add(event.pid)
        if event.session is not None:
            self.sessions.setdefault(event.session)
        if event.kind == "mark":
            self._add_mark(event)
            return
        scope = self.scopes.get(event.uuid)
        if scope is None:
            scope = self.scopes[event.uuid] = Scope(event)
        scope.add(event)

    def _add_mark(self, event: RecordedEvent) -> None:
        self.marks += 1
        if event.parent_uuid is not None:
            self._marks_of[event.parent_uuid] += 1
        data = event.fields.get("data")
        if event.name == LOSS_MARK and isinstance(data, dict) and isinstance(data.get("causes"), dict):
            self.losses.update({cause: lost for cause, lost in data["causes"].items() if isinstance(lost, int)})

    @property
    def roots(self) -> list[Scope]:
        """The scopes that stand under no other one of the run, in the order of their starts."""
        if self._roots is None:
            self._roots = self._linked()
        return self._roots

    def _linked(self) -> list[Scope]:
        """Gives every scope its parent, its children and its marks."""
        ordered = sorted(self.scopes.values(), key=lambda scope: scope._begins(self.last_us))
        for scope in ordered:
            scope.children, scope.marks = [], self._marks_of[scope.uuid]
        roots = []
        for scope in ordered:
            scope.parent = self.scopes.get(scope.parent_uuid or "")
            if scope.parent is None or scope.parent is scope:
                scope.parent = None
                roots.append(scope)
            else:
                scope.parent.children.append(scope)
        return roots + _roots_of_circles(ordered, roots)

    @property
    def duration_us(self) -> int:
        """From the first event to the last."""
        return self.last_us - self.first_us

    @property
    def lost(self) -> int:
        """Events that are not there."""
        return sum(self.losses.values())


def _roots_of_circles(ordered: list[Scope], roots: list[Scope]) -> list[Scope]:
    """Of scopes that stand under each other in a circle, as a damaged file may say, the first of each: cut from its
    parent, so that none of them is left out."""
    reached = {scope.uuid for root in roots for scope in root.walk()}
    found = []
    for scope in ordered:
        if scope.uuid not in reached and scope.parent is not None:
            scope.parent.children.remove(scope)
            scope.parent = None
            reached.update(inner.uuid for inner in scope.walk())
            found.append(scope)
    return found


def error_of(metadata: Any) -> str | None:
    """What the metadata of an end says of an error, in one line; None if it says of none."""
    if not isinstance(metadata, dict):
        return None
    kind, message = metadata.get("exception.type") or metadata.get("error.type"), metadata.get("exception.message")
    if metadata.get("otel.status_code") != "ERROR" and not kind:
        return None
    said = ": ".join(str(part) for part in (kind, message) if part)
    return " ".join((said or str(metadata.get("otel.status_description") or "error")).split())
