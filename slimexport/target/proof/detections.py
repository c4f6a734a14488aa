"""Detections of a file next to the reference's, matched one to one.

Which boxes are given out is decided by comparisons: a score with a threshold, an overlap with another, one score with the
next. Where both sides are as good as equal, roundings decide, and a row is there on one side only, or in another place. Such
a *tie* is counted, and shown. It is one only where the reference itself says so: everything else that differs is a mismatch,
and more ties than MOST_TIES prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.near_equals import NearEquals
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.points import PointRows, check_points
from slimexport.target.tensors import BOXES, CHOSEN, COUNT, DETECTIONS, LABELS, SCORES, DetectorEntry
from slimtrain.base.image_size import ImageSize, sides

SETTLED, MASKS = "settled", "masks"
POINTS, POINT_SCORES = "keypoints", "keypoint_scores"
MOST_TIES = 0.05  # of all detections
UNDECIDED = (  # what to do about that
    "these images prove nothing. A network that nobody trained scores nearly all alike: train it first. Of a trained one, "
    "give other images with --verify-data"
)
ALIKE = 0.5  # the least IoU of two boxes that may be one detection
MASK_LEEWAY = 10  # times the tolerance: a box that is off a little is pooled elsewhere


@dataclass(frozen=True)
class Rules:
    """What chooses detections: the least `score`, the IoU above which the worse of two of a class goes (`nms`), and how many
    there are at most of an image. `side`: the longer one of images, in pixels: boxes are off by shares of it."""

    score: float
    nms: float
    detections: int
    side: float


def rules_of(detector: DetectorEntry, image_size: ImageSize) -> Rules | None:
    """The rules of a bundle's `detector`, of images of a size; None of files that choose nothing."""
    if detector.nms not in DETECTIONS:
        return None
    box = detector.box
    return Rules(box.score, box.nms, box.detections, float(max(sides(image_size))))


@dataclass
class Agreement:
    """Of all images: how many `detections` the reference has, how many are `matched`, the largest `box_error` in pixels and
    `score_error` among those, `mask_error`; `ties`, rows that near-equals decided, `mismatches`, the other rows that are on
    one side only, and `faults`, what no near-equal can be the cause of."""

    detections: int = 0
    matched: int = 0
    ties: int = 0
    box_error: float = 0.0
    score_error: float = 0.0
    mask_error: float = 0.0
    mismatches: int = 0
    faults: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def tie_share(self) -> float:
        return self.ties / max(self.detections, 1)

    @property
    def right(self) -> bool:
        """Whether nothing differs but what near-equals decided, and that is little: one row is never too much."""
        return not self.reasons and self.ties <= max(1.0, MOST_TIES * self.detections)

    @property
    def why(self) -> str:
        """Why it is not."""
        if self.reasons:
            more = f", and {len(self.reasons) - 1} more" if len(self.reasons) > 1 else ""
            return self.reasons[0] + more
        if self.right:
            return ""
        return (
            f"near-equals decide {self.ties} of {self.detections} detections otherwise than in the reference (at most "
            f"{MOST_TIES:.0%}): {UNDECIDED}"
        )

    def is_explained(self, ties: int) -> bool:
        """Whether it is right, or would be if as many rows were others as `ties` that are known of: near-equals that decided
        a proposal otherwise."""
        return self.right or (not self.faults and 0 < self.mismatches <= ties)

    def refuse(self, reason: str) -> None:
        self.faults += 1
        self.reasons.append(reason)

    def differ(self, reason: str) -> None:
        self.mismatches += 1
        self.reasons.append(reason)


@dataclass(frozen=True)
class _Side:
    """The detections of one image on one side."""

    boxes: Array
    scores: Array
    labels: Array

    def of(self, rows: Sequence[int]) -> _Side:
        return _Side(self.boxes[[*rows]], self.scores[[*rows]], self.labels[[*rows]])


def agreement_of(pairs: Sequence[Pair], rules: Rules, tolerance: float, near: NearEquals | None = None) -> Agreement:
    """All outputs [B, ...] of a file next to the reference's. `tolerance`: of scores, and of boxes as a share of the images'
    longer side; `near`: what hangs on roundings."""
    given = {pair.name: pair.output for pair in pairs}
    expected = {pair.name: pair.expected for pair in pairs}
    result = Agreement()
    for name, values in expected.items():
        if given[name].shape != values.shape:
            result.refuse(f"its {name} are {list(given[name].shape)}, expected {list(values.shape)}")
        elif not np.isfinite(given[name].astype(np.float64)).all():
            result.refuse(f"its {name} are not finite")
        elif not np.isfinite(values.astype(np.float64)).all():
            result.refuse(f"the reference's {name} are not finite")
    if not result.reasons and not np.isin(expected[COUNT], np.arange(expected[SCORES].shape[1] + 1)).all():
        result.refuse(f"the reference counts other numbers of detections than 0 to {expected[SCORES].shape[1]}")
    if result.reasons:
        return result
    for image in range(len(expected[COUNT])):
        _Image(image, given, expected, rules, tolerance, near, result).compare()
    return result


class _Image:
    """One image's detections on both sides."""

    def __init__(
        self,
        image: int,
        given: Mapping[str, Array],
        expected: Mapping[str, Array],
        rules: Rules,
        tolerance: float,
        near: NearEquals | None,
        result: Agreement,
    ) -> None:
        self.image, self.rules, self.near, self.result = image, rules, near, result
        self.given, self.expected = ({name: array[image] for name, array in side.items()} for side in (given, expected))
        self.score = tolerance
        self.pixels = tolerance * rules.side
        self.mask = MASK_LEEWAY * tolerance

    def compare(self) -> None:
        if not self._well_formed():
            return
        own, other = self._side(self.given), self._side(self.expected)
        self.result.detections += len(other.scores)
        pairs = self._matched(own, other)
        self.result.matched += len(pairs)
        self.result.ties += _displaced([second for _, second in sorted(pairs)])
        self._errors(own, other, pairs)
        used = [{pair[place] for pair in pairs} for place in range(2)]
        only = [sorted(set(range(len(side.scores))) - rows) for side, rows in zip((own, other), used, strict=True)]
        self._explain(own, other, only)

    def _well_formed(self) -> bool:
        """Whether the file's own rows are detections at all: as many as it says, in order, zeros behind them."""
        rows, count = len(self.given[SCORES]), int(self.given[COUNT])
        where = f"image {self.image}"
        if not 0 <= count <= min(rows, self.rules.detections):
            self.result.refuse(f"{where}: it counts {count} detections of {min(rows, self.rules.detections)} at most")
            return False
        scores, labels = self.given[SCORES], self.given[LABELS]
        if (np.diff(scores[:count]) > 0).any():
            self.result.refuse(f"{where}: its scores are not in descending order")
        if any(np.any(self.given[name][count:]) for name in self.given if name in (*CHOSEN[:3], MASKS, POINTS, POINT_SCORES)):
            self.result.refuse(f"{where}: rows behind its {count} detections are not zeros")
        if count and (labels[:count].min() < 1 or scores[:count].min() < self.rules.score - self.score):
            self.result.refuse(f"{where}: it gives a label below 1, or a score below {self.rules.score:g}")
        if SETTLED in self.given and bool(self.given[SETTLED]) != bool(self.expected[SETTLED]):
            self.result.refuse(f"{where}: it says settled={bool(self.given[SETTLED])}, which is wrong")
        return not self.result.reasons

    @staticmethod
    def _side(values: Mapping[str, Array]) -> _Side:
        count = int(values[COUNT])
        boxes, scores = (values[name][:count].astype(np.float64) for name in (BOXES, SCORES))
        return _Side(boxes, scores, values[LABELS][:count])

    def _matched(self, own: _Side, other: _Side) -> list[tuple[int, int]]:
        """Rows of both sides that are one detection: of one class, and within the tolerances. The nearest ones first."""
        apart = np.abs(own.boxes[:, None] - other.boxes[None]).max(-1, initial=0.0)
        score = np.abs(own.scores[:, None] - other.scores[None])
        near = (apart <= self.pixels) & (score <= self.score) & (own.labels[:, None] == other.labels[None])
        order = sorted(zip(*near.nonzero(), strict=True), key=lambda pair: (apart[pair], score[pair]))
        pairs: list[tuple[int, int]] = []
        used: tuple[set[int], set[int]] = (set(), set())
        for first, second in order:
            if first not in used[0] and second not in used[1]:
                used[0].add(first)
                used[1].add(second)
                pairs.append((int(first), int(second)))
        return pairs

    def _errors(self, own: _Side, other: _Side, pairs: Sequence[tuple[int, int]]) -> None:
        result = self.result
        for first, second in pairs:
            result.box_error = max(result.box_error, float(np.abs(own.boxes[first] - other.boxes[second]).max()))
            result.score_error = max(result.score_error, float(abs(own.scores[first] - other.scores[second])))
            if MASKS in self.expected:
                mask = float(np.abs(self.given[MASKS][first].astype(np.float64) - self.expected[MASKS][second]).max())
                result.mask_error = max(result.mask_error, mask)
                if not mask <= self.mask:
                    result.refuse(f"image {self.image}: mask {first} is off by {mask:.3g} (at most {self.mask:.0e})")
            if POINTS in self.expected:
                self._points(first, second)

    def _points(self, first: int, second: int) -> None:
        own, other = self._point_rows(self.given, first), self._point_rows(self.expected, second)
        if self.near is not None and self.near.low is not None and self.near.high is not None:
            other = replace(other, low=self.near.low[self.image, second], high=self.near.high[self.image, second])
        scale = float(np.abs(self.expected[POINT_SCORES]).max())
        check = check_points(own, other, self.expected[BOXES][second], self.pixels, self.mask * scale)
        self.result.box_error = max(self.result.box_error, check.error)
        self.result.ties += int(check.moved > 0)
        if check.fault:
            self.result.refuse(f"image {self.image}: of detection {first} {check.fault}")

    @staticmethod
    def _point_rows(values: Mapping[str, Array], row: int) -> PointRows:
        return PointRows(values[POINTS][row], values[POINT_SCORES][row])

    def _explain(self, own: _Side, other: _Side, only: Sequence[Sequence[int]]) -> None:
        """Count rows of one side as ties, where the reference says that roundings decide on them, else as mismatches."""
        sides = (own, other)
        if self.near is None:  # as of earlier versions: what is at a limit shows without
            explained = {
                (place, row)
                for place, rows in enumerate(only)
                for row in rows
                if self._is_near(sides[place], row, sides[1 - place])
            }
        else:
            rest = self.near.of_image(self.image)
            might = _Side(rest[:, 3:], rest[:, 2], rest[:, 1])
            came = {only[0][first] for first, _ in self._matched(own.of(only[0]), might)}
            explained = {(0, row) for row in came} | {(1, row) for row in only[1] if self.near.open[self.image, row]}
        self.result.ties += len(explained)
        for place, rows in enumerate(only):
            for row in rows:
                if (place, row) not in explained:
                    self._refuse(sides[place], row, sides[1 - place], own_side=place == 0)

    def _is_near(self, side: _Side, row: int, other: _Side) -> bool:
        """Whether a threshold, the other side's last score or an overlap there is so near that the row may be missing."""
        score = side.scores[row]
        if score <= self.rules.score + self.score:
            return True
        if len(other.scores) == self.rules.detections and score <= other.scores.min() + self.score:
            return True
        overlap = self._overlaps(side, row, other)
        leeway = self._leeway(side.boxes[row])
        rivals = (other.labels == side.labels[row]) & (other.scores >= score - self.score)
        return bool((rivals & (np.abs(overlap - self.rules.nms) <= leeway)).any())

    def _leeway(self, box: Array) -> float:
        """Of an IoU with this box, where both are off by the tolerance."""
        shorter = max(min(box[2] - box[0], box[3] - box[1]), 1e-9)
        return float(min(4 * self.pixels / shorter, 0.05))

    @staticmethod
    def _overlaps(side: _Side, row: int, other: _Side) -> Array:
        return overlaps_of(side.boxes[row], other.boxes)

    def _refuse(self, side: _Side, row: int, other: _Side, own_side: bool) -> None:
        verb, score = "gives" if own_side else "lacks", side.scores[row]
        what = f"image {self.image}: it {verb} class {side.labels[row]} at {_shown(side.boxes[row])}, score {score:.4f}"
        near = overlaps_of(side.boxes[row], other.boxes)
        best = int(near.argmax()) if len(near) else -1
        if best >= 0 and near[best] > ALIKE:
            there = "the reference" if own_side else "it"
            what += f"; {there} has class {other.labels[best]} at {_shown(other.boxes[best])}, score {other.scores[best]:.4f}"
        self.result.differ(what)


def _shown(box: Array) -> str:
    return "[" + ", ".join(f"{corner:.2f}" for corner in box) + "]"


def _displaced(places: Sequence[int]) -> int:
    """How many of these numbers, which should ascend, do not: those that must be taken out for the others to do so."""
    best: list[int] = []
    for place in places:
        longest = [length for other, length in zip(places, best, strict=False) if other < place]
        best.append(1 + max(longest, default=0))
    return len(places) - max(best, default=0)


def overlaps_of(box: Array, others: Array) -> Array:
    """The IoU of a box [4] and others [n, 4]: [n]."""
    if not len(others):
        return np.zeros(0)
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas = (others[:, 2:] - others[:, :2]).prod(-1) + math.prod(box[2:] - box[:2]) - both
    return np.asarray(np.divide(both, areas, out=np.zeros_like(both), where=areas > 0))
