# PYTHON_ARGCOMPLETE_OK
"""From the command line to the command, and from its errors to one line and an exit code.

The table COMMANDS has them all; the module `relay_mp.cli.<name>` of one is loaded when it is called.
"""

import os
import sys
import traceback
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from textwrap import indent
from typing import Any, NamedTuple

from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.terminal import Terminal
from relay_mp.errors import RelayError, SessionError

PROGRAM = "relay-mp"

COMPLETING = "_ARGCOMPLETE"
"""The variable in which the shell's completion asks, see `complete`."""


class Command(NamedTuple):
    """A row of the table. The module `relay_mp.cli.<name>` has

    add_arguments(parser)              what it takes
    run(arguments, terminal) -> int    does it; the result is the exit code
    EXAMPLE                            a command line that runs in a directory with a recorded run, events.jsonl
    """

    name: str
    says: str


COMMANDS = [
    Command("run", "run a program with all its processes recorded, and show what it did"),
    Command("ls", "list the sessions of this user, and what dead ones have left"),
    Command("top", "show a running session: its processes, its open agents, its ring"),
    Command("tail", "show a session's events as they come"),
    Command("summary", "add up a recorded run by category and name, and show its longest parts"),
    Command("export", "write a recorded run in another format, or send it to a receiver"),
    Command("diff", "compare two recorded runs: what got slower, dearer, failed"),
    Command("view", "show a living session or a recorded run in the browser, or two side by side"),
    Command("recover", "write out what dead sessions have left"),
    Command("doctor", "check whether the library can work here, and say what to do"),
    Command("bench", "measure what emitting costs on this machine under load"),
]

_DESCRIPTION = "See what agents in many processes do: running ones, and recorded runs."
_EPILOG = (
    "`relay-mp COMMAND --help` says what a command takes, with an example. Exit codes: 0 done, 1 done and something\
 was found, 2 wrong command line, 3 unreadable input, 4 no such session, 5 something is not installed, 6 the result\
 cannot be written."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its line, without the program's name; default: the process's.

    Returns:
        The exit code, one of `Exit`, or, of `run`, that of the program that was run.
    """
    if COMPLETING in os.environ:
        complete()
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parser_for(given).parse_args(given)
    if arguments.version:
        print(f"{PROGRAM} {_version()}")
        return Exit.DONE
    if arguments.command is None:
        parser_for([]).print_help()
        return Exit.USAGE
    terminal = Terminal(color=arguments.color)
    try:
        code = int(module_of(arguments.command).run(arguments, terminal))
        terminal.out.flush()
        return code
    except BrokenPipeError:
        _discard_output()
        return Exit.CLOSED_PIPE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        return _told(error, arguments.command, terminal)


def complete() -> None:
    """Answers the shell's question what may come next, and ends the process. Needs the extra `completion`."""
    import argcomplete

    line = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(parser_for(line[1:]))


def module_of(command: str) -> Any:
    """The module of a command."""
    return import_module(f"relay_mp.cli.{command}")


def parser_for(argv: Sequence[str]) -> ArgumentParser:
    """A parser that knows all commands by name, and the arguments of the one that is called."""
    parser = ArgumentParser(PROGRAM, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="show the version")
    _add_color(parser, "auto")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    called = {word for word in argv if not word.startswith("-")}
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.says, formatter_class=RawDescriptionHelpFormatter)
        sub.description = f"{command.says[0].upper()}{command.says[1:]}."
        if command.name in called:
            module = module_of(command.name)
            module.add_arguments(sub)
            _add_color(sub, SUPPRESS)
            sub.epilog = f"example:\n{indent(module.EXAMPLE.strip(), '  ')}"
    return parser


def _add_color(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default=default,
        help="auto, the default: colours on a terminal, unless NO_COLOR is set",
    )


def _version() -> str:
    from importlib.metadata import version

    return version("relay_mp")


def _told(error: Exception, command: str, terminal: Terminal) -> Exit:
    """Says an error in one line; a defect with its traceback before."""
    code = _exit_code(error)
    if code is Exit.DEFECT:
        traceback.print_exception(error, file=terminal.err)
    said = _file_error(error) if isinstance(error, OSError) else str(error)
    terminal.note(f"{PROGRAM} {command}: {' '.join(said.split()) or type(error).__name__}")
    return code


def _file_error(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"


def _exit_code(error: Exception) -> Exit:
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, SessionError):
        return Exit.SESSION
    return Exit.INPUT if isinstance(error, OSError | RelayError) else Exit.DEFECT


def _discard_output() -> None:
    """Else the interpreter's last flush would complain of the pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
