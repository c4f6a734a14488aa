"""Latency against MACs, next to what it would be if it followed them: a panel per batch.

Both axes begin at zero, so that the ideal is a straight line, what a network costs without MACs shows as the height at which
points begin, and a step of 10 % is as tall as it is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.report.analysis import Group
from benchmarks.report.plots.labels import order_of_importance, place_names, short_name
from benchmarks.report.plots.style import (
    GREY,
    INK,
    few_ticks,
    freeze,
    label_axes,
    legend,
    mac_unit,
    new_figure,
    ring,
    ring_entry,
    titles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

HEADROOM = 1.18  # over the highest point, for its name
DASHES = (0, (5, 3))


def latency_figure(groups: Sequence[Group], heading: str, setting: str) -> Figure:
    """The picture for the measured groups of one bundle, backend and precision."""
    figure, axes = new_figure(len(groups))
    scale, unit = mac_unit(groups)
    (ideal_line, *_) = [_panel(panel, group, scale, unit) for group, panel in zip(groups, axes, strict=True)]
    titles(figure, heading, f"latency against MACs, {setting}")
    references = dict.fromkeys(short_name(group.reference.cell) for group in groups if group.reference)
    ideal = f"if latency followed MACs, from {' or '.join(references)}"
    rings, doubtful = ring_entry(groups)
    names = ["median, bars: lowest and highest median of a round", ideal, *doubtful]
    legend(figure, [axes[0].containers[0], ideal_line, *rings], names)
    freeze(figure)
    for group, panel in zip(groups, axes, strict=True):
        _names(panel, group, scale)
    return figure


def _panel(axes: Axes, group: Group, scale: float, unit: str) -> Line2D:
    """Draw a panel; the line that is the ideal comes back."""
    x, y, lows, highs = _values(group, scale)
    bars = [
        [max(0.0, at - low) for at, low in zip(y, lows, strict=True)],
        [max(0.0, high - at) for at, high in zip(y, highs, strict=True)],
    ]
    axes.errorbar(x, y, yerr=bars, fmt="o-", color=INK, ecolor=INK, linewidth=1.2, markersize=6, capsize=3.5)
    (_, _), (most, ideal) = _ideal(group, scale)
    (line,) = axes.plot([0, most], [0, ideal], linestyle=DASHES, color=GREY, linewidth=1.8, zorder=1)
    axes.set_xlim(0, 1.08 * most)
    axes.set_ylim(0, HEADROOM * max(*highs, ideal))
    ring(axes, [point for row, point in zip(group.measured, zip(x, y, strict=True), strict=True) if row.result.warnings])
    few_ticks(axes.xaxis, axes.yaxis)
    label_axes(axes, f"MACs per image ({unit})", "latency per batch (ms)", f"batch {group.key[3]}")
    return line


def _values(group: Group, scale: float) -> tuple[list[float], list[float], list[float], list[float]]:
    """MACs, medians, and the lowest and highest medians of a round."""
    summaries = [row.summary for row in group.measured if row.summary]
    lows, highs = ([figures.interval_ms[end] for figures in summaries] for end in (0, 1))
    return [scale * row.cell.macs for row in group.measured], [figures.median_ms for figures in summaries], lows, highs


def _ideal(group: Group, scale: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the line through zero and the reference."""
    assert group.reference and group.reference.summary
    most = scale * group.measured[-1].cell.macs
    return (0.0, 0.0), (most, group.reference.summary.median_ms * most / (scale * group.reference.cell.macs))


def _names(axes: Axes, group: Group, scale: float) -> None:
    x, y, lows, highs = _values(group, scale)
    points = list(zip(x, y, strict=True))
    bars = [((at, low), (at, high)) for at, low, high in zip(x, lows, highs, strict=True)]
    names = [(index, short_name(group.measured[index].cell)) for index in order_of_importance(len(points))]
    place_names(axes, points, names, [_ideal(group, scale), *pairwise(points)], bars)
