"""Tables: aligned columns that fit into the width.

Where a table is too wide, its columns of text are shortened, the widest first; numbers stay whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from relay_mp.cli.terminal import Terminal, columns_of, shortened

GAP = "  "
NARROWEST_TEXT = 8
"""A column of text is not made narrower."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: its head.
        is_text: aligned to the left, and shortened where there is no room; numbers go to the right.
        style: of its cells.
    """

    title: str
    is_text: bool = False
    style: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A cell with a style of its own."""

    text: str
    style: tuple[str, ...] = ()


def table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> list[str]:
    """The lines of a table, its head first. A column in which every cell is empty is left out.

    Args:
        terminal: for its width and colours.
        columns: from the left.
        rows: cells in the same order.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(columns)) if not rows or any(row[index].text for row in cells)]
    widths = _widths([columns[index] for index in shown], [[row[index] for index in shown] for row in cells], terminal)
    lines = [_line(terminal, [columns[i] for i in shown], [Cell(columns[i].title, ("dim",)) for i in shown], widths)]
    for row in cells:
        styled = [Cell(row[i].text, row[i].style or columns[i].style) for i in shown]
        lines.append(_line(terminal, [columns[i] for i in shown], styled, widths))
    return lines


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], terminal: Terminal) -> list[int]:
    widths = [
        max([columns_of(column.title), *(columns_of(row[index].text) for row in rows)])
        for index, column in enumerate(columns)
    ]
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - terminal.width
    while excess > 0:
        texts = [i for i, column in enumerate(columns) if column.is_text and widths[i] > NARROWEST_TEXT]
        if not texts:
            break
        widest = max(texts, key=lambda i: widths[i])
        others = [widths[i] for i in texts if i != widest]
        taken = min(excess, max(widths[widest] - max([NARROWEST_TEXT, *others]), 1))
        widths[widest] -= taken
        excess -= taken
    return widths


def _line(terminal: Terminal, columns: Sequence[Column], cells: Sequence[Cell], widths: Sequence[int]) -> str:
    parts = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        text = shortened(cell.text, width)
        padding = " " * (width - columns_of(text))
        styled = terminal.style(text, *cell.style)
        parts.append(styled + padding if column.is_text else padding + styled)
    return GAP.join(parts).rstrip()
