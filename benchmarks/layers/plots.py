"""The staircases as pictures: for each kind of layer its time against its channels, one panel for each axis, beside the line
that its MACs promise."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.layers.run import LayerMeasurement, Staircase, title
from benchmarks.report.plots.style import (
    COLOURS,
    GREY,
    INK,
    TEXT_PT,
    device_name,
    label_axes,
    legend,
    new_figure,
    save,
    titles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TICKS = 9
EDGE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": ":"}  # between two treads


def draw(measured: LayerMeasurement, folder: Path) -> list[Path]:
    """Write `staircase_*.png`, one for each layer that was measured finely; their paths.

    Raises MissingBackend (exit code 3) without matplotlib.
    """
    by_layer: dict[str, list[Staircase]] = {}
    for stairs in measured.staircases:
        by_layer.setdefault(stairs.line.entry.layer.name, []).append(stairs)
    return [save(staircase_figure(measured, staircases), folder / _file_name(name)) for name, staircases in by_layer.items()]


def _file_name(layer: str) -> str:
    return "staircase_" + re.sub(r"\W", "_", layer) + ".png"


def staircase_figure(measured: LayerMeasurement, staircases: Sequence[Staircase]) -> Figure:
    """One layer's staircases side by side."""
    from matplotlib.lines import Line2D

    figure, axes = new_figure(len(staircases))
    table = measured.table
    threads = f", {table.threads} thread{'s' * (table.threads != 1)}" if table.threads else ""
    titles(
        figure,
        f"{title(staircases[0])}: {table.network.name} on {device_name(str(table.device['name']))}",
        f"{table.backend}, {table.precision}, batch {table.batch}{threads}",
    )
    handles = [_panel(panel, stairs) for panel, stairs in zip(axes, staircases, strict=True)]
    names = ["measured, and how far rounds differ", "what MACs promise, from the widest on"]
    edges = [Line2D([], [], **EDGE)] if any(stairs.step > 1 for stairs in staircases) else []
    legend(figure, [*handles[0], *edges], [*names, *(["where a step of time lies"] * len(edges))])
    return figure


def _panel(axes: Axes, stairs: Staircase) -> list[object]:
    from matplotlib.ticker import MaxNLocator

    counts = list(stairs.line.counts)
    ms = [time.ms for time in stairs.times]
    noise = [time.noise_ms for time in stairs.times]
    other = ""
    if stairs.line.entry.outputs is not None:
        held = "output" if stairs.line.axis == "input" else "input"
        point = stairs.line.points[0]
        other = f", {point[1] if held == 'output' else point[0]} {held} channels"
    steps = f"steps of {stairs.step}" if stairs.step > 1 else "no steps seen"
    label_axes(axes, f"{stairs.line.what}{other}", "time of the layer, ms", steps)
    for edge in _edges(counts, stairs.step):
        axes.axvline(edge, **EDGE)
    promised = [ms[-1] * count / counts[-1] for count in counts]
    (line,) = axes.plot(counts, promised, color=GREY, linestyle="--", linewidth=1.6)
    points = axes.errorbar(
        counts, ms, yerr=noise, color=COLOURS[0], marker="o", markersize=5, linewidth=1.2, capsize=2.5, ecolor=COLOURS[0]
    )
    axes.set_xlim(counts[0] - (counts[-1] - counts[0]) * 0.04, counts[-1] + (counts[-1] - counts[0]) * 0.04)
    axes.set_ylim(0, 1.15 * max(a + b for a, b in zip(ms, noise, strict=True)))
    every = -(-len(counts) // MOST_TICKS)
    axes.set_xticks(counts[::every])
    axes.tick_params(labelsize=TEXT_PT, colors=INK)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(axis="x", visible=False)
    return [points, line]


def _edges(counts: Sequence[int], step: int) -> list[float]:
    """Where one tread ends and the next begins, between neighbouring counts."""
    if step == 1:
        return []
    return [(a + b) / 2 for a, b in itertools.pairwise(counts) if -(-a // step) != -(-b // step)]
