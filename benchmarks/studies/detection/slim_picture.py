"""What slimming the backbone alone buys, and slimming all, in one picture: multiply-accumulates and latency against width, and
what is left of each part at the narrowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.report.plots.style import (
    INK,
    TEXT_PT,
    device_name,
    few_ticks,
    label_axes,
    legend,
    mark,
    new_figure,
    titles,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
NAMES = {"backbone": "the backbone slimmed alone, as published", "all": "pyramid and heads slimmed too"}
SHORT = {"backbone": "backbone alone", "all": "all"}
# What is computed at every place in blues, what is of regions in sand, what follows in green
PARTS = ("#2f4b73", "#6d93bd", "#b9d0e6", "#8a6d3b", "#d9b66f", "#7fa37a", "#c4d8be")
HEADROOM = 1.12


def slim_figure(rows: Rows, macs_size: str, latency_size: str, device: str, backend: str) -> Figure:
    """`rows` as `benchmarks.studies.detection.slim` measures them. Raises MissingBackend without matplotlib."""
    figure, (macs, latency, parts) = new_figure(3)
    lines = _lines(macs, rows, "macs", 1e-9)
    _lines(latency, rows, "ms", 1.0)
    _bars(parts, rows)
    label_axes(macs, "width", "multiply-accumulates (G)", f"promised, {macs_size} px")
    label_axes(latency, "width", "latency of an image (ms)", f"measured, {latency_size} px")
    label_axes(parts, "width, and what is slimmed", "latency of an image (ms)", "its parts")
    titles(figure, f"Faster R-CNN on ResNet-50 on {device_name(device)}", f"{backend}, fp32, batch 1")
    legend(figure, lines, list(NAMES.values()))
    return figure


def _lines(axes: Axes, rows: Rows, key: str, scale: float) -> list[Any]:
    """Both ways against width, with how many times less than the whole each is."""
    whole = next(row for row in rows if row["width"] == 1.0)
    lines = []
    for number, slim in enumerate(NAMES):
        mine = sorted((row for row in rows if row["slim"] == slim or row is whole), key=lambda row: float(row["width"]))
        x, y = [row["width"] for row in mine], [scale * row[key] for row in mine]
        lines += axes.plot(x, y, linewidth=1.8, markersize=8, **mark(number))
        side = -1 if slim == "backbone" else 1  # above and to the left of its line, or below and to the right
        place: dict[str, Any] = {"ha": "right" if side < 0 else "left", "va": "bottom" if side < 0 else "top"}
        place |= {"fontsize": TEXT_PT, "color": INK}
        for row, at in zip(mine, y, strict=True):
            if row is not whole:
                text = f"{whole[key] / row[key]:.3g}x"
                offset = (4 * side, -5 * side)
                axes.annotate(text, (row["width"], at), offset, textcoords="offset points", **place)
    most = max(scale * row[key] for row in rows)
    axes.set_ylim(0, HEADROOM * most)
    axes.set_xlim(0.08, 1.08)
    few_ticks(axes.yaxis)
    axes.set_xticks(sorted({float(row["width"]) for row in rows}))
    return lines


def _bars(axes: Axes, rows: Rows) -> None:
    """The whole, and the narrowest of both ways, each a bar of its parts."""
    narrowest = min(row["width"] for row in rows)
    whole = next(row for row in rows if row["width"] == 1.0)
    shown = [whole, *(row for slim in NAMES for row in rows if (row["slim"], row["width"]) == (slim, narrowest))]
    names = list(dict.fromkeys(part for row in shown for part in row["parts"]))
    below, bars = [0.0] * len(shown), []
    for part, colour in zip(names, PARTS, strict=False):
        heights = [max(0.0, row["parts"].get(part, 0.0)) for row in shown]  # differences, which noise may turn round
        bars.append(axes.bar(range(len(shown)), heights, bottom=below, width=0.62, color=colour, edgecolor="white"))
        below = [low + high for low, high in zip(below, heights, strict=True)]
    axes.legend(bars[::-1], names[::-1], loc="upper right", fontsize=TEXT_PT - 1, frameon=False)
    axes.set_xticks(range(len(shown)), ["1.0x", *(f"{row['width']:g}x\n{SHORT[row['slim']]}" for row in shown[1:])])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(0, HEADROOM * max(below))
    axes.grid(visible=False, axis="x")
    few_ticks(axes.yaxis)
