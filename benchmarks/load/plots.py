"""Which width answered when, as a picture: a panel for each policy, requests per second over time, stacked by width, and
those that were not served in time on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cells.cell import Array
from benchmarks.cells.shares import TOP1
from benchmarks.load.book import Samples
from benchmarks.load.comparing import PolicyRun
from benchmarks.load.figures import PolicyFigures
from benchmarks.load.wording import goodness
from benchmarks.report.plots.style import COLOURS, INK, few_ticks, label_axes, legend, new_figure, save, titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "load.png"
BINS = 60  # over a trace
LIGHT, DARK = "#cfe3f5", "#0b2a5b"  # the narrowest width, and the widest
MISSED: dict[str, Any] = {"facecolor": "white", "edgecolor": COLOURS[1], "hatch": "////", "linewidth": 0.0}


def draw(
    runs: Sequence[PolicyRun],
    labels: Sequence[str],
    slo_ms: float,
    seconds: float,
    heading: tuple[str, str],
    folder: Path,
    kind: str = TOP1,
) -> Path:
    """Write `load.png` into a folder. `labels`: the widths from the narrowest; `kind`: of accuracies. MissingBackend without
    matplotlib."""
    return save(load_figure(runs, labels, slo_ms, seconds, heading, kind), folder / PICTURE, colours=256)


def load_figure(
    runs: Sequence[PolicyRun],
    labels: Sequence[str],
    slo_ms: float,
    seconds: float,
    heading: tuple[str, str],
    kind: str = TOP1,
) -> Figure:
    """The picture; `heading` is its two lines of title."""
    from matplotlib.patches import Patch

    figure, axes = new_figure(len(runs))
    colours = dict(zip(labels, shades(len(labels)), strict=True))
    top = 0.0
    for panel, run in zip(axes, runs, strict=True):
        edges, rates = rates_over_time(run.whole, labels, slo_ms, seconds, rounds=len(run.figures.attainments))
        _panel(panel, edges, rates, [colours[label] for label in labels])
        label_axes(panel, "time, s", "requests per second", _title(run.figures, kind))
        top = max(top, float(rates.sum(0).max()))
    for panel in axes:
        panel.set_xlim(0, seconds)
        panel.set_ylim(0, 1.08 * top)
        few_ticks(panel.xaxis, panel.yaxis)
    handles = [Patch(facecolor=colours[label]) for label in labels]
    legend(figure, [*handles, Patch(**MISSED)], [*(f"width {label}" for label in labels), "not served in time"])
    titles(figure, *heading)
    return figure


def rates_over_time(
    samples: Samples, labels: Sequence[str], slo_ms: float, seconds: float, rounds: int = 1
) -> tuple[Array, Array]:
    """The edges of BINS equal times, and requests per second in them, [labels + 1, BINS], by the time at which they were to be
    sent: those that each width served in time, and last those that were not served in time. Over the mean of `rounds`."""
    edges = np.linspace(0, seconds, BINS + 1)
    good = samples.in_time(slo_ms)
    kinds = []
    for label in labels:
        place = samples.labels.index(label) if label in samples.labels else -2
        kinds.append(good & (samples.width == place))
    kinds.append(~good)
    counts = np.stack([np.histogram(samples.intended_s[which], edges)[0] for which in kinds])
    return edges, counts / (seconds / BINS) / rounds


def shades(count: int) -> list[str]:
    """From light to dark, so that wider is darker in print too."""
    from matplotlib.colors import to_hex, to_rgb

    low, high = np.array(to_rgb(LIGHT)), np.array(to_rgb(DARK))
    return [to_hex(low + share * (high - low)) for share in np.linspace(0, 1, count)] if count > 1 else [DARK]


def _panel(axes: Axes, edges: Array, rates: Array, colours: Sequence[str]) -> None:
    bottoms = np.cumsum(np.vstack([np.zeros(rates.shape[1]), rates]), axis=0)
    for row, colour in enumerate(colours):
        axes.stairs(bottoms[row + 1], edges, baseline=bottoms[row], fill=True, color=colour, linewidth=0)
    axes.stairs(bottoms[-1], edges, baseline=bottoms[-2], fill=True, **MISSED)
    axes.stairs(bottoms[-1], edges, color=INK, linewidth=0.8)


def _title(of_policy: PolicyFigures, kind: str) -> str:
    known = goodness(of_policy, kind)
    return f"{of_policy.policy}: {100 * of_policy.attainment:.2f} % in time{', ' if known else ''}{known}"
