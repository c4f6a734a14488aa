"""Keypoints of a detection next to the reference's.

A keypoint is a pixel of its detection's own grid, the one where a map is highest. So it is where the reference has it, or, of
pixels that are as good as equally high there, at one of these. How fine the grid is a side's length says, rounded up: where
that is so near a whole number that it may be rounded the other way, all pixels lie up to one aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slimexport.target.arrays import Array


@dataclass(frozen=True)
class PointRows:
    """Of a detection: `points` [K, 3] and `scores` [K]; of the reference's the corners of what is as good as highest there,
    `low` and `high` [K, 2]."""

    points: Array
    scores: Array
    low: Array | None = None
    high: Array | None = None


@dataclass(frozen=True)
class PointCheck:
    """`error`: the largest, in pixels, of points that stand where the reference's do; `moved`: how many stand where it is as
    good as equally high; `fault` in words."""

    error: float = 0.0
    moved: int = 0
    fault: str = ""


def check_points(own: PointRows, other: PointRows, box: Array, pixels: float, score: float) -> PointCheck:
    """A file's points of a detection next to the reference's, whose `box` [4] may be off by `pixels`; scores may be by
    `score`."""
    apart = np.abs(own.points.astype(np.float64) - other.points)
    off = np.abs(own.scores.astype(np.float64) - other.scores)
    if not (off <= score).all():
        worst = int(off.argmax())
        return PointCheck(fault=f"the score of keypoint {worst} is off by {off[worst]:.3g} (at most {score:.1g})")
    if apart[:, 2].any():
        return PointCheck(fault=f"keypoint {int(apart[:, 2].argmax())} is said to be {own.points[:, 2].min():g}, expected 1")
    room = _room(box, pixels)
    there = (apart[:, :2] <= pixels).all(1)
    low, high = (other.points[:, :2] if edge is None else edge for edge in (other.low, other.high))
    near = ((own.points[:, :2] >= low - room) & (own.points[:, :2] <= high + room)).all(1)
    if not near.all():
        worst = int(np.where(near, -1.0, apart[:, :2].max(1)).argmax())
        mine, its = (f"[{x:.2f}, {y:.2f}]" for x, y, _ in (own.points[worst], other.points[worst]))
        return PointCheck(fault=f"keypoint {worst} is at {mine}, the reference's at {its}")
    return PointCheck(float(apart[there, :2].max(initial=0.0)), int((~there).sum()))


def _room(box: Array, pixels: float) -> Array:
    """How far off points may be for their box alone, along x and y."""
    lengths = np.maximum(box[2:] - box[:2], 1)
    rounded = np.abs(lengths - np.rint(lengths)) <= 2 * pixels
    return np.where(rounded & (lengths > 1), 1 + pixels, pixels)
