"""`relay-mp ls`: the sessions of this user: those that live, and what dead ones have left."""

import dataclasses
import json
import os
import shlex
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from relay_mp._session.seen import LEFT, SessionInfo, sessions
from relay_mp.cli.exits import Exit
from relay_mp.cli.table import Cell, Column, table
from relay_mp.cli.terminal import Terminal, plain
from relay_mp.cli.units import count, duration, plural

EXAMPLE = "relay-mp ls"

STATE_STYLES = {"open": ("green",), "closing": ("yellow",), "broken": ("red",), LEFT: ("red",), "unreadable": ("red",)}

DIRECTORY_HELP = (
    "where segments are looked for (default: RELAY_MP_DIRECTORY, else /dev/shm and the temporary directory)"
)


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--directory", metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Lists them, the oldest first."""
    found = sessions(arguments.directory, left=True)
    if arguments.json:
        for info in found:
            terminal.print(json.dumps(as_json(info)))
        return Exit.DONE
    if not found:
        terminal.print("no session of this user lives, and no dead one has left events")
        return Exit.DONE
    for line in table(terminal, _COLUMNS, [_cells(info, time.time()) for info in found]):
        terminal.print(line)
    _say_what_to_do(found, terminal)
    return Exit.DONE


def as_json(info: SessionInfo) -> dict[str, Any]:
    """JSON types."""
    started = None if info.started is None else info.started.isoformat()
    return {**dataclasses.asdict(info), "started": started}


def short_id(info: SessionInfo) -> str:
    """The last part of a session's id: enough to name it."""
    return info.id.rpartition("-")[2]


def command_of(info: SessionInfo) -> str:
    """The owner's command line, with the interpreter's directory left out."""
    if not info.owner_argv:
        return ""
    first, *others = info.owner_argv
    return plain(shlex.join([os.path.basename(first), *others]))


_COLUMNS = [
    Column("session", is_text=True, style=("bold",)),
    Column("state", is_text=True),
    Column("pid"),
    Column("age"),
    Column("processes"),
    Column("events"),
    Column("lost", style=("red",)),
    Column("ring"),
    Column("command", is_text=True),
]


def _cells(info: SessionInfo, now: float) -> list[str | Cell]:
    occupancy = f"{info.ring_used_bytes / info.ring_bytes:.0%}".replace("%", " %") if info.ring_bytes else ""
    return [
        short_id(info),
        Cell(info.state, STATE_STYLES[info.state]),
        str(info.owner_pid),
        duration((now - info.started.timestamp()) * 1e6) if info.started else "",
        count(len(info.processes)) if info.processes else "",
        count(info.emitted),
        count(info.lost) if info.lost else "",
        occupancy,
        plain(info.problem) if info.problem else command_of(info),
    ]


def _say_what_to_do(found: list[SessionInfo], terminal: Terminal) -> None:
    left = [info for info in found if info.state == LEFT]
    if left:
        terminal.print()
        what = plural(len(left), "session has", "sessions have")
        terminal.print(f"{what} left events; `relay-mp recover` writes them to files")
