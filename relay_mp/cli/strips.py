"""Histograms in the terminal: a strip of bars a row, all on one logarithmic axis."""

from collections.abc import Sequence

from relay_mp.cli.terminal import Terminal, columns_of, shortened

WIDEST = 96
"""More columns show no more."""
LABEL_SHARE = 0.3
"""Of the width, at most, is for the names."""

_BARS, _PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


def strips(
    terminal: Terminal, rows: Sequence[tuple[str, int, Sequence[int]]], ticks: Sequence[tuple[int, str]]
) -> list[str]:
    """The lines: a strip each, the axis, and its ticks' names.

    A bar's height is its share of the row's highest; what is not empty has the lowest bar at least, so that a single
    slow call is seen.

    Args:
        terminal: for its width, colours, and what it can show.
        rows: a name, the number of the first bin, and the counts of it and of those after.
        ticks: numbers of bins, ascending, and what stands there below the axis.
    """
    width = min(terminal.width, WIDEST)
    label_width = min(max(columns_of(name) for name, _, _ in rows), int(width * LABEL_SHARE))
    first = min(start for _, start, _ in rows)
    last = max(start + len(counts) for _, start, counts in rows)
    bins_a_column = -(-(last - first) // max(width - label_width - 2, 1))
    bars = _BARS if terminal.can_show(_BARS) else _PLAIN_BARS
    lines = []
    for number, (name, start, counts) in enumerate(rows):
        heights = _columns(counts, start - first, bins_a_column, -(-(last - first) // bins_a_column))
        strip = _drawn(heights, bars).rstrip()
        label = shortened(name, label_width)
        styled = terminal.style(strip, "cyan" if number == 0 else "dim")
        lines.append(f"{label}{' ' * (label_width - columns_of(label))}  {styled}".rstrip())
    places = [((at - first) // bins_a_column, name) for at, name in ticks if first <= at < last]
    return lines + [terminal.style(f"{' ' * (label_width + 2)}{line}", "dim") for line in _axis(places)]


def _columns(counts: Sequence[int], offset: int, bins_a_column: int, columns: int) -> list[int]:
    sums = [0] * columns
    for number, count in enumerate(counts, offset):
        sums[number // bins_a_column] += count
    return sums


def _drawn(sums: Sequence[int], bars: str) -> str:
    highest = max(*sums, 1)
    top = len(bars) - 1
    return "".join(bars[max(round(each / highest * top), 1) if each else 0] for each in sums)


def _axis(places: Sequence[tuple[int, str]]) -> list[str]:
    """Marks, and the names below them, where there is room for them."""
    marks, names = "", ""
    for column, name in places:
        marks += " " * (column - len(marks)) + "╵"
        if not names or column > len(names):
            names += " " * (column - len(names)) + name
    return [marks, names]
