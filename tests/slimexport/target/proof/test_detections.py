"""Detections matched one to one: what is the same, what near-equals decided, what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slimexport.target.near_equals import NearEquals
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.detections import Agreement, Rules, agreement_of

RULES = Rules(score=0.05, nms=0.5, detections=4, side=100.0)
Rows = list[tuple[list[float], float, int]]
ROWS: Rows = [([10, 10, 30, 30], 0.9, 1), ([50, 50, 80, 90], 0.6, 2), ([5, 60, 25, 95], 0.05001, 1)]


def outputs(rows: Rows) -> dict[str, NDArray[Any]]:
    boxes, scores, labels = np.zeros((1, 4, 4)), np.zeros((1, 4)), np.zeros((1, 4), np.int64)
    for place, (box, score, label) in enumerate(rows):
        boxes[0, place], scores[0, place], labels[0, place] = box, score, label
    count = np.array([len(rows)])
    return {"boxes": boxes, "scores": scores, "labels": labels, "count": count, "settled": np.array([True])}


def agreement(given: Rows, expected: Rows, near: NearEquals | None = None) -> Agreement:
    own, other = outputs(given), outputs(expected)
    return agreement_of([Pair(name, own[name], other[name]) for name in other], RULES, 1e-4, near)


def near(*others: tuple[list[float], float, int], open_: tuple[int, ...] = ()) -> NearEquals:
    rows = np.array([[0, label, score, *box] for box, score, label in others], np.float64).reshape(-1, 7)
    return NearEquals(np.isin(np.arange(4), open_)[None], rows)


def moved(row: int, box: float = 0.0, score: float = 0.0, label: int = 0) -> Rows:
    rows = [*ROWS]
    corners, own, number = rows[row]
    rows[row] = [corners[0] + box, *corners[1:]], own + score, number + label
    return rows


def test_the_same_detections_agree() -> None:
    result = agreement(moved(0, box=0.005, score=-5e-5), ROWS)
    assert result.right and (result.matched, result.ties) == (3, 0)
    assert abs(result.box_error - 0.005) < 1e-9 and abs(result.score_error - 5e-5) < 1e-9


def test_what_is_off_or_of_another_class_or_missing_is_wrong() -> None:
    for rows in (moved(0, box=1.0, score=0.01), moved(1, score=0.01), moved(0, label=1), ROWS[1:], ROWS[:1] + ROWS[2:]):
        assert not agreement(rows, ROWS).right
        assert not agreement(ROWS, rows).right


def test_one_at_the_threshold_is_a_tie() -> None:
    for given, expected in ((ROWS[:2], ROWS), (ROWS, ROWS[:2])):
        result = agreement(given, expected)
        assert result.right and (result.matched, result.ties) == (2, 1)


def test_what_the_reference_does_not_say_hangs_on_roundings_is_wrong() -> None:
    """A box that overlaps its own place with the same score is as wrong as any."""
    other: Rows = [([10, 10, 30, 28], 0.9, 1), *ROWS[1:]]
    for known in (None, near(), near(open_=(1, 2)), near(([10, 10, 30, 28.1], 0.9, 1), open_=(0,))):
        result = agreement(other, ROWS, known)
        assert not result.right and result.mismatches > 0
    assert agreement(ROWS[1:], ROWS, near(open_=(1, 2))).mismatches == 1
    assert agreement(ROWS[:2], ROWS, near()).mismatches == 1, "at the threshold, but not by the reference"


def test_what_it_says_does_is_a_tie_once() -> None:
    known = near(([10, 10, 30, 28], 0.9, 1), open_=(0,))
    result = agreement([([10, 10, 30, 28.001], 0.90005, 1), *ROWS[1:]], ROWS, known)
    assert (result.mismatches, result.ties) == (0, 2) and "near-equals decide 2 of 3" in result.why
    assert "A network that nobody trained scores nearly all alike: train it first" in result.why
    assert "give other images with --verify-data" in result.why
    assert agreement(ROWS[1:], ROWS, known).right
    twice = agreement([([10, 10, 30, 28], 0.9, 1), ([10, 10, 30, 28], 0.9, 1), *ROWS[1:]], ROWS, known)
    assert twice.mismatches == 1
    assert agreement([([10, 10, 30, 28], 0.9, 2), *ROWS[1:]], ROWS, known).mismatches == 1, "of another class"


def test_an_overlap_at_its_threshold_is_a_tie() -> None:
    more: Rows = [ROWS[0], ([10, 10, 30, 20.0002], 0.7, 1), *ROWS[1:]]
    assert agreement(more, ROWS).ties == 1 and agreement(more, ROWS).right


def test_what_is_not_in_order_or_behind_the_count_is_wrong() -> None:
    assert not agreement([ROWS[1], ROWS[0], ROWS[2]], ROWS).right
    own, other = outputs(ROWS), outputs(ROWS)
    own["boxes"][0, 3] = 1
    assert not agreement_of([Pair(name, own[name], other[name]) for name in other], RULES, 1e-4).right


def test_known_ties_explain_as_many_rows_and_nothing_else() -> None:
    result = agreement(ROWS[1:], ROWS)
    assert (result.mismatches, result.faults) == (1, 0)
    assert result.is_explained(1) and not result.is_explained(0)
    own, other = outputs(ROWS), outputs(ROWS)
    own["scores"][0, 0] = np.nan
    broken = agreement_of([Pair(name, own[name], other[name]) for name in other], RULES, 1e-4)
    assert broken.faults and not broken.is_explained(100)
    assert not agreement([ROWS[1], ROWS[0], ROWS[2]], ROWS).is_explained(100), "rows that are not in order"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", np.inf, "reference's count are not finite"),
        ("scores", np.nan, "reference's scores are not finite"),
        ("count", -1.0, "counts other numbers of detections than 0 to 4"),
        ("count", 2.5, "counts other numbers of detections than 0 to 4"),
        ("count", 5.0, "counts other numbers of detections than 0 to 4"),
    ],
)
def test_a_reference_that_is_damaged_agrees_with_nothing(name: str, value: float, message: str) -> None:
    own, other = outputs(ROWS), outputs(ROWS)
    other[name] = other[name].astype(np.float64)
    other[name].flat[0] = value
    result = agreement_of([Pair(key, own[key], other[key]) for key in other], RULES, 1e-4)
    assert not result.right and result.faults and message in result.why
