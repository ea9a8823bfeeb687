"""`relay-mp recover [SESSION...]`: writes out what dead sessions have left, and removes it from shared memory."""

import os
from argparse import ArgumentParser, Namespace

from relay_mp._session.recovery import recover
from relay_mp._session.seen import LEFT, SessionInfo, sessions
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.ls import DIRECTORY_HELP, command_of, short_id
from relay_mp.cli.terminal import Terminal
from relay_mp.errors import RelayError

EXAMPLE = "relay-mp recover"


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "sessions",
        nargs="*",
        metavar="SESSION",
        help="the beginning of an id as `ls` shows it, or a path; default: all",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="append to it (default: a file for each session)")
    parser.add_argument("--directory", metavar="DIR", help=DIRECTORY_HELP)
    parser.add_argument(
        "--force",
        action="store_true",
        help="also where workers of a dead owner live, which ends the session for them: name the session",
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Recovers them, one after another; one that cannot be does not keep the others from it."""
    chosen = _chosen(arguments)
    if not chosen:
        terminal.print("nothing is left to recover")
        return Exit.DONE
    code = Exit.DONE
    for path, what in chosen:
        try:
            file = recover(path, arguments.output, force=arguments.force)
        except RelayError as error:
            terminal.note(f"{what}: {error}")
            code = Exit.SESSION
        else:
            terminal.print(f"{what}: {'no event was left' if file is None else f'events in {os.path.relpath(file)}'}")
    return code


def _chosen(arguments: Namespace) -> list[tuple[str, str]]:
    """The paths of segments, each with what it is called."""
    left = [info for info in sessions(arguments.directory, left=True) if info.state == LEFT]
    if not arguments.sessions:
        return [(info.path, _called(info)) for info in left]
    return [_named(name, left) for name in arguments.sessions]


def _named(name: str, left: list[SessionInfo]) -> tuple[str, str]:
    if os.sep in name:
        return name, name
    found = [info for info in left if info.id.startswith(name) or short_id(info).startswith(name)]
    if len(found) != 1:
        there = ", ".join(short_id(info) for info in left) or "none"
        which = "more than one dead session" if found else "no dead session"
        raise CommandError(Exit.SESSION, f"{name!r} names {which}; there are: {there}. `relay-mp ls` shows them")
    return found[0].path, _called(found[0])


def _called(info: SessionInfo) -> str:
    command = command_of(info)
    return f"{short_id(info)} ({command})" if command else short_id(info)
