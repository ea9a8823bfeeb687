"""`relay-mp tail [SESSION]`: a session's events as they come, a line each, until it ends or Ctrl-C.

First come the scopes that are open, with their true starts. Where this program is too slow, events are missed by it
alone, and a line says how many, at their place.
"""

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from relay_mp._records.json_line import event_line
from relay_mp._runs.live import Live
from relay_mp._runs.run import error_of
from relay_mp._session.watch import MISSED_MARK, WATCH_MARK, Watch, watch
from relay_mp.cli import filters
from relay_mp.cli.exits import Exit
from relay_mp.cli.ls import DIRECTORY_HELP
from relay_mp.cli.terminal import Terminal, plain, shortened
from relay_mp.cli.units import duration, plural
from relay_mp.events import Event, MarkEvent, ScopeEvent

EXAMPLE = "relay-mp tail --name 'search*' --count 10"

SESSION_HELP = "the beginning of an id as `ls` shows it, its owner's pid, or a path; default: the only one there is"

LOOK_SECONDS = 0.5
"""How long it waits for events before it looks whether it is to end."""

MAX_PAYLOAD_CHARACTERS = 200
"""Of a payload that is shown in a line."""

_MARK, _START, _END = "*", ">", "<"
_LEVEL_STYLES = {"warn": ("yellow",), "error": ("red",), "debug": ("dim",), "trace": ("dim",)}


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("session", nargs="?", metavar="SESSION", help=SESSION_HELP)
    filters.add_arguments(parser)
    parser.add_argument("--tree", action="store_true", help="indent what is inside a scope")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many events")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long")
    parser.add_argument("--directory", metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument("--json", action="store_true", help="ATOF lines, as relay_mp.AtofExporter writes them")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Shows events, until there is an end."""
    shown = filters.matching(arguments)
    lines = _Lines(terminal, arguments.tree)
    left = arguments.count
    with watch(arguments.session, directory=arguments.directory) as watching:
        session = watching.session.id.encode()
        for event in _events(watching, terminal, arguments.seconds):
            line = lines.of(event)
            if event.name == WATCH_MARK or not (event.name == MISSED_MARK or shown(event)):
                continue
            terminal.out.write(event_line(event, session).decode("utf-8", "replace") if arguments.json else f"{line}\n")
            left = None if left is None else left - 1
            if left == 0:
                return Exit.DONE
        if watching.why_ended:
            terminal.note(watching.why_ended)
    return Exit.DONE


def _events(watching: Watch, terminal: Terminal, seconds: float | None) -> Iterator[Event]:
    """Events, until the session or the time ends. What was written is shown before it is waited for more."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for batch in watching.batches(LOOK_SECONDS):
        yield from batch.events
        terminal.out.flush()
        if deadline is not None and time.monotonic() >= deadline:
            return


class _Lines:
    """Lines of events: their time, their process, what they are."""

    def __init__(self, terminal: Terminal, is_tree: bool) -> None:
        self._terminal = terminal
        self._is_tree = is_tree
        self._live = Live()

    def of(self, event: Event) -> str:
        """The line of an event. Each event is to pass here, also one that is not shown: ends need their starts."""
        scope = self._live.open.get(event.uuid)
        depth = self._depth(event)
        self._live.add(event)
        text = self._scope(event, scope.start_us if scope else None) if isinstance(event, ScopeEvent) else ""
        return self._line(event, depth, text or self._mark(event))

    def _depth(self, event: Event) -> int:
        parent = self._live.open.get(event.parent_uuid or "") if self._is_tree else None
        return len(parent.around()) if parent is not None else 0

    def _line(self, event: Event, depth: int, text: str) -> str:
        moment = time.localtime(event.timestamp_us // 1_000_000)
        clock = f"{time.strftime('%H:%M:%S', moment)}.{event.timestamp_us // 1000 % 1000:03}"
        return f"{self._terminal.style(f'{clock}  {event.pid:>7}', 'dim')}  {'  ' * depth}{text}"

    def _scope(self, event: ScopeEvent, start_us: int | None) -> str:
        style = self._terminal.style
        name = f"{style(plain(event.name), 'bold')}  {style(plain(event.category), 'cyan')}"
        if event.scope_category == "start":
            return f"{_START} {name}{self._payload(event)}"
        took = f"  {duration(event.timestamp_us - start_us)}" if start_us is not None else ""
        error = error_of(event.metadata)
        failed = f"  {style(f'error {plain(error)}', 'red')}" if error is not None else ""
        return f"{_END} {name}{took}{failed}{self._payload(event)}"

    def _mark(self, event: Event) -> str:
        if event.name == MISSED_MARK and isinstance(event.data, dict):
            missed = plural(int(str(event.data.get("missed", 0))), "event")
            return self._terminal.style(f"{_MARK} {missed} missed by this command: {event.data.get('why')}", "yellow")
        level = event.severity.value if isinstance(event, MarkEvent) and event.severity is not None else ""
        said = f"  {self._terminal.style(level, *_LEVEL_STYLES.get(level, ()))}" if level else ""
        return f"{_MARK} {plain(event.name)}{said}{self._payload(event)}"

    def _payload(self, event: Event) -> str:
        data = event.data
        if data is None:
            return ""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return f"  {self._terminal.style(shortened(plain(text[: MAX_PAYLOAD_CHARACTERS + 1]), self._room()), 'dim')}"

    def _room(self) -> int:
        return max(min(MAX_PAYLOAD_CHARACTERS, self._terminal.width - 60), 20)
