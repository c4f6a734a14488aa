"""Detections weighed as a whole, and against what a file gave itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.errors import BundleError
from slimexport.target.precision import row_of
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.detections import Rules
from slimexport.target.proof.own_detections import (
    held_to_near_detections,
    held_to_own_detections,
    likeness,
    near_detections,
    own_likeness,
)
from slimexport.target.reference import Expected, Own, Probes
from slimexport.target.tensors import BoxEntry, DetectorEntry
from slimexport.target.verification import Verification

Rows = list[tuple[list[float], float, int]]
ROWS: Rows = [([10, 10, 30, 30], 0.9, 1), ([50, 50, 80, 90], 0.6, 2)]
RULES = Rules(score=0.05, nms=0.5, detections=4, side=100.0)
DETECTOR = DetectorEntry(
    kind="faster_rcnn", classes=3, box=BoxEntry(score=0.05, nms=0.5, detections=4), nms="fixed", slim="all"
)
PASSED = Verification(status="passed")


def outputs(rows: Rows, images: int = 1) -> dict[str, NDArray[Any]]:
    boxes, scores, labels = np.zeros((images, 4, 4)), np.zeros((images, 4)), np.zeros((images, 4), np.int64)
    for place, (box, score, label) in enumerate(rows):
        boxes[:, place], scores[:, place], labels[:, place] = box, score, label
    settled = np.ones(images, bool)
    return {"boxes": boxes, "scores": scores, "labels": labels, "count": np.full(images, len(rows)), "settled": settled}


def pairs(given: Rows, expected: Rows) -> list[Pair]:
    own, other = outputs(given), outputs(expected)
    return [Pair(name, own[name], other[name]) for name in other]


def probes(rows: Rows) -> Probes:
    expected = tuple(Expected(name, values) for name, values in outputs(rows, 2).items())
    return Probes(np.zeros((2, 3, 100, 100), np.float32), expected, DETECTOR)


class Giving:
    """A file that gives the same of every image."""

    backend = "somewhere"

    def __init__(self, rows: Rows, backend: str = "somewhere") -> None:
        self.rows, self.backend = rows, backend

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return outputs(self.rows, len(images))


def test_the_same_detections_are_alike_and_none_are_too() -> None:
    assert likeness(pairs(ROWS, ROWS)) == 1 and likeness(pairs([], [])) == 1
    assert likeness(pairs(ROWS[::-1], ROWS)) == 1  # near-equals in another order


def test_likeness_is_what_both_sides_cover_of_all_scores() -> None:
    """By hand: a box of 20 x 20 that is moved by 4 overlaps by 16 / 24; 2 x 0.9 x 2/3 + 2 x 0.6 of 3.0."""
    moved: Rows = [([14, 10, 34, 30], 0.9, 1), ROWS[1]]
    assert likeness(pairs(moved, ROWS)) == pytest.approx((2 * 0.9 * 2 / 3 + 2 * 0.6) / 3.0)
    assert likeness(pairs(ROWS[:1], ROWS)) == pytest.approx(2 * 0.9 / 2.4)
    lower: Rows = [ROWS[0], (ROWS[1][0], 0.4, 2)]
    assert likeness(pairs(lower, ROWS)) == pytest.approx(2 * 1.3 / 2.8)
    assert likeness(pairs([], ROWS)) == 0


def test_another_class_or_half_an_overlap_is_another_detection() -> None:
    assert likeness(pairs([([10, 10, 30, 30], 0.9, 2), ROWS[1]], ROWS)) == pytest.approx(1.2 / 3.0)
    assert likeness(pairs([([22, 10, 42, 30], 0.9, 1), ROWS[1]], ROWS)) == pytest.approx(1.2 / 3.0)


def test_one_box_answers_for_one_only() -> None:
    assert likeness(pairs([ROWS[0]], [ROWS[0], ROWS[0]])) == pytest.approx(2 / 3)


def test_what_is_not_finite_or_of_another_shape_is_like_nothing() -> None:
    own = outputs(ROWS)
    own["scores"][0, 0] = np.nan
    assert np.isnan(likeness([Pair(name, own[name], values) for name, values in outputs(ROWS).items()]))
    assert np.isnan(likeness([Pair(name, values, outputs(ROWS, 2)[name]) for name, values in outputs(ROWS).items()]))


def test_a_file_that_detects_other_things_is_too_coarse() -> None:
    row = row_of("int8-cpu")
    held = near_detections(pairs(ROWS, ROWS), RULES, row, PASSED)
    assert (held.status, held.alike, held.least_alike, held.detections) == ("passed", 1, 0.6, 2)
    far = near_detections(pairs([(ROWS[0][0], 0.9, 3), ROWS[1]], ROWS), RULES, row, PASSED)
    assert far.status == "failed" and far.reason is not None and "too coarse" in far.reason
    assert near_detections(pairs([], []), RULES, row, PASSED).status == "partly"


def test_rows_that_are_no_detections_fail_however_alike_they_are() -> None:
    rows: Rows = [(ROWS[1][0], 0.6, 2), (ROWS[0][0], 0.9, 1)]  # in the wrong order
    held = near_detections(pairs(rows, ROWS), RULES, row_of("fp16"), PASSED)
    assert held.status == "failed" and held.reason is not None and "descending" in held.reason


def test_elsewhere_a_file_may_differ_as_far_as_roundings_do() -> None:
    row = row_of("int8-cpu")
    assert own_likeness(row, 0.0) == 0.03 and own_likeness(row, 0.02) == 0.08 and own_likeness(row, 1.0) == 0.3
    known = Verification(status="passed", own_tolerance=0.08)
    own = Own(probes(ROWS).images, 2, probes(ROWS).expected)
    near: Rows = [([10.5, 10, 30.5, 30], 0.88, 1), ROWS[1]]
    held = held_to_own_detections(Giving(near), own, probes(ROWS), row, PASSED, known)
    assert held.status == "passed" and held.own_tolerance == pytest.approx(0.08)
    assert held.own_error is not None and 0 < held.own_error < 0.08
    other = held_to_own_detections(Giving(ROWS[:1]), own, probes(ROWS), row, PASSED, known)
    assert other.status == "failed" and other.reason is not None and "other detections than when it was proven" in other.reason


def test_where_the_same_runtime_runs_it_it_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from slimexport.target.proof import own_detections

    monkeypatch.setattr(own_detections, "own_runtime", lambda backend: f"{backend} 1.0")
    own = Own(probes(ROWS).images, 2, probes(ROWS).expected)
    near: Rows = [([10.5, 10, 30.5, 30], 0.88, 1), ROWS[1]]
    for runtime, status in (("here 1.0", "failed"), ("there 1.0", "passed"), (None, "passed")):
        known = Verification(status="passed", own_tolerance=0.08, own_runtime=runtime)
        held = held_to_own_detections(Giving(near, "here"), own, probes(ROWS), row_of("int8"), PASSED, known)
        assert held.status == status, runtime


def test_a_file_is_held_to_the_reference_too() -> None:
    right = held_to_near_detections(Giving(ROWS), probes(ROWS), row_of("fp16"))
    assert (right.status, right.alike, right.backend, right.probes) == ("passed", 1, "somewhere", 2)
    assert right.max_rel_error == 0 and right.tolerance == pytest.approx(0.1)
    assert held_to_near_detections(Giving(ROWS[:1]), probes(ROWS), row_of("fp16")).status == "failed"
    raw = Probes(probes(ROWS).images, probes(ROWS).expected, None)
    with pytest.raises(BundleError, match="gives no detections"):
        held_to_near_detections(Giving(ROWS), raw, row_of("fp16"))
