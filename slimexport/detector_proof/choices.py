"""Whether boxes were chosen rightly by scores and overlaps, as far as numbers of float32 can tell.

Non-maximum suppression is a fixed point: what stays is overlapped by nothing better that stays, and what goes is. So a choice
is judged by itself, box by box, and not by what another computation chose: where an overlap lies at its threshold, or two
scores are equal but for their last bits, either answer is right, and so is all that follows from it. Such a *tie* is counted.
What no rounding explains is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from slimexport.target.arrays import Array

ROUNDING = 2.0**-24  # of a float32
LEEWAY = 16.0  # roundings that one number may have seen
SCORE_MARGIN = 2e-7  # what runtimes' own sigmoid and exponential are off by, near 0 and near 1 too


@dataclass(frozen=True)
class Limits:
    """`score`: the least, which itself counts if `inclusive`; `side`: the least, in pixels; `overlap`: the IoU above which the
    worse of two of a group goes; `count`: how many stay at most; `room`: how many by score are looked at, of each group
    where they are `apart`."""

    score: float
    side: float
    overlap: float
    count: int
    room: int
    inclusive: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Candidates:
    """What of one image is chosen from, in float64: boxes [N, 4], how far float32 may have them off [N], scores [N], groups
    [N] of which each is chosen from by itself, and, where a number says exactly which is preferred in its group, `ranks` [N],
    0 first."""

    boxes: Array
    margins: Array
    scores: Array
    groups: Array
    ranks: Array | None = None

    def score_margin(self) -> Array:
        return SCORE_MARGIN + LEEWAY * ROUNDING * self.scores


@dataclass
class Judged:
    """Of so many `rows`: `ties`, and `faults` in words."""

    rows: int = 0
    ties: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Judged) -> None:
        self.rows += other.rows
        self.ties += other.ties
        self.faults += other.faults


class Choosing:
    """One image's choice."""

    def __init__(self, candidates: Candidates, limits: Limits) -> None:
        self.of, self.limits = candidates, limits
        self.score_margins = candidates.score_margin()
        boxes = candidates.boxes
        self.sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])

    def judge(self, rows: Array, scores: Array | None = None, groups: Array | None = None) -> Judged:
        """Boxes [k, 4] that were chosen, in their order, and, where they are known, their scores and groups."""
        judged = Judged(len(rows))
        chosen = self._identified(rows, scores, groups, judged)
        if judged.faults:
            return judged
        self._judge_chosen(chosen, judged)
        self._judge_order(chosen, judged)
        self._judge_others(chosen, judged)
        return judged

    def _identified(self, rows: Array, scores: Array | None, groups: Array | None, judged: Judged) -> Array:
        """Which candidate each row is: of several the best that nothing chosen before has put out."""
        of, free, out = self.of, np.ones(len(self.of.scores), bool), np.zeros(len(self.of.scores), bool)
        chosen = []
        for number, row in enumerate(rows):
            fits = free & (np.abs(of.boxes - row).max(1, initial=0.0) <= of.margins)
            if groups is not None:
                fits &= of.groups == groups[number]
            if scores is not None:
                fits &= np.abs(of.scores - scores[number]) <= self.score_margins
            (places,) = fits.nonzero()
            if not len(places):
                shown = ", ".join(f"{corner:.3f}" for corner in row)
                what = "" if scores is None else f" with score {scores[number]:.5f}"
                judged.faults.append(f"row {number}, [{shown}]{what}, is none of what it could be")
                return np.zeros(0, int)
            staying = places[~out[places]]
            best = (staying if len(staying) else places)[of.scores[staying if len(staying) else places].argmax()]
            chosen.append(int(best))
            free[best] = False
            overlap, _ = self._overlaps(best)
            out |= (overlap > self.limits.overlap) & self._after(best)
        return np.array(chosen, int)

    def _after(self, one: int) -> Array:
        """What of its group a candidate is preferred to."""
        of = self.of
        worse = of.scores <= of.scores[one] if of.ranks is None else of.ranks > of.ranks[one]
        worse = worse & (of.groups == of.groups[one])
        worse[one] = False
        return np.asarray(worse)

    def _perhaps_after(self, one: int) -> Array:
        of = self.of
        if of.ranks is not None:
            return self._after(one)
        margins = self.score_margins + self.score_margins[one]
        worse = (of.scores <= of.scores[one] + margins) & (of.groups == of.groups[one])
        worse[one] = False
        return np.asarray(worse)

    def _overlaps(self, one: int) -> tuple[Array, Array]:
        """The IoU of a candidate with all, and how far float32 may have it off."""
        boxes, margins = self.of.boxes, self.of.margins
        box = boxes[one]
        inner = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        both = np.clip(inner, 0, None).prod(1)
        sizes = boxes[:, 2:] - boxes[:, :2]
        union = sizes.prod(1) + sizes[one].prod() - both
        with np.errstate(invalid="ignore", divide="ignore"):
            overlap = both / union
            off = 4 * (margins + margins[one]) * (sizes.sum(1) + sizes[one].sum()) / union + LEEWAY * ROUNDING
        return overlap, np.nan_to_num(off, nan=1.0, posinf=1.0)

    def _counts(self) -> tuple[Array, Array]:
        """What is large enough and sure enough to count, and what may be."""
        of, limits = self.of, self.limits
        sure = of.scores >= limits.score if limits.inclusive else of.scores > limits.score
        counts = sure & (self.sides >= limits.side)
        # Scores that are wholly apart from a threshold of 0 are above it: it excludes nothing.
        perhaps = (of.scores > limits.score - self.score_margins) & (self.sides >= limits.side - 2 * of.margins)
        return counts, perhaps

    def _judge_chosen(self, chosen: Array, judged: Judged) -> None:
        counts, perhaps = self._counts()
        _, least = self._room()
        for place, one in enumerate(chosen):
            if self.of.scores[one] < least[one] - self.score_margins[one] - SCORE_MARGIN:
                judged.faults.append(f"row {place}, of score {self.of.scores[one]:.5f}, is beyond the best {self.limits.room}")
            if not perhaps[one]:
                judged.faults.append(f"row {place} is too small, or its score of {self.of.scores[one]:.5f} too low, to be one")
            judged.ties += int(perhaps[one] and not counts[one])
            overlap, off = self._overlaps(one)
            rivals = chosen[(self.of.groups[chosen] == self.of.groups[one])]
            rivals = rivals[self._after(one)[rivals]]
            over = overlap[rivals] > self.limits.overlap
            if (overlap[rivals] > self.limits.overlap + off[rivals]).any():
                worst = rivals[(overlap - off)[rivals].argmax()]
                judged.faults.append(
                    f"row {place} overlaps another that stays by {overlap[worst]:.4f}, more than {self.limits.overlap:g}"
                )
            judged.ties += int(over.sum())

    def _judge_order(self, chosen: Array, judged: Judged) -> None:
        scores, margins = self.of.scores[chosen], self.score_margins[chosen]
        later = scores[1:] > scores[:-1]
        wrong = scores[1:] > scores[:-1] + margins[1:] + margins[:-1]
        if wrong.any():
            place = int(wrong.argmax())
            judged.faults.append(f"row {place}, of score {scores[place]:.5f}, stands before one of {scores[place + 1]:.5f}")
        judged.ties += int(later.sum())

    def _judge_others(self, chosen: Array, judged: Judged) -> None:
        """Whatever goes must have a reason."""
        of, limits = self.of, self.limits
        counts, _ = self._counts()
        gone, perhaps_gone = ~counts, ~counts | self._near_a_limit()
        for one in chosen:
            overlap, off = self._overlaps(one)
            gone |= (overlap > limits.overlap) & self._after(one)
            perhaps_gone |= (overlap > limits.overlap - off) & self._perhaps_after(one)
        beyond, least = self._room()
        gone |= beyond
        perhaps_gone |= of.scores <= least + self.score_margins + SCORE_MARGIN
        if len(chosen) >= limits.count:
            last = of.scores[chosen[-1]]
            gone |= of.scores <= last
            perhaps_gone |= of.scores <= last + self.score_margins + self.score_margins[chosen[-1]]
        others = np.ones(len(of.scores), bool)
        others[chosen] = False
        judged.ties += int((others & ~gone & perhaps_gone).sum())
        missing = others & ~gone & ~perhaps_gone
        if missing.any():
            best = int(np.where(missing, of.scores, -np.inf).argmax())
            shown = ", ".join(f"{corner:.3f}" for corner in of.boxes[best])
            judged.faults.append(
                f"{int(missing.sum())} are missing that nothing puts out, such as [{shown}] with score {of.scores[best]:.5f}"
            )

    def _room(self) -> tuple[Array, Array]:
        """Which candidates there is no room for, and the last score that there is room for among those that each shares it
        with: below all where there is room enough."""
        scores, room = self.of.scores, self.limits.room
        beyond, least = np.zeros(len(scores), bool), np.full(len(scores), -np.inf)
        groups = self.of.groups if self.limits.apart else np.zeros(len(scores), int)
        for group in np.unique(groups):
            (own,) = (groups == group).nonzero()
            if len(own) > room:
                order = own[np.argsort(-scores[own], kind="stable")]
                beyond[order[room:]] = True
                least[own] = scores[order[room - 1]]
        return beyond, least

    def _near_a_limit(self) -> Array:
        """What counts by so little that it may not."""
        of, limits = self.of, self.limits
        low = (of.scores <= limits.score + self.score_margins) & (limits.score > 0)
        return np.asarray(low | (self.sides < limits.side + 2 * of.margins))


def all_of(judgements: Sequence[Judged]) -> Judged:
    total = Judged()
    for judged in judgements:
        total.add(judged)
    return total
