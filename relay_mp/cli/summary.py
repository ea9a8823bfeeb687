"""`relay-mp summary FILE...`: what a recorded run did, by category and name, and its longest parts."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import Any

from relay_mp._runs.run import Run, Scope
from relay_mp._runs.summary import PERCENTILES, Row, Summary
from relay_mp.cli.exits import Exit
from relay_mp.cli.loading import PRICES_HELP, load, set_prices
from relay_mp.cli.table import Cell, Column, table
from relay_mp.cli.terminal import Terminal, plain
from relay_mp.cli.units import count, duration, money, plural

EXAMPLE = "relay-mp summary events.jsonl"

SORTS: dict[str, Callable[[Row], Any]] = {
    "self": lambda row: row.self_us,
    "total": lambda row: row.total_us,
    "count": lambda row: row.count,
    "errors": lambda row: row.errors,
    "p50": lambda row: row.percentile_us(50),
    "p95": lambda row: row.percentile_us(95),
    "p99": lambda row: row.percentile_us(99),
    "tokens": lambda row: row.usage.input_tokens + row.usage.output_tokens,
    "cost": lambda row: sum(row.usage.costs.values()),
}

MAX_CHILDREN = 6
"""A scope with more children shows the longest of them, and the rest in one line."""

ROWS, TREES, DEPTH = 20, 3, 8
"""What is shown unless it is asked for more."""


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="ATOF JSON lines, gzip too; - is standard input")
    parser.add_argument("--sort", choices=SORTS, default="self", help="what the table is sorted by (default: self)")
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of the table; 0: all (default: {ROWS})")
    parser.add_argument(
        "--trees", type=int, default=TREES, metavar="N", help=f"so many of the longest runs (default: {TREES})"
    )
    parser.add_argument("--depth", type=int, default=DEPTH, metavar="N", help=f"levels of a tree (default: {DEPTH})")
    parser.add_argument("--prices", metavar="TABLE", help=PRICES_HELP)
    parser.add_argument("--json", action="store_true", help="all of it as one JSON object; times in microseconds")


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Reads the files, and shows what is in them."""
    set_prices(arguments.prices)
    summary = Summary(load(arguments.files, terminal))
    if arguments.json:
        terminal.print(json.dumps(summary.to_dict(arguments.trees), ensure_ascii=False))
    else:
        for line in lines(summary, terminal, arguments.sort, arguments.rows, arguments.trees, arguments.depth):
            terminal.print(line)
    return Exit.DONE


def lines(
    summary: Summary, terminal: Terminal, sort: str = "self", rows: int = ROWS, trees: int = TREES, depth: int = DEPTH
) -> Iterator[str]:
    """A summary as text; what `relay-mp run` shows at its end, too.

    Args:
        summary: the run, added up.
        terminal: for its width and colours.
        sort: one of SORTS; the highest comes first.
        rows: of the table; 0: all.
        trees: so many of the longest runs.
        depth: levels of each tree.
    """
    yield from head(summary, terminal)
    if not summary.rows:
        return
    yield ""
    ordered = sorted(summary.rows, key=SORTS[sort], reverse=True)
    shown = ordered[: rows or None]
    yield from table(terminal, _COLUMNS, [_cells(row) for row in shown])
    if len(shown) < len(ordered):
        yield terminal.style(f"… {plural(len(ordered) - len(shown), 'more name')}; --rows 0 shows all", "dim")
    yield from _trees(summary, terminal, trees, depth)


def head(summary: Summary, terminal: Terminal) -> Iterator[str]:
    """The run in one line, tokens and cost in another, losses in a third."""
    run = summary.run
    parts = [duration(run.duration_us), plural(len(run.scopes), "scope"), plural(run.marks, "mark")]
    if run.pids:
        parts.append(plural(len(run.pids), "process", "processes"))
    if summary.open:
        parts.append(terminal.style(f"{count(summary.open)} open", "yellow"))
    parts.append(terminal.style(plural(summary.errors, "error"), "red") if summary.errors else "no errors")
    yield " · ".join([terminal.style(parts[0], "bold"), *parts[1:]])
    if usage := summary.usage:
        spent = [f"{count(usage.input_tokens)} tokens in", f"{count(usage.output_tokens)} out"]
        yield " · ".join([*spent, *filter(None, [money(usage.costs)])])
    if run.lost:
        causes = ", ".join(f"{cause} {count(lost)}" for cause, lost in run.losses.items())
        yield terminal.style(f"{plural(run.lost, 'event')} lost: {causes}", "red")


_COLUMNS = [
    Column("name", is_text=True),
    Column("category", is_text=True, style=("cyan",)),
    Column("count"),
    Column("open", style=("yellow",)),
    Column("errors", style=("red",)),
    *(Column(f"p{percent}") for percent in PERCENTILES),
    Column("total"),
    Column("self", style=("bold",)),
    Column("tokens in"),
    Column("out"),
    Column("cost"),
]


def _cells(row: Row) -> list[str | Cell]:
    return [
        plain(row.name),
        plain(row.category),
        count(row.count),
        _some(row.open),
        _some(row.errors),
        *(duration(row.percentile_us(percent)) for percent in PERCENTILES),
        duration(row.total_us),
        duration(row.self_us),
        _some(row.usage.input_tokens),
        _some(row.usage.output_tokens),
        money(row.usage.costs),
    ]


def _some(number: int) -> str:
    return count(number) if number else ""


# ---------------------------------------------------------------------------------------------- trees


def _trees(summary: Summary, terminal: Terminal, trees: int, depth: int) -> Iterator[str]:
    roots = summary.longest_roots(trees)
    if not roots:
        return
    yield ""
    rows = [row for root in roots for row in _tree(root, summary.run, depth)]
    title = "longest runs" if len(roots) > 1 else "longest run"
    yield from table(terminal, [Column(title, is_text=True), *_TREE_COLUMNS], rows)
    if len(roots) < len(summary.run.roots):
        more = plural(len(summary.run.roots) - len(roots), "more run")
        yield terminal.style(f"… {more}; --trees N shows more", "dim")


_TREE_COLUMNS = [
    Column("category", is_text=True, style=("cyan",)),
    Column("pid", style=("dim",)),
    Column("time"),
    Column("self"),
    Column("tokens in"),
    Column("out"),
    Column("cost"),
    Column("", is_text=True),
]


def _tree(root: Scope, run: Run, depth: int) -> Iterator[list[str | Cell]]:
    """A tree's rows. Not by recursion: agents nest deep."""
    waiting: list[tuple[Scope | list[Scope], str, str, int]] = [(root, "", "", 1)]
    while waiting:
        item, lead, below, level = waiting.pop()
        if isinstance(item, list):
            yield _rest(item, lead, run)
            continue
        yield _scope_cells(item, lead, run)
        branches: list[Scope | list[Scope]] = [*item.children] if level < depth else [item.children]
        if level < depth and len(item.children) > MAX_CHILDREN:
            longest = sorted(item.children, key=lambda child: -child.duration_us(run.last_us))
            kept = {child.uuid for child in longest[: MAX_CHILDREN - 1]}
            branches = [child for child in item.children if child.uuid in kept]
            branches.append([child for child in item.children if child.uuid not in kept])
        branches = [branch for branch in branches if branch]
        for index, branch in reversed(list(enumerate(branches))):
            is_last = index == len(branches) - 1
            next_lead = f"{below}{'└─ ' if is_last else '├─ '}"
            waiting.append((branch, next_lead, f"{below}{'   ' if is_last else '│  '}", level + 1))


def _scope_cells(scope: Scope, lead: str, run: Run) -> list[str | Cell]:
    usage = scope.total_usage()
    return [
        f"{lead}{plain(scope.name)}",
        plain(scope.category),
        str(scope.pid or ""),
        duration(scope.duration_us(run.last_us)),
        duration(scope.self_us(run.last_us)) if scope.children else "",
        _some(usage.input_tokens),
        _some(usage.output_tokens),
        money(usage.costs),
        _state(scope),
    ]


def _state(scope: Scope) -> Cell:
    """An error where it comes from: around it, it is only said that there is one."""
    if scope.status == "open":
        return Cell("open", ("yellow",))
    if scope.status == "error":
        is_passed_on = any(child.error == scope.error for child in scope.children)
        return Cell("error" if is_passed_on else f"error {plain(scope.error or '')}", ("red",))
    return Cell(plain(scope.model or ""))


def _rest(scopes: list[Scope], lead: str, run: Run) -> list[str | Cell]:
    """Many scopes in one line."""
    errors = sum(inner.status == "error" for scope in scopes for inner in scope.walk())
    time = duration(sum(scope.duration_us(run.last_us) for scope in scopes))
    return [
        Cell(f"{lead}… {count(len(scopes))} more", ("dim",)),
        "", "", time, "", "", "", "",
        Cell(plural(errors, "error"), ("red",)) if errors else "",
    ]  # fmt: skip
