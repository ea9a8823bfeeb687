"""`relay-mp diff A B`: two recorded runs by category and name: what got slower, dearer, failed."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator

from relay_mp._runs.summary import Change, Row, Summary, compared
from relay_mp.cli.exits import Exit
from relay_mp.cli.loading import PRICES_HELP, load, set_prices
from relay_mp.cli.summary import ROWS, head
from relay_mp.cli.table import Cell, Column, table
from relay_mp.cli.terminal import Terminal, plain
from relay_mp.cli.units import count, duration, money, plural

EXAMPLE = "relay-mp diff before.jsonl after.jsonl"

NOTABLE = 0.1
"""A change of a time by less is not coloured."""


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("a", metavar="A", help="the run that is compared with: ATOF JSON lines")
    parser.add_argument("b", metavar="B", help="the run that is compared")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of the table; 0: all (default: {ROWS})")
    parser.add_argument("--prices", metavar="TABLE", help=PRICES_HELP)
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object; times in microseconds")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Reads both, and shows what has changed, the largest change of self time first."""
    set_prices(arguments.prices)
    before, after = (Summary(load([path], terminal)) for path in (arguments.a, arguments.b))
    changes = compared(before, after)
    if arguments.json:
        runs = {"a": before.to_dict(0), "b": after.to_dict(0)}
        terminal.print(json.dumps({**runs, "by_name": [each.to_dict() for each in changes]}, ensure_ascii=False))
        return Exit.DONE
    for name, summary in (("A", before), ("B", after)):
        for line in head(summary, terminal):
            terminal.print(f"{terminal.style(name, 'bold')}  {line}")
    terminal.print()
    for line in _lines(changes, terminal, arguments.rows):
        terminal.print(line)
    return Exit.DONE


_COLUMNS = [
    Column("name", is_text=True),
    Column("category", is_text=True, style=("cyan",)),
    Column("count"),
    Column("p50"),
    Column("change"),
    Column("self"),
    Column("change"),
    Column("errors"),
    Column("tokens"),
    Column("cost"),
]


def _lines(changes: list[Change], terminal: Terminal, rows: int) -> Iterator[str]:
    shown = changes[: rows or None]
    yield from table(terminal, _COLUMNS, [_cells(change) for change in shown])
    if len(shown) < len(changes):
        yield terminal.style(f"… {plural(len(changes) - len(shown), 'more name')}; --rows 0 shows all", "dim")


def _cells(change: Change) -> list[str | Cell]:
    before, after = change.before, change.after
    has_failed = after.errors > before.errors
    return [
        plain(before.name),
        plain(before.category),
        _pair(change, lambda row: count(row.count)),
        _pair(change, lambda row: duration(row.percentile_us(50)) if row.count else "-"),
        _relative(before.percentile_us(50), after.percentile_us(50)) if before.count and after.count else "",
        _pair(change, lambda row: duration(row.self_us) if row.count else "-"),
        _relative(before.self_us, after.self_us) if before.count and after.count else _only(before),
        Cell(_pair(change, lambda row: count(row.errors)), ("red",) if has_failed else ())
        if before.errors or after.errors
        else "",
        _pair(change, _tokens),
        _pair(change, lambda row: money(row.usage.costs)),
    ]


def _pair(change: Change, shown: Callable[[Row], str]) -> str:
    """Both values with an arrow; one, where they look the same."""
    before, after = shown(change.before), shown(change.after)
    return before if before == after else f"{before or '-'} → {after or '-'}"


def _tokens(row: Row) -> str:
    used = row.usage.input_tokens + row.usage.output_tokens
    return count(used) if used else ""


def _only(before: Row) -> Cell:
    return Cell("gone", ("green",)) if before.count else Cell("new", ("yellow",))


def _relative(before: int, after: int) -> Cell:
    if before == after:
        return Cell("=", ("dim",))
    if not before:
        return Cell("", ())
    change = after / before - 1
    text = f"x{after / before:.1f}" if change >= 9.995 else f"{change:+.0%}".replace("%", " %")
    style = "dim" if abs(change) < NOTABLE else "red" if change > 0 else "green"
    return Cell(text, (style,))
