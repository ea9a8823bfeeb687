"""Which events are shown: by name, category, process, level, text, and by what is at a path in them.

    data.user.id             there is something at this path
    data.messages[0].role=user    what is there, as text or as JSON, is this
    metadata.retries!=0      it is something else, or nothing

A path begins with a field of the event, and goes on by keys and places of lists; a dot may stand before it, as in jq.
"""

import fnmatch
import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, TypeAlias

from relay_mp.cli.exits import CommandError, Exit
from relay_mp.events import Event, MarkEvent
from relay_mp.types import LogSeverity

Filter: TypeAlias = Callable[[Event], bool]

LEVELS = [severity.value for severity in LogSeverity]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")
_MISSING = object()


def add_arguments(parser: ArgumentParser) -> None:
    """The options; `matching` reads them."""
    parser.add_argument("--name", action="append", metavar="GLOB", help="events of that name, such as 'search*'")
    parser.add_argument("--category", action="append", metavar="CATEGORY", help="scopes of that category, such as llm")
    parser.add_argument("--pid", action="append", type=int, metavar="PID", help="events of that process")
    parser.add_argument("--level", choices=LEVELS, help="log marks of that level or above")
    parser.add_argument("--text", metavar="TEXT", help="events in which the text is anywhere, in either case")
    parser.add_argument(
        "--where", action="append", metavar="PATH[=VALUE]", help="events with that at a path, such as data.user=ann"
    )


def matching(arguments: Namespace) -> Filter:
    """What all of the given options let through; options that are given several times let either through.

    Raises:
        CommandError: a path is not one.
    """
    filters = [make(value) for make, value in _given(arguments) if value is not None]
    filters += [_where(condition) for condition in arguments.where or ()]
    return lambda event: all(each(event) for each in filters)


def _given(arguments: Namespace) -> list[tuple[Callable[[Any], Filter], Any]]:
    return [
        (lambda names: lambda event: any(fnmatch.fnmatchcase(event.name, name) for name in names), arguments.name),
        (lambda categories: lambda event: event.category in categories, arguments.category),
        (lambda pids: lambda event: event.pid in pids, arguments.pid),
        (_at_least, arguments.level),
        (lambda text: lambda event: text.casefold() in event.to_json().casefold(), arguments.text),
    ]


def _at_least(level: str) -> Filter:
    shown = set(LEVELS[LEVELS.index(level) :])
    return lambda event: isinstance(event, MarkEvent) and event.severity is not None and event.severity.value in shown


def _where(condition: str) -> Filter:
    found = re.fullmatch(r"(?P<path>[^=!]+)(?:(?P<operator>!?=)(?P<value>.*))?", condition, re.DOTALL)
    steps = _steps(found["path"].strip()) if found else []
    if not found or not steps:
        raise CommandError(
            Exit.USAGE, f"--where is {condition!r}; expected a path, such as data.user, or data.user=ann"
        )
    if found["operator"] is None:
        return lambda event: _at(event.to_dict(), steps) not in (_MISSING, None)
    is_equal, value = found["operator"] == "=", found["value"]
    return lambda event: _is(_at(event.to_dict(), steps), value) == is_equal


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return []
        steps.append(step[1] if step[1] is not None else int(step[2]))
        at = step.end()
    return steps


def _at(value: Any, steps: list[str | int]) -> Any:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return value


def _is(found: Any, value: str) -> bool:
    if found is _MISSING:
        return False
    return found == value or (not isinstance(found, str) and json.dumps(found, separators=(",", ":")) == value)
