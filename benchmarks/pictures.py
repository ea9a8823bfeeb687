"""The pictures, as SVG: latency distributions, latency against producers, throughput, growth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.emit import EMPTY_CALL, group
from benchmarks.growth import MEMCPY
from benchmarks.harness import duration
from benchmarks.load import FLAT_OUT, PACED
from benchmarks.payloads import SMALL
from relay_mp._bench.histogram import COARSE, PER_DECADE

STYLE = {
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "relay_mp",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
OURS = "#c2410c"
COLOURS = {
    "nemo-relay": "#4d7c0f",
    "multiprocessing.Queue": "#1d4ed8",
    "SimpleQueue": "#60a5fa",
    "faster-fifo": "#7c3aed",
    "OpenTelemetry SDK": "#0d9488",
    "logging QueueHandler": "#a16207",
}


def _colour(side: str) -> str:
    return OURS if side.startswith("relay_mp") else COLOURS.get(side, "#737373")


def _rows(results: dict[str, Any], part: str, **having: Any) -> list[dict[str, Any]]:
    rows = results["parts"].get(part, {}).get("rows", [])
    return [row for row in rows if all(row.get(name) == value for name, value in having.items())]


def _time_axis(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _position: duration(value)))
    axis.set_minor_formatter(NullFormatter())


def latency(results: dict[str, Any]) -> Any:
    """The share of mark calls that take longer than so much, by peer: the further left and down, the better."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for row in _rows(results, "emit", group=group("mark", SMALL)):
        if row["side"] == EMPTY_CALL or not row["bins"]["counts"]:
            continue
        counts = np.array(row["bins"]["counts"])
        edges = 10 ** ((row["bins"]["first"] + np.arange(len(counts) + 1)) * COARSE / PER_DECADE)
        longer = 1 - np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        ours = row["side"].startswith("relay_mp")
        axes.plot(
            edges[:-1], longer[:-1], label=row["side"], color=_colour(row["side"]), linewidth=2.2 if ours else 1.3,
            linestyle={"relay_mp, dispatcher process": "--", "relay_mp, nobody subscribed": ":"}.get(row["side"], "-"),
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=(1e-4, 1.1))
    axes.set(xlabel="an emit call takes", ylabel="of the calls take longer")
    axes.set_yticks([1, 0.5, 0.1, 0.01, 0.001, 0.0001], ["all", "half", "10 %", "1 %", "0.1 %", "0.01 %"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    _time_axis(axes.xaxis)
    axes.set_title("Emitting a mark with four fields, one producer, one subscriber", loc="left")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def producers(results: dict[str, Any]) -> Any:
    """p50 and p99 of an emit call against the number of producer processes, paced and flat out."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for axes, mode in zip(panels, (PACED, FLAT_OUT), strict=True):
        rows = _rows(results, "load", mode=mode)
        for side in dict.fromkeys(row["side"] for row in rows):
            if side.endswith("threads"):
                continue
            mine = [row for row in rows if row["side"] == side]
            counts = [row["producers"] for row in mine]
            width = 2.2 if side == "relay_mp" else 1.3
            axes.plot(counts, [r["median"] for r in mine], color=_colour(side), linewidth=width, label=side)
            known = [row for row in mine if "p99" in row]
            counts = [row["producers"] for row in known]
            axes.plot(counts, [r["p99"] for r in known], "--", color=_colour(side), linewidth=width)
        axes.set(xscale="log", yscale="log", xlabel="producer processes")
        axes.set_title(mode, loc="left")
        axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        _time_axis(axes.yaxis)
    panels[0].set_ylabel("an emit call: median —, p99 - -")
    panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def throughput(results: dict[str, Any]) -> Any:
    """Events a second from the emit to a Python callback."""
    rows = [row for row in _rows(results, "delivered") if row["unit"] == "events/s"]
    numbers = sorted({row["producers"] for row in rows})
    shape = {"figsize": (10, 3.6), "sharey": True, "layout": "constrained", "squeeze": False}
    figure, panels = plt.subplots(1, max(len(numbers), 1), **shape)
    for axes, number in zip(panels[0], numbers, strict=False):
        mine = [row for row in rows if row["producers"] == number][::-1]
        sides = [row["side"] for row in mine]
        axes.barh(sides, [row["value"] for row in mine], color=[_colour(side) for side in sides])
        axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=3, fontsize=7)
        axes.set(xlabel="events a second")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value / 1000:.0f}k"))
        axes.set_title(f"{number} producers" if number > 1 else "1 producer", loc="left")
        axes.margins(x=0.25)
    return figure


def growth(results: dict[str, Any]) -> Any:
    """The median of a mark against each circumstance."""
    curves = ["stack depth", "attached processes", "subscribers", "ring size, MiB", "payload, bytes"]
    figure, panels = plt.subplots(1, len(curves), figsize=(13, 3.2), layout="constrained")
    for axes, curve in zip(panels, curves, strict=True):
        for named in (curve, *([MEMCPY] if curve.startswith("payload") else [])):
            rows = _rows(results, "growth", curve=named)
            points = [(max(row["x"], 1), row["median"]) for row in rows]
            if points:
                colour = OURS if named == curve else "#737373"
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=named)
        axes.set(xscale="log", xlabel=curve)
        axes.set_ylim(bottom=0)
        if curve.startswith("payload") and axes.lines:
            axes.set(yscale="log")
            axes.legend(fontsize=7)
        _time_axis(axes.yaxis)
    panels[0].set_ylabel("a mark, median")
    return figure


PICTURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "latency": latency, "producers": producers, "throughput": throughput, "growth": growth,
}  # fmt: skip


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Writes all of them; returns the files."""
    files = []
    with plt.rc_context(STYLE):
        for name, picture in PICTURES.items():
            figure = picture(results)
            files.append(directory / f"{name}.svg")
            figure.savefig(files[-1], metadata={"Date": None})
            plt.close(figure)
    return files
