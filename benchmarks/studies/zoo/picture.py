"""Published error against what it costs, all networks in one picture: a panel for each batch's measured latency, one for MACs.

Colour is the architecture, the mark's form the family, so that neither is needed alone; a filled mark is worth shipping, a
pale one costs the same as a better one within noise, a hollow one is beaten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.report.plots.beside import Name, place_beside
from benchmarks.report.plots.geometry import Position, Segment
from benchmarks.report.plots.style import COLOURS, GREY, INK, TEXT_PT, freeze, label_axes, new_figure, plain_ticks, titles
from benchmarks.studies.zoo.front import ARCHITECTURES, FAMILIES, Front, Point, by_network, joint_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAVY, ORANGE, SKY, PURPLE, AMBER, _ = COLOURS
COLOUR = dict(zip(ARCHITECTURES, (NAVY, ORANGE, AMBER, SKY, PURPLE), strict=True))
FORM = {"s": ("s", 5.5), "us": ("o", 5.0), "autoslim": ("D", 6.0)}  # marker and size
KINDS = WORTH, SAME, BEATEN = ("worth shipping", "as good within the noise", "beaten by another")
LEFT, RIGHT = 0.22, 1.4  # beyond the cheapest and the dearest point: room for names
FEW = 3  # switches that are named one by one
MOST_PLACES = 7  # points of a network beside which its name is tried
PALE = 0.35  # of a network's colour, where it is not worth shipping
SIDES = (
    ((-1, -1), (-1, 0), (0, -1), (-2, -1), (-1, -2), (1, -2), (1, -1)),
    ((1, 1), (0, 1), (1, 0), (2, 1), (1, 2), (-1, 1), (-1, 2)),
)  # where names are tried: what is better than the front is empty


def zoo_figure(panels: Mapping[str, Sequence[Point]], axis: Mapping[str, str], heading: str, setting: str) -> Figure:
    """The picture. `panels`: title to points; `axis`: title to what the costs are, with their unit."""
    figure, axes = new_figure(len(panels) + 1, most_across=2)
    titles(figure, heading, setting)
    fronts = {title: joint_front(points) for title, points in panels.items()}
    errors = [point.error for points in panels.values() for point in points]
    for panel, (title, points) in zip(axes, panels.items(), strict=False):
        _panel(panel, points, fronts[title])
        panel.set_ylim(min(errors) - 4, max(errors) + 1)
        label_axes(panel, axis[title], "top-1 error (%), published", title)
    _legend(axes[-1], [point for points in panels.values() for point in points])
    freeze(figure)
    for panel, (title, points) in zip(axes, panels.items(), strict=False):
        _names(panel, points, fronts[title])
    return figure


def kind_of(point: Point, front: Front) -> str:
    """Whether it is worth shipping, as good within the noise, or beaten."""
    return WORTH if point in front.worth else SAME if point in front.points else BEATEN


def _panel(axes: Axes, points: Sequence[Point], front: Front) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = LEFT * min(point.cost for point in points), RIGHT * max(point.cost for point in points)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in plain_ticks(low, high) if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.6g}"))
    for start, end in _steps(front):
        axes.plot(
            [start[0], end[0]], [start[1], end[1]], color=GREY, linewidth=2.4, alpha=0.6, zorder=1, solid_capstyle="round"
        )
    for network in dict.fromkeys(point.cell.network for point in points):
        mine = sorted((point for point in points if point.cell.network == network), key=lambda point: -point.error)
        colour = COLOUR[mine[0].architecture]
        axes.plot([at.cost for at in mine], [at.error for at in mine], color=colour, linewidth=0.9, alpha=PALE, zorder=2)
        for point in mine:
            axes.plot([point.low, point.high], [point.error] * 2, color=colour, linewidth=1.0, alpha=PALE, zorder=2)
    for order, kind in enumerate(reversed(KINDS)):
        for point in points:
            if kind_of(point, front) == kind:
                axes.plot([point.cost], [point.error], zorder=3 + order, **_mark(point, kind))


def _mark(point: Point, kind: str) -> dict[str, Any]:
    form, size = FORM[point.family]
    colour = COLOUR[point.architecture]
    if kind == WORTH:
        return {"marker": form, "markersize": size + 2, "color": colour, "markeredgecolor": "white", "markeredgewidth": 0.6}
    fill = _mixed(colour) if kind == SAME else "white"
    return {
        "marker": form,
        "markersize": size,
        "markerfacecolor": fill,
        "markeredgecolor": colour,
        "alpha": 0.8,
        "linestyle": "",
    }


def _mixed(colour: str) -> tuple[float, float, float]:
    """A colour with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - PALE * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _steps(front: Front) -> list[Segment]:
    """What is worth shipping as stairs: along, down, along, down."""
    lines: list[Segment] = []
    for one, other in pairwise(front.worth):
        lines += [((one.cost, one.error), (other.cost, one.error)), ((other.cost, one.error), (other.cost, other.error))]
    return lines


def _names(axes: Axes, points: Sequence[Point], front: Front) -> None:
    """Each network once, beside what of it is worth shipping."""
    names = []
    for network, worth in by_network(front.worth).items():
        places: list[Position] = [(point.cost, point.error) for point in _middle_first(worth)]
        names.append(Name(f"{network}\n{_span(worth)}", places[:MOST_PLACES]))
    marks = [(point.cost, point.error) for point in points]
    place_beside(axes, names, marks, _steps(front), SIDES)


def _span(points: Sequence[Point]) -> str:
    """`s1, s2`, or `0.25x ... 0.725x`: few switches one by one, of many the ends."""
    labels = [point.cell.label for point in points]
    return ", ".join(labels) if len(labels) <= FEW else f"{labels[0]} ... {labels[-1]}"


def _middle_first(points: Sequence[Point]) -> list[Point]:
    return [points[at] for at in sorted(range(len(points)), key=lambda at: abs(at - (len(points) - 1) / 2))]


def _legend(axes: Axes, points: Sequence[Point]) -> None:
    """Architectures by colour, families by form, and what fills say, in a panel of its own."""
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    axes.axis("off")
    plain: dict[str, Any] = {"linestyle": "", "markersize": 8}
    families = [family for family in FAMILIES if any(point.family == family for point in points)]
    columns = [
        (
            "architecture",
            [
                (name, Line2D([], [], color=COLOUR[key], linewidth=5))
                for key, name in ARCHITECTURES.items()
                if any(point.architecture == key for point in points)
            ],
        ),
        ("trained as", [(TRAINED[key], Line2D([], [], marker=FORM[key][0], color=INK, **plain)) for key in families]),
        (
            "in each panel",
            [
                (WORTH, Line2D([], [], marker="o", color=INK, **plain)),
                (SAME, Line2D([], [], marker="o", color=INK, markerfacecolor=_mixed(INK), **plain)),
                (BEATEN, Line2D([], [], marker="o", color=INK, markerfacecolor="white", **plain)),
                ("joint Pareto front", Line2D([], [], color=GREY, linewidth=2.4, alpha=0.6)),
            ],
        ),
    ]
    for (title, entries), (x, y) in zip(columns, ((0.0, 1.0), (0.0, 0.5), (0.46, 1.0)), strict=True):
        shown = Legend(
            axes,
            [handle for _, handle in entries],
            [name for name, _ in entries],
            title=title,
            loc="upper left",
            bbox_to_anchor=(x, y),
            fontsize=TEXT_PT,
            title_fontsize=TEXT_PT + 1,
            alignment="left",
            frameon=False,
        )
        axes.add_artist(shown)


TRAINED = {"s": "S: a few switches", "us": "US: any width", "autoslim": "AutoSlim: searched"}
