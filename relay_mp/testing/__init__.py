"""What tests of programs that emit events need: to see the events, of child processes too, and to judge them.

    def test_my_agent(relay_events):            # a pytest fixture, there once relay_mp is installed
        run_my_agent_in_a_pool()
        relay_events.assert_balanced()
        assert [node.name for node in relay_events.tree()] == ["run"]

The functions take any events: the fixture itself, those of a subscriber of one's own, or read from JSON
lines as dicts. Run where the test runs; the fixture's session is the process's own, so that tests in
parallel processes (pytest-xdist) do not see each other's events.

The program under test may begin a session of its own: `with relay_mp.session():` joins the fixture's, and closing it
flushes and removes what the program has registered. If there is a session already, such as the default one that an
earlier test's program has started, the fixture listens to that one, from then on.

The fixture is strict: what cannot be recorded is a PayloadError, which the test sees. With
`@pytest.mark.relay_mp(strict=False)` it is as in production, where such a value is replaced.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_mp import subscribers
from relay_mp._session.flush import FlushResult
from relay_mp._session.session import Session
from relay_mp._session.stats import Stats
from relay_mp.events import Event, ScopeEvent

SUBSCRIBER = "relay_events"
"""The name under which the fixture listens."""

__all__ = ["Node", "RelayEvents", "assert_balanced", "assert_no_loss", "tree"]


@dataclass(slots=True)
class Node:
    """A scope, or a mark, in a tree of events.

    `start` and `end` are events; a mark has its event in `start`, a scope that did not end no `end`.
    """

    name: str
    start: Any
    end: Any = None
    children: list["Node"] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """scope or mark."""
        return str(_of(self.start, "kind"))

    def find(self, name: str) -> "Node | None":
        """The first node of that name, in the order of the stream, this one included."""
        return next((node for node in self.walk() if node.name == name), None)

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


def _of(event: Any, name: str) -> Any:
    return event.get(name) if isinstance(event, dict) else getattr(event, name, None)


def tree(events: Iterable[Any]) -> list[Node]:
    """The forest that the events make by their parents, in the order of the stream.

    A scope or mark whose parent has no start among the events stands at the top.
    """
    roots: list[Node] = []
    nodes: dict[str, Node] = {}
    for event in events:
        uuid = _of(event, "uuid")
        if _of(event, "scope_category") == "end":
            if uuid in nodes:
                nodes[uuid].end = event
            continue
        node = nodes[uuid] = Node(_of(event, "name"), event)
        parent = nodes.get(_of(event, "parent_uuid"))
        (roots if parent is None else parent.children).append(node)
    return roots


def assert_balanced(events: Iterable[Any]) -> None:
    """Fails unless every scope has one start and, after it, one end."""
    started: dict[str, str] = {}
    open_: dict[str, str] = {}
    for event in events:
        if _of(event, "kind") != "scope":
            continue
        uuid, name = _of(event, "uuid"), _of(event, "name")
        if _of(event, "scope_category") == "start":
            assert uuid not in started, f"scope {name!r} ({uuid}) started twice"
            started[uuid] = open_[uuid] = name
        else:
            assert uuid in started, f"scope {name!r} ({uuid}) ended without a start"
            assert open_.pop(uuid, None) is not None, f"scope {name!r} ({uuid}) ended twice"
    assert not open_, f"scopes without an end: {', '.join(sorted(open_.values()))}"


def assert_no_loss(found: Session | Stats | FlushResult) -> None:
    """Fails, naming the causes, if events were lost, or emitted and not delivered.

    Args:
        found: a session, its `stats()`, or what a `flush()` returned.
    """
    result = found.stats() if isinstance(found, Session) else found
    assert not result.lost, f"{result.lost} events were lost: {result.causes}"
    if isinstance(result, Stats):
        assert not result.pending, f"{result.pending} events were not delivered; flush before"


class RelayEvents:
    """What the fixture `relay_events` gives: the test's session, and the events in it. An iterable of them.

    Looking at the events flushes first, so that they are all there.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seen: list[Event] = []
        subscribers.register(SUBSCRIBER, self._seen.append)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    @property
    def events(self) -> list[Event]:
        """All events so far, of all processes, in the order of the stream."""
        self.session.flush()
        return list(self._seen)

    def marks(self, name: str | None = None) -> list[Event]:
        """The marks so far, or those of a name."""
        return [event for event in self.events if event.kind == "mark" and name in (None, event.name)]

    def scopes(self, name: str | None = None) -> list[ScopeEvent]:
        """The scopes that have started so far, or those of a name, by their start events."""
        return [
            event
            for event in self.events
            if isinstance(event, ScopeEvent) and event.scope_category == "start" and name in (None, event.name)
        ]

    def tree(self, events: Iterable[Any] | None = None) -> list[Node]:
        """The events so far, or those given, as a forest, see `tree`."""
        return tree(self.events if events is None else events)

    def assert_balanced(self, events: Iterable[Any] | None = None) -> None:
        """Of the events so far, or those given, see `assert_balanced`."""
        assert_balanced(self.events if events is None else events)

    def assert_no_loss(self, found: Session | Stats | FlushResult | None = None) -> None:
        """Of the test's session, or what is given, see `assert_no_loss`."""
        if found is None:
            self.session.flush()
        assert_no_loss(found or self.session)
