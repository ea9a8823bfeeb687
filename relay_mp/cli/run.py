"""`relay-mp run COMMAND...`: a session around a program that knows nothing of this library.

    relay-mp run ──▶ session, exporters, one root scope ──▶ the command, with an environment of its own
         ▲                                                    └ every Python process in it joins (joining.py)
         └── signals go through; at the end: its exit code, and a summary on stderr

The root scope is this process's, so that it ends also where the program is killed. Events are in the session's ring
once they are emitted, and this process delivers them after the program's end, however that came.
"""

import os
import signal
import subprocess
import sys
import tempfile
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

from relay_mp import pools, scope
from relay_mp._runs.summary import Summary
from relay_mp._session.membership import session
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.joining import AT_ONCE, ON_IMPORT, VARIABLE
from relay_mp.cli.loading import load
from relay_mp.cli.summary import lines
from relay_mp.cli.terminal import Terminal
from relay_mp.observability.atof.exporter import AtofExporter, AtofExporterConfig, AtofExporterMode
from relay_mp.observability.otel.traces import OpenTelemetryConfig, OpenTelemetrySubscriber
from relay_mp.observability.perfetto.exporter import PerfettoExporter, PerfettoExporterMode
from relay_mp.types import JsonObject, ScopeType

EXAMPLE = 'relay-mp run --jsonl run.jsonl -- python -c "print(6 * 7)"'

PHOENIX_URL = "http://127.0.0.1:6006/v1/traces"

PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP")

ROWS = 10
"""Of the summary's table."""

_NAMES = [*AT_ONCE, *ON_IMPORT]


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.usage = (
        "relay-mp run [options] -- COMMAND [ARGUMENT ...]\n       relay-mp run [options] -m MODULE [ARGUMENT ...]"
    )
    parser.add_argument(
        "--jsonl", metavar="FILE", help="write the events there, as ATOF JSON lines; it is emptied first"
    )
    parser.add_argument(
        "--perfetto", metavar="FILE", help="write a trace there, for ui.perfetto.dev; it is emptied first"
    )
    parser.add_argument("--otlp", metavar="URL", help="send spans there, such as http://127.0.0.1:4318/v1/traces")
    parser.add_argument("--phoenix", action="store_true", help=f"send spans in OpenInference's terms to {PHOENIX_URL}")
    parser.add_argument("--no-instrument", action="store_true", help="record only what the program emits itself")
    parser.add_argument("--only", metavar="NAMES", help=f"switch on no more than these: {','.join(_NAMES)}")
    parser.add_argument("--no-summary", action="store_true", help="write nothing at the end")
    parser.add_argument("-m", dest="module", nargs=REMAINDER, metavar="MODULE", help="a module, as of `python -m`")
    parser.add_argument("program", nargs=REMAINDER, metavar="COMMAND", help="a program and its arguments, behind --")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Runs the program, and shows what it did. The exit code is the program's; 128 + n where signal n has ended it."""
    command = _command(arguments)
    names = _names(arguments)
    with tempfile.TemporaryDirectory(prefix="relay-mp-run-") as directory:
        file = os.path.abspath(arguments.jsonl or os.path.join(directory, "events.jsonl"))
        with session(), ExitStack() as exporters:
            for name, exporter in _exporters(arguments, file):
                exporter.register(name)
                exporters.callback(exporter.shutdown)
            code = _run_in_scope(command, names)
        if not arguments.no_summary:
            _show(file, terminal, is_kept=arguments.jsonl is not None)
    return code


def _command(arguments: Namespace) -> list[str]:
    if arguments.module:
        return [sys.executable, "-m", *arguments.module]
    command: list[str] = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not command:
        raise CommandError(Exit.USAGE, "there is no command; expected one, as in: relay-mp run -- python app.py")
    return command


def _names(arguments: Namespace) -> list[str]:
    """What is switched on in the program's processes."""
    if arguments.no_instrument:
        return []
    if arguments.only is None:
        return _NAMES
    names = [name.strip() for name in arguments.only.split(",")]
    unknown = [name for name in names if name not in _NAMES]
    if unknown:
        raise CommandError(Exit.USAGE, f"--only names {unknown[0]!r}; expected some of {', '.join(_NAMES)}")
    return names


def _exporters(arguments: Namespace, file: str) -> Iterator[tuple[str, Any]]:
    config = AtofExporterConfig(
        output_directory=os.path.dirname(file),
        filename=os.path.basename(file),
        mode=AtofExporterMode.Overwrite,
    )
    yield "jsonl", AtofExporter(config)
    if arguments.perfetto:
        yield (
            "perfetto",
            PerfettoExporter(arguments.perfetto, mode=PerfettoExporterMode.Overwrite),
        )
    if arguments.otlp:
        yield "otlp", OpenTelemetrySubscriber(OpenTelemetryConfig("full", arguments.otlp))
    if arguments.phoenix:
        yield "phoenix", OpenTelemetrySubscriber(OpenTelemetryConfig("openinference", PHOENIX_URL))


def _run_in_scope(command: list[str], names: list[str]) -> int:
    root = scope.push(_name_of(command), ScopeType.Function)
    code = Exit.MISSING.value
    try:
        code = _run(command, _environment(names))
    finally:
        failed: JsonObject | None = None
        if code:
            failed = {"otel.status_code": "ERROR", "otel.status_description": f"exit code {code}"}
        scope.pop(root, output={"exit_code": code}, metadata=failed)
    return code


def _name_of(command: list[str]) -> str:
    """The program's: what is not an interpreter or its options."""
    is_python = os.path.basename(command[0]).startswith("python")
    if is_python and len(command) > 1:
        named = command[2] if command[1] == "-m" and len(command) > 2 else command[1]
        return os.path.basename(named) if not named.startswith("-") else f"python {named}"
    return os.path.basename(command[0])


def _environment(names: list[str]) -> dict[str, str]:
    """With which every Python process of the program joins."""
    variables = pools.environ()
    variables[VARIABLE] = ",".join(names)
    paths = [os.path.join(os.path.dirname(__file__), "injected")]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    return variables


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Runs it, with the signals that this process is sent."""
    with _signals() as passing:
        try:
            child = subprocess.Popen(command, env=environment)
        except OSError as error:
            raise CommandError(
                Exit.MISSING, f"{command[0]} cannot be started: {error.strerror}; expected a program"
            ) from error
        passing.to(child)
        code = child.wait()
    return 128 - code if code < 0 else code


class _Passing:
    """Passes signals on to the program, also those that came before it was there."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def to(self, child: "subprocess.Popen[bytes]") -> None:
        """The program is there."""
        self._child = child
        while self._early:
            child.send_signal(self._early.pop(0))

    def take(self, number: int, _frame: FrameType | None) -> None:
        """A signal's handler."""
        if number == signal.SIGINT and _is_in_foreground():
            return  # Ctrl-C: the terminal has sent it to the program too
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


def _is_in_foreground() -> bool:
    """Whether a terminal sends its signals to this process's group."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def _signals() -> Iterator[_Passing]:
    passing = _Passing()
    before = {}
    try:
        for name in PASSED_ON:
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:  # as of nohup: the program ignores it too
                before[number] = signal.signal(number, passing.take)
        yield passing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(file: str, terminal: Terminal, is_kept: bool) -> None:
    """The summary, on stderr: stdout is the program's."""
    said = Terminal(sys.stderr, sys.stderr, "always" if terminal.has_color and sys.stderr.isatty() else "auto")
    said.print()
    for line in lines(Summary(load([file], said)), said, rows=ROWS):
        said.print(line)
    if is_kept:
        said.print(f"events in {os.path.relpath(file)}")
    sys.stderr.flush()
