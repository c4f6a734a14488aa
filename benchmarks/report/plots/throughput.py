"""Throughput against width, a line per batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.cells.cell import Cell
from benchmarks.report.analysis import AnalysisRow, Group
from benchmarks.report.plots.labels import short_name
from benchmarks.report.plots.style import TEXT_PT, label_axes, legend, mark, new_figure, ratio_axis, ring, ring_entry, titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_GAP = 0.08  # between the names of two widths, of the whole axis
MOST_NAMES = 12  # of plans or switches under the axis


def throughput_figure(groups: Sequence[Group], heading: str, setting: str) -> Figure:
    """The picture for the measured groups of one bundle, backend and precision."""
    figure, (axes,) = new_figure(1)
    cells = _cells(groups)
    numeric = all(isinstance(cell.width, float) for cell in cells)
    places = {cell.label: float(cell.width or 0) if numeric else float(place) for place, cell in enumerate(cells)}
    lines = []
    for index, group in enumerate(groups):
        x = [places[row.cell.label] for row in group.measured]
        size = max(5.0, 10 - 1.5 * index)  # where lines coincide, a smaller mark shows on top of a larger one
        y = [_images(row) for row in group.measured]
        lines += axes.plot(x, y, linewidth=1.8, markersize=size, **mark(index))
        ring(axes, [point for row, point in zip(group.measured, zip(x, y, strict=True), strict=True) if row.result.warnings])
    logarithmic = ratio_axis(axes, [_images(row) for group in groups for row in group.measured])
    if not numeric:
        _name_places(axes, cells)
    elif _apart(list(places.values())):
        axes.set_xticks(list(places.values()), [f"{place:g}" for place in places.values()])
    what = "width" if numeric else "network, in order of MACs"
    label_axes(axes, what, f"images per second{' (log scale)' * logarithmic}", "")
    titles(figure, heading, f"throughput against {'width' if numeric else 'network'}, {setting}")
    rings, doubtful = ring_entry(groups)
    legend(figure, [*lines, *rings], [*(f"batch {group.key[3]}" for group in groups), *doubtful])
    return figure


def _cells(groups: Sequence[Group]) -> list[Cell]:
    """Each measured width once, in order of MACs."""
    cells = {row.cell.label: row.cell for group in groups for row in group.measured}
    return sorted(cells.values(), key=lambda cell: cell.macs)


def _images(row: AnalysisRow) -> float:
    assert row.summary is not None
    return row.summary.images_per_s


def _apart(widths: Sequence[float]) -> bool:
    """Whether there is room for each width's name under the axis."""
    ordered = sorted(widths)
    gaps = [high - low for low, high in pairwise(ordered)]
    return all(gap > LEAST_GAP * (ordered[-1] - ordered[0]) for gap in gaps)


def _name_places(axes: Axes, cells: Sequence[Cell]) -> None:
    """Names under the axis; slanted where they are long, every other one left out where they are many."""
    step = -(-len(cells) // MOST_NAMES)
    named = range(0, len(cells), step)
    names = [short_name(cells[place]) for place in named]
    long = sum(map(len, names)) > 60
    axes.set_xticks(list(named), names, fontsize=TEXT_PT, rotation=30 if long else 0, ha="right" if long else "center")
    axes.set_xlim(-0.5, len(cells) - 0.5)
