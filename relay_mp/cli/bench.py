"""`relay-mp bench`: what an emit call costs on this machine under load, and what it costs to others."""

import json
import os
import pickle
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relay_mp._bench.bins import BINS_A_DECADE, decade_name
from relay_mp._bench.payloads import payload_of, size_of
from relay_mp._bench.picture import svg
from relay_mp.cli.exits import CommandError, Exit
from relay_mp.cli.progress import Progress
from relay_mp.cli.strips import strips
from relay_mp.cli.table import Cell, Column, table
from relay_mp.cli.terminal import Terminal
from relay_mp.cli.units import count, plural, size

EXAMPLE = "relay-mp bench --seconds 0.2 --rounds 2 --svg bench.svg"

MAX_PROCESSES = MAX_THREADS = 64
MAX_SECONDS, MAX_ROUNDS = 60.0, 1000
MAX_RATE_HZ = 1e6

_PAYLOAD_HELP = (
    "fields (four of them; the default), none, a size such as 4KiB, a file (JSON, else text), or module:function, "
    "which is called once and returns it"
)
_PEERS_HELP = (
    "beside the standard library's ways from process to process (multiprocessing.Queue, SimpleQueue, logging's "
    "QueueHandler), and nemo-relay if it is installed"
)
_EXPORTER_HELP = (
    "a kind of exporter that runs beside the subscriber, such as atof_file; more than one may be given. Files are "
    "written to a temporary directory and removed"
)


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    whole, number = _number(int), _number(float)
    parser.add_argument(
        "--processes", type=whole(0, MAX_PROCESSES), default=2, metavar="N",
        help="that emit; 0: threads of the session's own process (default: 2)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=whole(1, MAX_THREADS), default=1, metavar="N", help="of each process (default: 1)"
    )
    parser.add_argument(
        "--rate", type=_rate, default=1000.0, metavar="HZ", help="calls a second of each thread, or max (default: 1000)"
    )
    parser.add_argument(
        "--seconds", type=number(0.001, MAX_SECONDS), default=1.0, metavar="S", help="of a round (default: 1)"
    )
    parser.add_argument(
        "--rounds", type=whole(1, MAX_ROUNDS), default=5, metavar="N", help="after a warm-up (default: 5)"
    )
    parser.add_argument("--payload", default="fields", metavar="WHAT", help=_PAYLOAD_HELP)
    parser.add_argument("--dispatcher", choices=["thread", "process"], default="thread", help="default: thread")
    parser.add_argument("--ring", type=_size, default=16 << 20, metavar="SIZE", help="default: 16MiB")
    parser.add_argument("--on-full", choices=["block", "drop"], default="block", help="default: block")
    parser.add_argument(
        "--exporter", type=_exporter, action="append", default=[], metavar="KIND[=JSON]", dest="exporters",
        help=_EXPORTER_HELP,
    )  # fmt: skip
    parser.add_argument("--peers", action="store_true", help=_PEERS_HELP)
    parser.add_argument("--svg", metavar="FILE", help="the distributions, as a picture")
    parser.add_argument("--json", metavar="FILE", help="all of it, with machine and method; - is standard output")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Measures, and shows what came of it."""
    document = _measured(arguments, terminal)
    _write(arguments.svg, lambda: svg(document))
    if arguments.json == "-":
        terminal.print(json.dumps(document, ensure_ascii=False))
        return Exit.DONE
    _write(arguments.json, lambda: json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for line in lines(document, terminal):
        terminal.print(line)
    return Exit.DONE


def _measured(arguments: Namespace, terminal: Terminal) -> dict[str, Any]:
    from relay_mp._bench.children import Unavailable
    from relay_mp._bench.load import Load, measure
    from relay_mp._bench.peers import PEERS, Relay

    load = Load(arguments.processes, arguments.threads, arguments.rate, arguments.seconds, _payload(arguments.payload))
    relay = Relay(
        dispatcher=arguments.dispatcher, ring_bytes=arguments.ring, on_full=arguments.on_full,
        exporters=tuple(arguments.exporters),
    )  # fmt: skip
    with Progress(terminal, "measuring") as progress:

        def tell(number: int, side: str) -> None:
            where = "warm-up" if number < 0 else f"round {number + 1} of {arguments.rounds}"
            progress.say(f"{where}, {side}")

        described = {"payload": arguments.payload, "command": _command(arguments)}
        peers = PEERS if arguments.peers else []
        try:
            return measure(load, relay, peers, arguments.rounds, described=described, on_turn=tell)
        except Unavailable as reason:
            raise CommandError(Exit.INPUT, str(reason)) from None


def _write(file: str | None, made: Callable[[], str]) -> None:
    if file is None:
        return
    try:
        Path(file).write_text(made(), encoding="utf-8")
    except OSError as error:
        raise CommandError(Exit.OUTPUT, f"{file} cannot be written: {error.strerror}") from None


# ---------------------------------------------------------------------------------------------- arguments


def _number(kind: Callable[[str], Any]) -> Callable[[float, float], Callable[[str], Any]]:
    """The types of numbers within bounds."""

    def within(least: float, most: float) -> Callable[[str], Any]:
        def number(text: str) -> Any:
            try:
                value = kind(text)
            except ValueError:
                value = None
            if value is None or not least <= value <= most:
                raise ArgumentTypeError(f"{text!r}; expected a number from {least:g} to {most:g}")
            return value

        return number

    return within


def _rate(text: str) -> float | None:
    value: float | None = None if text == "max" else _number(float)(0.1, MAX_RATE_HZ)(text)
    return value


def _size(text: str) -> int:
    found = size_of(text)
    if not found:
        raise ArgumentTypeError(f"{text!r}; expected a size such as 4MiB")
    return found


def _exporter(text: str) -> tuple[str, dict[str, Any]]:
    kind, _, given = text.partition("=")
    try:
        arguments = json.loads(given or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ArgumentTypeError(f'{given!r} is not a JSON object; expected such as {kind}={{"path": "events.jsonl"}}')
    return kind, arguments


def _payload(text: str) -> Any:
    if ":" in text and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        payload = payload_of(text)
        pickle.dumps(payload)  # the sides' processes are given it
    except (ValueError, TypeError, AttributeError, pickle.PicklingError) as error:
        raise CommandError(Exit.INPUT, f"--payload {text}: {error}") from None
    return payload


def _command(arguments: Namespace) -> str:
    """What gives such figures again."""
    words = ["relay-mp", "bench", "--processes", str(arguments.processes), "--threads", str(arguments.threads)]
    words += ["--rate", "max" if arguments.rate is None else f"{arguments.rate:g}"]
    words += ["--seconds", f"{arguments.seconds:g}", "--rounds", str(arguments.rounds), "--payload", arguments.payload]
    words += ["--dispatcher", arguments.dispatcher, "--ring", str(arguments.ring), "--on-full", arguments.on_full]
    for kind, given in arguments.exporters:
        words += ["--exporter", f"{kind}={json.dumps(given)}" if given else kind]
    return shlex.join([*words, *(["--peers"] if arguments.peers else [])])


# ---------------------------------------------------------------------------------------------- what is shown


def lines(document: dict[str, Any], terminal: Terminal) -> Iterator[str]:
    """A document of `measure` as text: what was done, the table, the histogram, and what to know about it."""
    load, at = document["load"], document["machine"]
    yield terminal.style(_said(load), "bold")
    governor = f", CPU governor {at['governor']}" if at["governor"] else ""
    yield terminal.style(
        f"{at['processor']}, {plural(at['cores'], 'core')}, {at['system']}, load average {at['load_average_before']:g} "
        f"before{governor}; Python {document['versions']['python']}",
        "dim",
    )
    yield ""
    yield from _table(document["rows"], terminal)
    yield ""
    rows = [(row["side"], row["bins"]["first"], row["bins"]["counts"]) for row in document["rows"]]
    yield from strips(terminal, rows, [(decade * BINS_A_DECADE, decade_name(decade)) for decade in range(12)])
    yield ""
    for note in document["notes"]:
        yield terminal.style(note, "yellow" if note.startswith(("noisy", "the machine was busy")) else "dim")


def _said(load: dict[str, Any]) -> str:
    if load["processes"]:
        emitting = f"{plural(load['processes'], 'process', 'processes')} x {plural(load['threads'], 'thread')}"
    else:
        emitting = f"{plural(load['threads'], 'thread')} of the session's process"
    rate = "flat out" if load["rate_hz"] is None else f"{load['rate_hz']:,g} calls/s each"
    packed = load["payload_msgpack_bytes"]
    payload = load["payload"] if packed is None else f"{load['payload']} ({size(packed)})"
    parts = [emitting, rate, f"payload {payload}", f"dispatcher {load['dispatcher']}", *load["exporters"]]
    parts.append(f"ring {size(load['ring_bytes'])}, on_full={load['on_full']}")
    return " · ".join([*parts, f"{plural(load['rounds'], 'round')} of {load['seconds']:g} s"])


FIGURES = {"median": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9", "p9999": "p99.99", "max": "max"}
UNITS = (("ns", 1), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))
MOST_DIGITS = 100_000
"""A column changes to its next unit where its largest number would have more digits than this one."""
LEFT_OUT_FIRST = ("p90", "events/s", "p99 spread", "p99.99")
"""Columns that a narrow terminal does without, in this order."""


def _table(rows: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    shown = [each for row in rows for each in _with_corrected(row)]
    figures = {FIGURES[name]: _column([row.get(name) for row in shown]) for name in FIGURES}
    heads = {title: f"{title} {unit}" for title, (unit, _) in figures.items()}
    columns: dict[str, list[str]] = {heads[title]: cells for title, (_, cells) in figures.items()}
    columns["events/s"] = [count(row["reached_hz"]) if "reached_hz" in row else "" for row in shown]
    columns["lost"] = [count(row["lost"]) if row.get("lost") else "" for row in shown]
    columns["p99 spread"] = [
        f"x{row['spread']['p99']:.2f}" if row.get("spread", {}).get("p99") else "" for row in shown
    ]
    for title in LEFT_OUT_FIRST:
        made = _made(columns, shown, terminal)
        if max(map(len, _made(columns, shown, Terminal(color="never", out=terminal.out)))) <= terminal.width:
            return made
        columns.pop(heads.get(title, title))
    return _made(columns, shown, terminal)


def _made(columns: dict[str, list[str]], rows: list[dict[str, Any]], terminal: Terminal) -> list[str]:
    heads = [Column("side", is_text=True), *(Column(title) for title in columns)]
    cells: list[list[str | Cell]] = [
        [Cell(row["side"], ("dim",) if number else ("bold",)), *(cells[number] for cells in columns.values())]
        for number, row in enumerate(rows)
    ]
    return table(terminal, heads, cells)


def _with_corrected(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row, and a second one where the correction for coordinated omission changes it."""
    yield row
    corrected = row["corrected"]
    if corrected and any(corrected.get(name) != row.get(name) for name in FIGURES):
        yield {"side": "  since it was due", **corrected}


def _column(values: list[float | None]) -> tuple[str, list[str]]:
    """A unit for all of a column, and its cells: the smallest value is at least 1 of it, if the largest allows."""
    known = [value for value in values if value is not None] or [1.0]
    unit, divisor = next(
        ((unit, divisor) for unit, divisor in reversed(UNITS) if divisor <= max(min(known), 1)),
        UNITS[0],
    )
    for unit_above, above in UNITS:
        if above > divisor and max(known) / divisor >= MOST_DIGITS:
            unit, divisor = unit_above, above
    return unit, ["" if value is None else _digits(value / divisor) for value in values]


def _digits(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
