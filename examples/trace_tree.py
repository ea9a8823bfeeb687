"""ATOF events -> a tree of scopes and marks -> lines of text. Both examples print traces with it.

A scope's start and end pair by uuid, and a child names its parent's uuid; nothing else is needed,
so a tree can be built from a file as well as from a live subscriber, and the events of several
processes may interleave. ATOF defines no field for the process: an event's own "pid" key is taken
first (a live subscriber can add `event.pid`), then its metadata's, then that of its parent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Node:
    """A scope with its children in stream order, or a mark, which has neither end nor children."""

    uuid: str
    parent_uuid: str | None
    name: str
    category: str
    pid: int | None
    started: datetime
    ended: datetime | None = None
    data: Any = None
    children: list[Node] = field(default_factory=list)

    @property
    def duration_seconds(self) -> float | None:
        return (self.ended - self.started).total_seconds() if self.ended else None

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()


def load(path: str | Path) -> list[dict[str, Any]]:
    """Read an ATOF JSONL file."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def build(events: Iterable[dict[str, Any]]) -> list[Node]:
    """Pair starts with ends and children with parents; what has no known parent is a root."""
    nodes: dict[str, Node] = {}
    for event in events:
        if event.get("scope_category") != "end":
            nodes[event["uuid"]] = _node(event)
        elif node := nodes.get(event["uuid"]):  # none, if the scope was open before the first event
            node.ended = datetime.fromisoformat(event["timestamp"])

    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.parent_uuid or "")
        (parent.children if parent else roots).append(node)
        if node.pid is None and parent:
            node.pid = parent.pid
    return roots


def _node(event: dict[str, Any]) -> Node:
    return Node(
        uuid=event["uuid"],
        parent_uuid=event["parent_uuid"],
        name=event["name"],
        category="mark" if event["kind"] == "mark" else event["category"],
        pid=event.get("pid") or (event["metadata"] or {}).get("pid"),
        started=datetime.fromisoformat(event["timestamp"]),
        data=event["data"],
    )


def render(node: Node, prefix: str = "", branch: str = "") -> Iterator[str]:
    """One line a node: name, category, process, duration; a mark shows its data instead."""
    label = f"{prefix}{branch}{node.name}"
    if node.category == "mark":
        yield f"{label}  {_brief(node.data)}"
        return
    duration = node.duration_seconds
    shown = "never ended" if duration is None else f"{duration * 1000:,.1f} ms"
    yield f"{label:<48} {node.category:<10} pid {node.pid}  {shown:>12}"
    prefix += {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    for child in node.children:
        yield from render(child, prefix, "└─ " if child is node.children[-1] else "├─ ")


def _brief(data: Any) -> str:
    pairs = data.items() if isinstance(data, dict) else ()
    text = ", ".join(f"{key}={value}" for key, value in pairs)
    return text if len(text) <= 72 else f"{text[:71]}…"
