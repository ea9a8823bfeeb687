"""The picture of a measurement, as SVG: the share of calls that take longer than so much, a curve a side.

Both axes are logarithmic: the further left and down a curve is, the better. Made of the document alone, without any
package; light and dark follow the reader's setting.
"""

from collections.abc import Iterator
from html import escape
from itertools import accumulate
from math import log10
from typing import Any

from relay_mp._bench.bins import BINS_A_DECADE, decade_name

WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 76, 230, 58, 52
SMALLEST_SHARE_DECADES = 4
"""Of the share axis: down to 0.01 %, as far as p99.99."""
COLOURS = ("#c2410c", "#1d4ed8", "#4d7c0f", "#7c3aed", "#0d9488", "#a16207", "#be185d")
FLOOR_COLOUR = "#8a8a8a"

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #666 }
.paper { fill: #fff }
.grid { stroke: #e4e4e4 }
path { fill: none; stroke-width: 1.6 }
.first { stroke-width: 2.6 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e6 }
.note { fill: #a6a6a6 }
.paper { fill: #16181c }
.grid { stroke: #33363c }
}
"""


def svg(document: dict[str, Any]) -> str:
    """The picture of a document of `load.measure`."""
    rows = [row for row in document["rows"] if row["bins"]["counts"]]
    first = min(row["bins"]["first"] for row in rows) // BINS_A_DECADE
    last = -(-max(row["bins"]["first"] + len(row["bins"]["counts"]) for row in rows) // BINS_A_DECADE)
    parts = [
        *_axes(first, last),
        *(part for number, row in enumerate(rows) for part in _side(row, number, first, last)),
    ]
    if any(map(_is_corrected, rows)):
        legend = f'x="{WIDTH - RIGHT + 16}" y="{HEIGHT - BOTTOM}"'
        parts.append(f'<text class="note" {legend}>dashed: since the call was due</text>')
    load, at = document["load"], document["machine"]
    rate = "flat out" if load["rate_hz"] is None else f"{load['rate_hz']:,g} calls/s each"
    threads = f"{load['processes']} processes x {load['threads']} threads"
    title = f"Emitting under load: {threads}, {rate}, payload {load['payload']}"
    note = (
        f"{at['processor']}, {at['cores']} cores, load average {at['load_average_before']:g} before; {document['date']}"
    )
    body = "\n".join(parts)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>
<text class="title" x="{LEFT}" y="24">{escape(title)}</text>
<text class="note" x="{LEFT}" y="42">{escape(note)}</text>
{body}
</svg>
"""


def _x(decades: float, first: int, last: int) -> float:
    return LEFT + (decades - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)


def _y(decades: float) -> float:
    """Of a share of 10 ** -decades."""
    return TOP + min(decades, SMALLEST_SHARE_DECADES) / SMALLEST_SHARE_DECADES * (HEIGHT - TOP - BOTTOM)


def _axes(first: int, last: int) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for decade in range(first, last + 1):
        at = _x(decade, first, last)
        yield f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{decade_name(decade)}</text>'
    for decades, name in enumerate(("all", "10 %", "1 %", "0.1 %", "0.01 %")):
        at = _y(decades)
        yield f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{name}</text>'
    middle = (LEFT + right) / 2
    yield f'<text class="note" x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">an emit call takes</text>'
    yield (
        f'<text class="note" x="16" y="{(TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {(TOP + bottom) / 2})">of the calls take longer</text>'
    )


def _side(row: dict[str, Any], number: int, first: int, last: int) -> Iterator[str]:
    colour = FLOOR_COLOUR if row["side"].startswith("floor") else COLOURS[number % len(COLOURS)]
    at = TOP + 8 + number * 20
    weight = ' class="first"' if number == 0 else ""
    yield f'<path{weight} stroke="{colour}" d="{_curve(row["bins"], first, last)}"/>'
    if _is_corrected(row):
        yield f'<path stroke="{colour}" stroke-dasharray="5 4" d="{_curve(row["corrected"]["bins"], first, last)}"/>'
    yield f'<path{weight} stroke="{colour}" d="M{WIDTH - RIGHT + 16} {at}h20"/>'
    yield f'<text x="{WIDTH - RIGHT + 44}" y="{at + 4}">{escape(row["side"].partition(":")[0])}</text>'


def _is_corrected(row: dict[str, Any]) -> bool:
    return row["corrected"] is not None and row["corrected"]["bins"] != row["bins"]


def _curve(bins: dict[str, Any], first: int, last: int) -> str:
    """Steps from bin to bin: at a bin's end, the share of calls that took longer."""
    total, points = sum(bins["counts"]), [f"{_x(bins['first'] / BINS_A_DECADE, first, last):.1f} {_y(0):.1f}"]
    for number, passed in enumerate(accumulate(bins["counts"]), bins["first"] + 1):
        share = 1 - passed / total
        at = min(_x(number / BINS_A_DECADE, first, last), WIDTH - RIGHT)
        points.append(f"{at:.1f} {_y(-log10(share)) if share > 0 else _y(SMALLEST_SHARE_DECADES):.1f}")
    return f"M{' L'.join(points)}"
