"""`relay-mp top [SESSION]`: a session as it is now: a row a process, a row an open agent, and its ring.

    watch ──▶ events ──▶ Live ──┐
          └─▶ counts ───────────┴──▶ Picture ──▶ lines (here), keys and screen (screen.py), or JSON

Events and losses are the session's own counts, which nothing here can miss. Scopes, errors, tokens and costs are of
what has come since the command began, and of the scopes that were open then.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay_mp._runs.live import Live, LiveProcess, LiveScope
from relay_mp._session.seen import SessionInfo
from relay_mp._session.stats import ProcessStats, Stats
from relay_mp._session.watch import Watch, watch
from relay_mp.cli.exits import Exit
from relay_mp.cli.ls import DIRECTORY_HELP, command_of, short_id
from relay_mp.cli.screen import Screen
from relay_mp.cli.table import Cell, Column, table
from relay_mp.cli.tail import SESSION_HELP
from relay_mp.cli.terminal import Terminal, plain
from relay_mp.cli.units import count, duration, money, plural, size

EXAMPLE = "relay-mp top --once"

SORTS = ("rate", "events", "lost", "errors", "tokens", "cost", "open", "pid")

KEYS = "q quit  p pause  s sort  r reverse  / filter"


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("session", nargs="?", metavar="SESSION", help=SESSION_HELP)
    parser.add_argument("--sort", choices=SORTS, default="rate", help="what rows are sorted by (default: rate)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="rows in which the text is")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="between two pictures (default: 1)")
    parser.add_argument("--once", action="store_true", help="one picture after an interval; so it is in a pipe")
    parser.add_argument("--directory", metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument("--json", action="store_true", help="each picture as a JSON object, a line each")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Shows the session, until it ends or `q`."""
    view = View(arguments.sort, arguments.filter)
    with watch(arguments.session, directory=arguments.directory) as watching:
        pictures = _pictures(watching, arguments.interval)
        if arguments.json or arguments.once or not terminal.is_live:
            for picture in pictures:
                _print(picture, view, terminal, arguments.json)
                if arguments.once or not arguments.json:
                    return Exit.DONE
        else:
            with Screen(terminal) as screen:
                _interact(watching, arguments.interval, view, screen, terminal)
        if watching.why_ended:
            terminal.note(watching.why_ended)
    return Exit.DONE


# ----------------------------------------------------------------------------------------------- pictures


@dataclass
class View:
    """How rows are chosen and ordered."""

    sort: str = "rate"
    filter: str = ""
    is_reversed: bool = False
    is_paused: bool = False
    is_typing: bool = False

    def key(self, key: str) -> bool:
        """A key was pressed. Returns whether it means the end."""
        if self.is_typing:
            self._type(key)
        elif key in ("q", "\x03", ""):
            return True
        elif key == "p":
            self.is_paused = not self.is_paused
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "r":
            self.is_reversed = not self.is_reversed
        elif key == "/":
            self.is_typing, self.filter = True, ""
        return False

    def _type(self, key: str) -> None:
        if key in ("\r", "\n", "\x1b"):
            self.is_typing = False
            self.filter = "" if key == "\x1b" else self.filter
        elif key in ("\x7f", "\b"):
            self.filter = self.filter[:-1]
        elif key.isprintable():
            self.filter += key


@dataclass
class Row:
    """A process, or an open agent: what is shown of it, and sorted by."""

    name: str
    pid: int
    rate: float = 0.0
    events: int = 0
    lost: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    scope: str = ""
    open_us: int = 0
    errors: int = 0
    tokens: int = 0
    costs: dict[str, float] = field(default_factory=dict)

    def sort_key(self, name: str) -> float:
        """Its value for one of SORTS."""
        values = {"open": self.open_us, "cost": sum(self.costs.values()), "pid": -self.pid}
        return float(values[name] if name in values else getattr(self, name))


@dataclass
class Picture:
    """A session at one moment."""

    info: SessionInfo
    stats: Stats
    rate: float
    missed: int
    processes: list[Row]
    agents: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "session": self.info.id,
            "state": self.info.state,
            "owner_pid": self.info.owner_pid,
            "events": self.stats.emitted,
            "events_per_second": round(self.rate, 1),
            "lost": self.stats.lost,
            "causes": self.stats.causes,
            "ring_bytes": self.stats.ring_bytes,
            "ring_used_bytes": self.stats.ring_used_bytes,
            "missed": self.missed,
            "processes": [vars(row) for row in self.processes],
            "agents": [vars(row) for row in self.agents],
        }


class Observer:
    """Keeps what is needed from one picture to the next."""

    def __init__(self, watching: Watch) -> None:
        self._watching = watching
        self._live = Live()
        self._emitted: dict[int, int] = {}
        self._total, self._at = 0, 0.0

    def read(self, seconds: float) -> bool:
        """Takes what comes within that time. Returns whether there is no more to come."""
        deadline = time.monotonic() + seconds
        while True:
            batch = self._watching.read(max(deadline - time.monotonic(), 0.0))
            for event in batch.events:
                self._live.add(event)
            if batch.ended or time.monotonic() >= deadline:
                return batch.ended

    def picture(self) -> Picture:
        """The session now; rates are since the last picture."""
        stats, now = self._watching.stats(), time.monotonic()
        seconds = now - self._at
        is_first = not self._at
        rate = 0.0 if is_first else (stats.emitted - self._total) / seconds
        rows = [self._process(each, 0.0 if is_first else seconds) for each in stats.processes if each.pid]
        self._emitted = {each.pid: each.emitted for each in stats.processes}
        self._total, self._at = stats.emitted, now
        now_us = max(int(time.time() * 1e6), self._live.last_us)
        for row in rows:
            _add_scope(row, self._live.process(row.pid), now_us)
        rows = [row for row in rows if row.events or row.scope]  # those that only watch have a slot, too
        agents = [self._agent(agent, now_us) for agent in self._live.agents()]
        return Picture(self._watching.session, stats, rate, self._watching.missed, rows, agents)

    def _process(self, stats: ProcessStats, seconds: float) -> Row:
        before = self._emitted.get(stats.pid, 0)
        rate = (stats.emitted - before) / seconds if seconds else 0.0
        return Row(f"process {stats.pid}", stats.pid, rate, stats.emitted, stats.lost, dict(stats.causes))

    def _agent(self, agent: LiveScope, now_us: int) -> Row:
        inner = self._live.innermost(agent)
        path = " > ".join(scope.name for scope in reversed(inner.around()[: inner.around().index(agent)]))
        usage = agent.usage
        return Row(
            agent.name,
            agent.pid,
            scope=path,
            open_us=now_us - agent.start_us,
            errors=agent.errors,
            tokens=usage.input_tokens + usage.output_tokens,
            costs=dict(usage.costs),
        )


def _add_scope(row: Row, process: LiveProcess, now_us: int) -> None:
    current = process.current
    if current is not None:
        row.scope, row.open_us = current.name, now_us - current.start_us
    row.errors, row.costs = process.errors, dict(process.usage.costs)
    row.tokens = process.usage.input_tokens + process.usage.output_tokens


def _pictures(watching: Watch, interval: float) -> Iterator[Picture]:
    observer = Observer(watching)
    observer.read(0.0)
    observer.picture()
    has_ended = False
    while not has_ended:
        has_ended = observer.read(interval)
        yield observer.picture()


# -------------------------------------------------------------------------------------------------- lines


def _print(picture: Picture, view: View, terminal: Terminal, as_json: bool) -> None:
    if as_json:
        terminal.print(json.dumps(picture.to_dict()))
    else:
        for line in lines(picture, view, terminal):
            terminal.print(line)
    terminal.out.flush()


def lines(picture: Picture, view: View, terminal: Terminal) -> list[str]:
    """The picture as text."""
    processes = chosen(picture.processes, view)
    agents = chosen(picture.agents, view)
    shown = [*_head(picture, terminal), ""]
    shown += table(terminal, _PROCESS_COLUMNS, [_process_cells(row) for row in processes])
    if picture.agents:
        shown += ["", *table(terminal, _AGENT_COLUMNS, [_agent_cells(row) for row in agents])]
    return shown


def chosen(rows: list[Row], view: View) -> list[Row]:
    """Those in which the text is, in order."""
    text = view.filter.casefold()
    found = [row for row in rows if text in f"{row.name} {row.scope}".casefold()]
    return sorted(found, key=lambda row: row.sort_key(view.sort), reverse=not view.is_reversed)


def _head(picture: Picture, terminal: Terminal) -> Iterator[str]:
    info, stats = picture.info, picture.stats
    age = duration((time.time() - info.started.timestamp()) * 1e6) if info.started else ""
    yield "  ".join([terminal.style(short_id(info), "bold"), info.state, age, command_of(info)])
    used = stats.ring_used_bytes / stats.ring_bytes if stats.ring_bytes else 0.0
    ring = f"ring {used:.0%} of {size(stats.ring_bytes)}".replace("%", " %")
    parts = [
        plural(stats.emitted, "event"),
        f"{count(picture.rate)}/s",
        ring,
        plural(len(picture.processes), "process", "processes"),
    ]
    if stats.lost:
        causes = ", ".join(f"{cause} {count(lost)}" for cause, lost in stats.causes.items())
        parts.append(terminal.style(f"{count(stats.lost)} lost ({causes})", "red"))
    if picture.missed:
        parts.append(terminal.style(f"{count(picture.missed)} missed here", "yellow"))
    yield " · ".join(parts)


_PROCESS_COLUMNS = [
    Column("pid", style=("bold",)),
    Column("events/s"),
    Column("events"),
    Column("lost", style=("red",)),
    Column("open for"),
    Column("errors", style=("red",)),
    Column("tokens"),
    Column("cost"),
    Column("current scope", is_text=True),
]


def _process_cells(row: Row) -> list[str | Cell]:
    causes = ", ".join(f"{cause} {count(lost)}" for cause, lost in row.causes.items())
    return [
        str(row.pid),
        count(row.rate),
        count(row.events),
        causes,
        duration(row.open_us) if row.scope else "",
        count(row.errors) if row.errors else "",
        count(row.tokens) if row.tokens else "",
        money(row.costs),
        plain(row.scope) or "-",
    ]


_AGENT_COLUMNS = [
    Column("agent", is_text=True, style=("bold",)),
    Column("pid"),
    Column("open for"),
    Column("errors", style=("red",)),
    Column("tokens"),
    Column("cost"),
    Column("now in", is_text=True),
]


def _agent_cells(row: Row) -> list[str | Cell]:
    return [
        plain(row.name),
        str(row.pid),
        duration(row.open_us),
        count(row.errors) if row.errors else "",
        count(row.tokens) if row.tokens else "",
        money(row.costs),
        plain(row.scope),
    ]


# ------------------------------------------------------------------------------------------------- screen


def _interact(watching: Watch, interval: float, view: View, screen: Screen, terminal: Terminal) -> None:
    """Pictures in place of one another, until the session ends or a key says so. Reading goes on while it is paused."""
    observer = Observer(watching)
    picture = observer.picture()
    deadline = time.monotonic()
    has_ended = False
    while not has_ended:
        if time.monotonic() >= deadline:
            deadline = time.monotonic() + interval
            picture = picture if view.is_paused else observer.picture()
            screen.show(lines(picture, view, terminal), _status(view))
        has_ended = observer.read(min(max(deadline - time.monotonic(), 0.0), screen.LOOK_SECONDS))
        for key in screen.pressed():
            if view.key(key):
                return
            screen.show(lines(picture, view, terminal), _status(view))


def _status(view: View) -> str:
    said = [f"sorted by {view.sort}{' (reversed)' if view.is_reversed else ''}"]
    if view.is_typing:
        said = [f"filter: {view.filter}_  Enter keeps it, Esc ends it"]
    elif view.filter:
        said.append(f"filter: {view.filter}")
    if view.is_paused:
        said.append("PAUSED")
    return f"{KEYS}   {'  '.join(said)}"
