"""How plots look: sizes, fonts, marks that stay apart without colour, ticks in plain numbers, files that are the same every
time. Uses matplotlib's objects, not pyplot, so that nothing global changes."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.report.analysis import Group
from slimexport.target.errors import MissingBackend
from slimtrain.base.files import write_atomically
from slimtrain.base.packages import install_command
from slimtrain.base.untrusted.quoting import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 160
PALETTE = 64  # colours of a file: a third of the size, and no difference to be seen
TITLE_PT, TEXT_PT = 15, 12
INK, GREY, PALE = "#1a1a1a", "#8c8c8c", "#d0d0d0"
COLOURS = ("#0b2a5b", "#c8470d", "#2f9fd0", "#7a5195", "#d9a400", "#3d7a3d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RING: dict[str, Any] = {
    **{"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.1},
    **{"linestyle": "", "zorder": 2.5},
}  # around what was measured with a warning
LINES = ("-", "--", "-.", ":")
MARK_LETTERS = 9  # what a legend's mark and the gaps around it take
PANELS_ACROSS = 3
PANEL_INCHES = {1: (9.0, 4.2), 2: (6.0, 4.2), 3: (4.6, 4.2)}  # by panels in a row
AROUND_INCHES = 1.7  # titles above, legend below
SPAN_FOR_LOG = 6  # highest over lowest value, from which on an axis is logarithmic


def new_figure(panels: int, most_across: int = PANELS_ACROSS) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, at most `most_across` in a row. Raises MissingBackend without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackend(
            f"plots need matplotlib ({error}): {install_command('matplotlib')}. Everything else is written."
        ) from error
    across = min(panels, most_across)
    down = math.ceil(panels / across)
    wide, high = PANEL_INCHES[across]
    figure = Figure(figsize=(wide * across, high * down + AROUND_INCHES), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.03)  # type: ignore[union-attr, call-arg]
    axes = [figure.add_subplot(down, across, index + 1) for index in range(panels)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=TEXT_PT, colors=INK)
        panel.grid(color=PALE, linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, axes


def titles(figure: Figure, first: str, second: str) -> None:
    """Two lines over a figure, wrapped to its width."""
    room = int(figure.get_figwidth() * 72 / (0.58 * TITLE_PT))
    text = printable(textwrap.fill(first, room) + "\n" + textwrap.fill(second, room))
    figure.suptitle(text, fontsize=TITLE_PT, color=INK, parse_math=False)


def label_axes(axes: Axes, x: str, y: str, title: str) -> None:
    """Names with units, and what a panel shows."""
    axes.set_xlabel(x, fontsize=TEXT_PT, color=INK)
    axes.set_ylabel(y, fontsize=TEXT_PT, color=INK)
    axes.set_title(title, fontsize=TEXT_PT + 1, color=INK, loc="left")


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend below the panels, in as few rows as fit."""
    room = figure.get_figwidth() * 72 / (0.55 * TEXT_PT)
    fitting = [columns for columns in range(1, len(names) + 1) if _letters(names, columns) <= room]
    columns = max(fitting, default=1)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=TEXT_PT, frameon=False)


def _letters(names: Sequence[str], columns: int) -> int:
    """How wide a legend of so many columns is, which are filled one after the other."""
    parts = np.array_split(np.array([len(name) for name in names]), columns)
    return sum(int(part.max()) + MARK_LETTERS for part in parts)


def ring(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Mark points as measured with a warning: a thin ring around each."""
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, **RING)


def ring_entry(groups: Sequence[Group]) -> tuple[list[Any], list[str]]:
    """What a legend says of rings: handles and names, none where no cell has a warning."""
    from matplotlib.lines import Line2D

    doubtful = [row for group in groups for row in group.measured if row.result.warnings]
    return ([Line2D([], [], **RING)], ["measured with a warning"]) if doubtful else ([], [])


def freeze(figure: Figure) -> None:
    """Lay the figure out, and keep that: what is added afterwards moves nothing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def mac_unit(groups: Sequence[Group]) -> tuple[float, str]:
    """What MACs are multiplied by, and the unit that they have then."""
    most = max(row.cell.macs for group in groups for row in group.measured)
    return (1e-9, "G") if most >= 2e9 else (1e-6, "M")


def mark(index: int) -> dict[str, Any]:
    """Colour, marker and line of the index-th series: markers and lines alone tell 32 series apart."""
    line = LINES[(index + index // len(MARKERS)) % len(LINES)]
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "linestyle": line}


def plain_ticks(low: float, high: float) -> list[float]:
    """Some 1, 2, 5, 10, ... from below `low` to above `high`, both positive."""
    ticks = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 5)
    ]
    first = max((tick for tick in ticks if tick <= low), default=ticks[0])
    last = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if first <= tick <= last]


def few_ticks(*axes: Axis) -> None:
    """At most seven ticks at round values, named in plain numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.6g}"))


def ratio_axis(axes: Axes, values: Sequence[float]) -> bool:
    """Scale the y axis for positive values: from zero, or, where they span more than SPAN_FOR_LOG, so that equal ratios are
    equally tall; whether it is so."""
    from matplotlib.ticker import FixedLocator, NullLocator

    few_ticks(axes.yaxis)
    logarithmic = max(values) > SPAN_FOR_LOG * min(values)
    if logarithmic:
        name = axes.yaxis.get_major_formatter()
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(plain_ticks(min(values), max(values))))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(name)
        axes.set_ylim(min(values) / 1.25, max(values) * 1.25)
    else:
        axes.set_ylim(0, 1.12 * max(values))
    return logarithmic


def device_name(text: str) -> str:
    """`Intel(R) Xeon(R) CPU @ 2.20GHz` without its marks."""
    return re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*$", "", text, flags=re.IGNORECASE)).strip()


def save(figure: Figure, path: Path, colours: int = PALETTE) -> Path:
    """Write a PNG of few `colours`, the same bytes for the same figure; at once."""
    from io import BytesIO

    from PIL import Image

    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
    content = BytesIO()
    few = pixels.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(content, format="png", optimize=True, dpi=(DPI, DPI))
    write_atomically(path, content.getvalue())
    return path
