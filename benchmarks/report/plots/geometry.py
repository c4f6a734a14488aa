"""Boxes and lines of a picture, in pixels: what covers and what crosses what."""

from __future__ import annotations

Position = tuple[float, float]
Segment = tuple[Position, Position]
Box = tuple[float, float, float, float]  # left, bottom, right, top


def grown(box: Box, by: float) -> Box:
    """A box with so much more on every side."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes share an area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def crosses(box: Box, start: Position, end: Position) -> bool:
    """Whether a line passes through a box (Liang and Barsky's clipping)."""
    enter, leave = 0.0, 1.0
    for axis in (0, 1):
        low, high, step = box[axis], box[axis + 2], end[axis] - start[axis]
        if step == 0:
            if not low <= start[axis] <= high:
                return False
            continue
        first, second = sorted(((low - start[axis]) / step, (high - start[axis]) / step))
        enter, leave = max(enter, first), min(leave, second)
    return enter <= leave


def meet(one: Segment, other: Segment) -> bool:
    """Whether two lines cross."""

    def side(line: Segment, point: Position) -> float:
        (x, y), (u, v) = line
        return (u - x) * (point[1] - y) - (v - y) * (point[0] - x)

    return side(one, other[0]) * side(one, other[1]) < 0 and side(other, one[0]) * side(other, one[1]) < 0
