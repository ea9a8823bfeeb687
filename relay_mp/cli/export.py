"""`relay-mp export FILE... --to FORMAT`: a recorded run through any exporter, with its true times and identities.

    files ──▶ RecordedEvent ──▶ event_of ──▶ the sink of an exporter ──▶ a file, a directory, a receiver
                    └──▶ parquet

The sinks are those that a session uses; here this process feeds them. Where the receiver is slower than the file is
read, reading waits: nothing is dropped for the queue being full.
"""

import logging
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from relay_mp._deliver.reports import ExporterReport
from relay_mp._records.json_line import event_line
from relay_mp._runs.reading import RecordedEvent
from relay_mp._runs.records import event_of
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.loading import PRICES_HELP, events_of, set_prices
from relay_mp.cli.terminal import Terminal
from relay_mp.cli.units import plural
from relay_mp.errors import RecordError
from relay_mp.events import Event
from relay_mp.observability.atif.exporter import AtifFileExporter
from relay_mp.observability.export.endpoint import redacted_url
from relay_mp.observability.otel.traces import OpenTelemetryConfig, OpenTelemetrySubscriber
from relay_mp.observability.perfetto.exporter import PerfettoExporter, PerfettoExporterMode

EXAMPLE = "relay-mp export events.jsonl --to perfetto"

WINDOW_EVENTS = 2048
"""Events that a sink is given before it is waited for: fewer than its queue holds."""

GIVE_UP_SECONDS = 10.0
"""How long a batch is tried again that the receiver does not take."""

_POLL_SECONDS = 0.01
_PROJECTIONS = {"otlp": "full", "openinference": "openinference"}

# Where a result goes by default: the first file's name with this in place of its suffix. "": standard output.
_SUFFIXES = {"perfetto": ".perfetto.json", "atif": ".atif", "parquet": ".parquet", "jsonl": ""}
_VIEWERS = {"perfetto": "; open it in https://ui.perfetto.dev"}


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="ATOF JSON lines, gzip too; - is standard input")
    parser.add_argument("--to", required=True, choices=_WRITERS, help="the format")
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="a file, of atif a directory; default: named after FILE; of jsonl: -"
    )
    parser.add_argument("--force", action="store_true", help="replace an output that is there")
    parser.add_argument("--url", default="", help="of otlp and openinference: the receiver (default: this machine's)")
    parser.add_argument("--service", metavar="NAME", help="of otlp and openinference: service.name")
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", help="of otlp and openinference: of each request"
    )
    parser.add_argument("--no-origin", action="store_true", help="of jsonl: leave out who has emitted each event")
    parser.add_argument("--prices", metavar="TABLE", help=PRICES_HELP)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Reads the files and writes the format."""
    set_prices(arguments.prices)
    return _WRITERS[arguments.to](arguments, terminal)


# ------------------------------------------------------------------------------------------------ outputs


def _output(arguments: Namespace) -> str:
    """The path to write to.

    Raises:
        CommandError: there is something, and it is not to be replaced.
    """
    first = "events" if arguments.files[0] == "-" else arguments.files[0].removesuffix(".gz")
    path: str = arguments.output or f"{os.path.splitext(first)[0]}{_SUFFIXES[arguments.to]}"
    if os.path.exists(path) and not arguments.force and not (arguments.to == "atif" and not os.listdir(path)):
        raise CommandError(Exit.OUTPUT, f"{path} is there already; name another with -o, or replace it with --force")
    return path


@contextmanager
def _writing(path: str) -> Iterator[None]:
    """What cannot be written is an error of the output, not of the input."""
    try:
        yield
    except OSError as error:
        raise CommandError(Exit.OUTPUT, f"{path} cannot be written: {error.strerror or error}") from error


def _created(path: str) -> int:
    """An empty file, which only its owner may read: prompts and answers are in it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _done(terminal: Terminal, events: int, path: str, more: str = "") -> int:
    terminal.print(f"{plural(events, 'event')} in {path}{more}")
    return Exit.DONE


# ------------------------------------------------------------------------------------------------ formats


def _to_jsonl(arguments: Namespace, terminal: Terminal) -> int:
    """Canonical lines, rotated and compressed files in one; what is not an event is gone."""
    if arguments.output in (None, "-"):
        _write_lines(arguments, terminal, terminal.out)
        return Exit.DONE
    path = _output(arguments)
    with _writing(path), open(_created(path), "w", encoding="utf-8") as file:
        written = _write_lines(arguments, terminal, file)
    return _done(terminal, written, path)


def _write_lines(arguments: Namespace, terminal: Terminal, file: TextIO) -> int:
    written = 0
    for recorded, event in _rebuilt(arguments, terminal):
        session = None if arguments.no_origin or recorded.session is None else recorded.session.encode()
        file.write(event_line(event, session).decode("utf-8", "replace"))
        written += 1
    return written


def _to_parquet(arguments: Namespace, terminal: Terminal) -> int:
    try:
        from relay_mp._runs.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise CommandError(
            Exit.MISSING, f"{error}; parquet needs the extra: pip install 'relay_mp[parquet]'"
        ) from error
    path, written = _output(arguments), 0
    with _writing(path), open(_created(path), "wb") as output, ParquetFile(output) as file:
        for recorded in events_of(arguments.files, terminal):
            file.append(recorded)
            written += 1
    return _done(terminal, written, path)


def _to_perfetto(arguments: Namespace, terminal: Terminal) -> int:
    path = _output(arguments)
    with _writing(path):
        sink = PerfettoExporter(path, mode=PerfettoExporterMode.Overwrite).make_sink()
    report = _fed(sink, arguments, terminal)
    return _done(terminal, report.exported, path, _VIEWERS["perfetto"])


def _to_atif(arguments: Namespace, terminal: Terminal) -> int:
    path = _output(arguments)
    with _writing(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
        sink = AtifFileExporter(path).make_sink()
    report = _fed(sink, arguments, terminal)
    files = len([name for name in os.listdir(path) if name.endswith(".json")])
    if not files:
        raise CommandError(
            Exit.INPUT, "there is no agent's scope in what was read, and ATIF has a trajectory for each of those"
        )
    beside = f"; {plural(report.ignored, 'event')} outside of agents" if report.ignored else ""
    return _done(terminal, report.exported, path, f", {plural(files, 'trajectory', 'trajectories')}{beside}")


def _to_receiver(arguments: Namespace, terminal: Terminal) -> int:
    projection: Any = _PROJECTIONS[arguments.to]
    config = OpenTelemetryConfig(projection, arguments.url)
    config.limits = {"retry_deadline_seconds": GIVE_UP_SECONDS}
    if arguments.service:
        config.service_name = arguments.service
    for header in arguments.header:
        name, separator, value = header.partition("=")
        if not separator:
            raise CommandError(Exit.USAGE, f"--header is {name!r}; expected NAME=VALUE")
        config.set_header(name, value)
    try:
        sink = OpenTelemetrySubscriber(config).make_sink()
    except ImportError as error:
        extra = "openinference" if arguments.to == "openinference" else "otel"
        raise CommandError(Exit.MISSING, f"{error}; expected the extra: pip install 'relay_mp[{extra}]'") from error
    except ValueError as error:
        raise CommandError(Exit.USAGE, str(error)) from error
    report = _fed(sink, arguments, terminal)
    where = redacted_url(arguments.url) or "the receiver of the environment, by default this machine's port 4318"
    return _done(
        terminal, report.exported, where, f"; {plural(report.unfinished, 'open scope')}" if report.unfinished else ""
    )


_WRITERS: dict[str, Callable[[Namespace, Terminal], int]] = {
    "perfetto": _to_perfetto,
    "otlp": _to_receiver,
    "openinference": _to_receiver,
    "atif": _to_atif,
    "jsonl": _to_jsonl,
    "parquet": _to_parquet,
}


# -------------------------------------------------------------------------------------------------- sinks


def _fed(sink: Any, arguments: Namespace, terminal: Terminal) -> ExporterReport:
    """Gives a sink all events, and ends it.

    Returns:
        What the sink says of them.

    Raises:
        CommandError: some of them are nowhere.
    """
    given = 0
    with _without_log():  # the report says it, in one line
        try:
            for given, (_, event) in enumerate(_rebuilt(arguments, terminal), 1):
                with suppress(Exception):  # the sink has counted it, and goes on
                    sink(event)
                if not given % WINDOW_EVENTS:
                    _wait(sink)
        finally:
            sink.finish(GIVE_UP_SECONDS)
            sink.close()
    report: ExporterReport = sink.report()
    if lost := report.dropped:
        causes = ", ".join(f"{cause} {number}" for cause, number in report.drops.items())
        raise CommandError(
            Exit.OUTPUT, f"{plural(lost, 'event')} of {given} could not be exported ({causes}): {report.last_error}"
        )
    return report


@contextmanager
def _without_log() -> Iterator[None]:
    """Keeps the library's own log silent for a block."""
    logger = logging.getLogger("relay_mp")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _rebuilt(arguments: Namespace, terminal: Terminal) -> Iterator[tuple[RecordedEvent, Event]]:
    """The events as subscribers get them; what cannot be one is left out, and said."""
    left_out = 0
    for recorded in events_of(arguments.files, terminal):
        try:
            event = event_of(recorded)
        except RecordError as error:
            left_out += 1
            if left_out == 1:
                terminal.note(f"left out: {error}")
            continue
        yield recorded, event
    if left_out > 1:
        terminal.note(f"{plural(left_out, 'event')} of this kind were left out")


def _wait(sink: Any) -> None:
    """Until what the sink was given is with its receiver, or given up."""
    taken = sink.taken
    sink.request_flush()
    while sink.report().flushed < taken:
        time.sleep(_POLL_SECONDS)
