"""What non-maximum suppression keeps whatever roundings do, what it drops whatever they do, and what they decide.

NMS in three values: one box stays for certain if all that might put it out are gone for certain, and goes for certain if one
that stays for certain puts it out. From "nothing is certain" that is applied until nothing changes (Kleene's least fixed
point); what is then not certain hangs on roundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from slimexport.detector_proof.choices import Limits
from slimexport.target.arrays import Array


@dataclass(frozen=True)
class Uncertain:
    """Candidates of an image: boxes [N, 4], off by `pixels` at most; what each score is at least and at most, `low` and `high`
    [N]; `groups` [N] of which each is chosen from by itself; which are candidates for certain, `there` [N]."""

    boxes: Array
    pixels: float
    low: Array
    high: Array
    groups: Array
    there: Array

    def of(self, chosen: Array) -> Uncertain:
        return Uncertain(
            self.boxes[chosen], self.pixels, self.low[chosen], self.high[chosen], self.groups[chosen], self.there[chosen]
        )


@dataclass(frozen=True)
class Certain:
    """Which `stay` and which `go`, [N] each, for certain."""

    stay: Array
    go: Array


def leading_for_certain(low: Array, high: Array, there: Array, perhaps: Array, count: int) -> Certain:
    """Which of the `perhaps` ones are among the `count` best for certain, and which for certain are not."""
    lows, highs = np.sort(low[there & perhaps]), np.sort(high[perhaps])
    better = len(highs) - np.searchsorted(highs, low, "left")  # itself too
    surely = len(lows) - np.searchsorted(lows, high, "right")
    return Certain(there & (better <= count), ~perhaps | (surely >= count))


def certain(given: Uncertain, limits: Limits) -> Certain:
    """What is chosen for certain by NMS within groups, of the scores' and sides' limits, then the best of all groups."""
    sides = np.minimum(given.boxes[:, 2] - given.boxes[:, 0], given.boxes[:, 3] - given.boxes[:, 1])
    above = given.low >= limits.score if limits.inclusive else given.low > limits.score
    there = given.there & above & (sides >= limits.side + 2 * given.pixels)
    perhaps = (given.high >= limits.score) & (sides >= limits.side - 2 * given.pixels)
    looked_at = leading_for_certain(given.low, given.high, there, perhaps, limits.room)
    stay, go = np.zeros(len(sides), bool), looked_at.go.copy()
    there &= looked_at.stay
    for group in np.unique(given.groups[~go]):
        (own,) = ((given.groups == group) & ~go).nonzero()
        stay[own], go[own] = _suppressed(given.of(own), there[own], limits.overlap)
    best = leading_for_certain(given.low, given.high, stay, ~go, limits.count)
    return Certain(stay & best.stay, go | best.go)


def _suppressed(given: Uncertain, there: Array, threshold: float) -> tuple[Array, Array]:
    """Of one group which stay and which go. `there`: which of them are candidates for certain."""
    overlap, off = _overlaps(given.boxes, given.pixels)
    rivals = given.high[None] >= given.low[:, None]  # that may come before
    np.fill_diagonal(rivals, False)
    may = rivals & (overlap > threshold - off)
    must = (given.low[None] > given.high[:, None]) & (overlap > threshold + off)
    stay, go = np.zeros(len(there), bool), np.zeros(len(there), bool)
    for _ in _rounds(len(there)):
        before = stay, go
        go = np.asarray((must & stay[None]).any(1))
        stay = there & ~np.asarray((may & ~go[None]).any(1))
        if np.array_equal(stay, before[0]) and np.array_equal(go, before[1]):
            break
    return stay, go


def _rounds(count: int) -> Iterator[int]:
    """As many as there can be: every one decides something."""
    return iter(range(2 * count + 2))


def _overlaps(boxes: Array, pixels: float) -> tuple[Array, Array]:
    """The IoU of all with all, and how far it is off where every edge is by `pixels`: an intersection is off by its
    perimeter, at most half of all sides, a union by three times that."""
    inner = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    both = np.clip(inner, 0, None).prod(-1)
    sizes = boxes[:, 2:] - boxes[:, :2]
    areas, lengths = sizes.prod(1), sizes.sum(1)
    union = areas[:, None] + areas[None] - both
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap = np.where(union > 0, both / union, 0.0)
        off = np.where(union > 0, (1 + 3 * overlap) * pixels * (lengths[:, None] + lengths[None]) / union, 1.0)
    return overlap, off
