"""What is going on in a session: its open scopes, and what each process and each open agent has used so far.

    events of a watch ──▶ Live.add ──▶ LiveScope (until it ends), LiveProcess (while the session lives)

Memory is bounded by what is open, not by what has been. What was before the watch is known of open scopes only.
"""

from dataclasses import dataclass, field

from relay_mp._runs.calls import Usage, usage_of_call
from relay_mp._runs.reading import recorded
from relay_mp._runs.run import LLM, error_of
from relay_mp.events import Event, ScopeEvent

MAX_OPEN_SCOPES = 100_000
"""Scopes that are kept until they end; the oldest are forgotten beyond that."""

AGENT = "agent"


@dataclass(slots=True, eq=False)
class LiveScope:
    """An open scope. Of an LLM call, `start` is kept, to be read together with its end.

    `errors` and `usage` are those of all scopes inside that have ended.
    """

    uuid: str
    name: str
    category: str
    pid: int
    start_us: int
    parent: "LiveScope | None"
    start: Event | None
    errors: int = 0
    usage: Usage = field(default_factory=Usage)

    def around(self) -> "list[LiveScope]":
        """This scope, and those around it that are known, the innermost first."""
        found: list[LiveScope] = []
        scope: LiveScope | None = self
        while scope is not None:
            found.append(scope)
            scope = scope.parent
        return found


@dataclass(slots=True)
class LiveProcess:
    """A process of the session: its open scopes by UUID in the order of their starts, and what has ended in it."""

    pid: int
    open: dict[str, LiveScope] = field(default_factory=dict)
    errors: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def current(self) -> LiveScope | None:
        """The open scope that was started last."""
        return next(reversed(self.open.values()), None)


class Live:
    """See the module.

    Attributes:
        open: the open scopes by UUID, in the order of their starts.
        processes: by pid.
        last_us: the time of the newest event.
    """

    def __init__(self) -> None:
        self.open: dict[str, LiveScope] = {}
        self.processes: dict[int, LiveProcess] = {}
        self.last_us = 0

    def add(self, event: Event) -> None:
        """One more event."""
        self.last_us = max(self.last_us, event.timestamp_us)
        if not isinstance(event, ScopeEvent):
            return
        if event.scope_category == "start":
            self._begin(event)
        else:
            self._end(event)

    def process(self, pid: int) -> LiveProcess:
        """That process, also where nothing of it has come yet."""
        return self.processes.setdefault(pid, LiveProcess(pid))

    def agents(self) -> list[LiveScope]:
        """The open agents, the oldest first."""
        return [scope for scope in self.open.values() if scope.category == AGENT]

    def innermost(self, agent: LiveScope) -> LiveScope:
        """The scope inside an agent that was started last; the agent itself, where it has none."""
        return next((scope for scope in reversed(self.open.values()) if agent in scope.around()), agent)

    def _begin(self, event: ScopeEvent) -> None:
        uuid, category = event.uuid, event.category
        kept = event if category == LLM else None
        parent = self.open.get(event.parent_uuid or "")
        scope = LiveScope(uuid, event.name, category, event.pid, event.timestamp_us, parent, kept)
        self.open[uuid] = self.process(event.pid).open[uuid] = scope
        if len(self.open) > MAX_OPEN_SCOPES:
            self._forget(next(iter(self.open.values())))

    def _forget(self, scope: LiveScope) -> None:
        self.open.pop(scope.uuid, None)
        self.process(scope.pid).open.pop(scope.uuid, None)

    def _end(self, event: ScopeEvent) -> None:
        scope = self.open.get(event.uuid)
        failed = error_of(event.metadata) is not None
        usage = Usage()
        if event.category == LLM and not (scope is not None and scope.usage):  # else an inner call has told
            start = scope.start if scope is not None else None
            usage, _ = usage_of_call(None if start is None else recorded(start), recorded(event))
        for counts in [self.process(event.pid), *(scope.around() if scope is not None else ())]:
            counts.errors += failed
            if usage:
                counts.usage.add(usage)
        if scope is not None:
            self._forget(scope)
