"""Names near points of a crowded picture, with a thin line to their point where they stand further off.

Each name is tried in directions and at distances of its points; of all arrangements the one is drawn in which the fewest names
are left out and the rest stand nearest.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

from benchmarks.report.plots.geometry import Box, Position, Segment, crosses, grown, meet, overlap
from benchmarks.report.plots.style import GREY, INK, TEXT_PT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISTANCES = (8, 16, 26, 38, 52, 68, 86, 106, 130)  # points between a mark's middle and a name
CLOSE = 8  # up to here a name needs no line to its point
MARK, ROOM, GAP = 4.5, 3.0, 4.0  # points: from a mark's middle to its edge, free around names, free around a mark
MOST = 60  # places of a name
LEFT_OUT = 1000.0  # points of distance that a name is worth
WORSE = 80.0  # points of distance that a group of directions is worse than the one before
Directions = Sequence[Sequence[Position]]  # groups, the better ones first: (-1, -1) is below and left


@dataclass(frozen=True)
class Name:
    """A text and the points in data coordinates that it may stand for."""

    text: str
    points: Sequence[Position]


@dataclass(frozen=True)
class Place:
    """Where a name would stand, in pixels: its box, the number of its point, the line to it; and what that costs."""

    point: int
    offset: Position
    box: Box
    line: Segment | None
    cost: float


def place_beside(
    axes: Axes, names: Sequence[Name], marks: Sequence[Position], lines: Sequence[Segment], directions: Directions
) -> list[str]:
    """Write `names`; none covers one of `marks` or `lines`, a name or its line. Data coordinates; the layout must be final.
    Returns the names that found no place."""
    scale = axes.figure.dpi / 72

    def pixels(point: Position) -> Position:
        x, y = axes.transData.transform(point)
        return float(x), float(y)

    window = axes.get_window_extent()
    inside = grown((window.x0, window.y0, window.x1, window.y1), -ROOM * scale)
    boxes = [grown((x, y, x, y), MARK * scale) for x, y in map(pixels, marks)]
    strokes = [(pixels(start), pixels(end)) for start, end in lines]
    places = [
        list(_places(_size(axes, name.text), [pixels(point) for point in name.points], directions, scale)) for name in names
    ]
    open_ = [[place for place in own if _is_free(place, inside, boxes, strokes)] for own in places]
    chosen = arrange(open_, ROOM * scale)
    for name, place in zip(names, chosen, strict=True):
        if place is not None:
            _write(axes, name.text, name.points[place.point], place)
    return [name.text for name, place in zip(names, chosen, strict=True) if place is None]


def arrange(places: Sequence[Sequence[Place]], room: float) -> list[Place | None]:
    """A place for each name out of its own, so that no two names are nearer than `room` and none crosses another's line, of
    the least cost together; None for a name that is left out. By branch and bound: exact, but for names of many places, of
    which the MOST cheapest are tried."""
    tried = [sorted(own, key=lambda place: place.cost)[:MOST] for own in places]
    order = sorted(range(len(tried)), key=lambda at: len(tried[at]))  # what has little choice chooses first
    least_of_rest = [0.0]
    for at in reversed(order):
        least_of_rest.insert(0, least_of_rest[0] + min((place.cost for place in tried[at]), default=LEFT_OUT))
    best: dict[int, Place | None] = {}
    least = LEFT_OUT * len(places) + 1
    disturb = functools.cache(lambda one, other: _disturb(one, other, room))

    def choose(number: int, taken: dict[int, Place | None], cost: float) -> None:
        nonlocal best, least
        if cost + least_of_rest[number] >= least:
            return
        if number == len(order):
            best, least = dict(taken), cost
            return
        at = order[number]
        for place in (*tried[at], None):
            if place is None or not any(disturb(other, place) for other in taken.values() if other is not None):
                choose(number + 1, {**taken, at: place}, cost + (LEFT_OUT if place is None else place.cost))

    choose(0, {}, 0.0)
    return [best.get(at) for at in range(len(places))]


def _places(size: Position, points: Sequence[Position], directions: Directions, scale: float) -> Iterator[Place]:
    """All places of a name of a size in pixels, by rising cost."""
    wide, high = size
    every = []
    for number, group in enumerate(directions):
        for x, y in group:
            for away in DISTANCES:
                for at, (left, bottom) in enumerate(points):
                    offset = away * x / hypot(x, y), away * y / hypot(x, y)
                    end = left + scale * offset[0], bottom + scale * offset[1]
                    low = end[0] - wide * (x < 0) - wide / 2 * (x == 0), end[1] - high * (y < 0) - high / 2 * (y == 0)
                    line = (
                        ((left + GAP * scale * x / hypot(x, y), bottom + GAP * scale * y / hypot(x, y)), end)
                        if away > CLOSE
                        else None
                    )
                    box = (*low, low[0] + wide, low[1] + high)
                    every.append(Place(at, offset, box, line, away + WORSE * number + at))
    yield from sorted(every, key=lambda place: place.cost)


def _is_free(place: Place, inside: Box, boxes: Sequence[Box], strokes: Sequence[Segment]) -> bool:
    box, line = place.box, place.line
    within = inside[0] <= box[0] and box[2] <= inside[2] and inside[1] <= box[1] and box[3] <= inside[3]
    return (
        within
        and not any(overlap(box, other) for other in boxes)
        and not any(crosses(box, *stroke) for stroke in strokes)
        and not (line and sum(crosses(other, *line) for other in boxes) > 1)  # its own mark's box may be touched
    )


def _disturb(one: Place, other: Place, room: float) -> bool:
    """Whether two names, or a name and the other's line, come too near to each other, or both lines cross."""
    first, second = grown(one.box, room), grown(other.box, room)
    return (
        overlap(one.box, second)
        or bool(other.line and crosses(first, *other.line))
        or bool(one.line and crosses(second, *one.line))
        or bool(one.line and other.line and meet(one.line, other.line))
    )


def _size(axes: Axes, text: str) -> Position:
    """Of a written text, in pixels."""
    shown = axes.text(0.5, 0.5, text, fontsize=TEXT_PT, transform=axes.transAxes)
    box = shown.get_window_extent()
    shown.remove()
    return box.width, box.height


def _write(axes: Axes, text: str, point: Position, place: Place) -> None:
    x, y = place.offset
    across = "center" if x == 0 else "left" if x > 0 else "right"
    along = "center" if y == 0 else "bottom" if y > 0 else "top"
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": GAP} if place.line else None
    for shown in (
        axes.annotate(text, point, place.offset, textcoords="offset points", fontsize=TEXT_PT, color=INK, ha=across, va=along),
        *([axes.annotate("", point, place.offset, textcoords="offset points", arrowprops=line)] if line else []),
    ):
        shown.set_in_layout(False)
