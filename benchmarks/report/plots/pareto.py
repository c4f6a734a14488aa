"""The Pareto front: accuracy, or MACs in its place, against latency. A panel per batch.

Three marks: dark, worth shipping; grey, on the front but no faster than the next by more than noise; hollow, beaten.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.cells.shares import TOP1, key_of
from benchmarks.cells.statistics import standard_error
from benchmarks.report.analysis import ACCURACY, AnalysisRow, Group, capability
from benchmarks.report.plots.geometry import Position, Segment
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

FRONT_WIDTH, BAR_WIDTH = 2.4, 1.0
MARGIN = 0.14  # around the points, of their range
AVERAGE_PRECISION = "average precision"
FILLS = (("worth shipping", INK), ("on the front, but within noise of the next", "#b5b5b5"), ("beaten by another", "white"))


def pareto_figure(groups: Sequence[Group], heading: str, setting: str) -> Figure:
    """The picture for the measured groups of one bundle, backend and precision."""
    figure, axes = new_figure(len(groups))
    scale, unit = mac_unit(groups)
    for group, panel in zip(groups, axes, strict=True):
        _panel(panel, group, _points(group, scale), unit)
    against = " or ".join(dict.fromkeys(map(_against, groups)))
    titles(figure, heading, f"{against} against latency, {setting}")
    from matplotlib.lines import Line2D

    used = {_fill(group, row) for group in groups for row in group.measured}
    shown = [(name, fill) for name, fill in FILLS if fill in used]
    handles = [Line2D([], [], marker="o", markersize=8, color=INK, markerfacecolor=fill, linestyle="") for _, fill in shown]
    error = ", a standard error of the accuracy" * any(_error(group, row) > 0 for group in groups for row in group.measured)
    front, bars = Line2D([], [], color=GREY, linewidth=FRONT_WIDTH), Line2D([], [], color=GREY, linewidth=BAR_WIDTH)
    rings, doubtful = ring_entry(groups)
    names = [*(name for name, _ in shown), "Pareto front", f"bars: medians of rounds{error}", *doubtful]
    legend(figure, [*handles, front, bars, *rings], names)
    freeze(figure)
    for group, panel in zip(groups, axes, strict=True):
        _names(panel, group, _points(group, scale))
    return figure


def _points(group: Group, scale: float) -> list[Position]:
    """Latency in ms, and accuracy in percent or MACs, of the measured rows."""
    unit = 100.0 if group.against == ACCURACY else scale
    return [(row.summary.median_ms, unit * capability(row, group.against)) for row in group.measured if row.summary]


def _fill(group: Group, row: AnalysisRow) -> str:
    place = 0 if row in group.worth else 1 if row in group.front else 2
    return FILLS[place][1]


def _panel(axes: Axes, group: Group, points: Sequence[Position], unit: str) -> None:
    for lines, wide, order in ((_steps(group, points), FRONT_WIDTH, 1), (_bars(group, points), BAR_WIDTH, 2)):
        for start, end in lines:
            axes.plot([start[0], end[0]], [start[1], end[1]], color=GREY, linewidth=wide, zorder=order)
    for row, (x, y) in zip(group.measured, points, strict=True):
        axes.plot([x], [y], marker="o", markersize=7.5, color=INK, markerfacecolor=_fill(group, row), linestyle="", zorder=3)
    values = [y for _, y in points]
    spread = (max(values) - min(values)) or (1.0 if group.against == ACCURACY else max(values))
    margin = max(MARGIN * spread, 1.3 * max(_error(group, row) for row in group.measured))
    axes.set_xlim(0, max(*((1 + MARGIN) * x for x, _ in points), *(1.02 * end[0] for _, end in _bars(group, points))))
    lowest = min(values) - margin if group.against == ACCURACY else 0.0  # MACs are counted from none, as in other pictures
    axes.set_ylim(max(0.0, lowest), max(values) + margin)
    ring(axes, [point for row, point in zip(group.measured, points, strict=True) if row.result.warnings])
    few_ticks(axes.xaxis, axes.yaxis)
    if group.against == ACCURACY:  # there is room for names above 100 %, but nothing to be read there
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(high, 100)])
    what = _accuracy_name(group) if group.against == ACCURACY else f"MACs per image ({unit})"
    label_axes(axes, "latency per batch (ms)", what, f"batch {group.key[3]}")


def _against(group: Group) -> str:
    """What a title says is shown."""
    return group.against if group.against != ACCURACY or _is_top1(group) else AVERAGE_PRECISION


def _accuracy_name(group: Group) -> str:
    return f"{'top-1 accuracy' if _is_top1(group) else AVERAGE_PRECISION} (%)"


def _is_top1(group: Group) -> bool:
    known = [row.cell.accuracy for row in group.measured if row.cell.accuracy]
    return key_of(known[0]) == TOP1


def _steps(group: Group, points: Sequence[Position]) -> list[Segment]:
    """The front as stairs: along, up, along, up."""
    front = [points[group.measured.index(row)] for row in group.front]
    lines: list[Segment] = []
    for (x, y), (next_x, next_y) in pairwise(front):
        lines += [((x, y), (next_x, y)), ((next_x, y), (next_x, next_y))]
    return lines


def _bars(group: Group, points: Sequence[Position]) -> list[Segment]:
    """Lowest to highest median of a round, and a standard error of an accuracy to both sides."""
    lines: list[Segment] = []
    for row, (x, y) in zip(group.measured, points, strict=True):
        assert row.summary is not None
        low, high = row.summary.interval_ms
        error = _error(group, row)
        lines += [((low, y), (high, y)), ((x, y - error), (x, y + error))]
    return lines


def _error(group: Group, row: AnalysisRow) -> float:
    """A standard error of an accuracy, in points: what the number of images leaves open."""
    return 100 * standard_error(row.cell.accuracy) if group.against == ACCURACY else 0.0


def _names(axes: Axes, group: Group, points: Sequence[Position]) -> None:
    """Those worth shipping first."""
    order = order_of_importance(len(points))
    order.sort(key=lambda index: group.measured[index] not in group.worth)
    names = [(index, short_name(group.measured[index].cell)) for index in order]
    place_names(axes, points, names, _steps(group, points), _bars(group, points))
