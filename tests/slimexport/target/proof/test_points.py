"""Keypoints of a detection: where the reference has them, where it is as good as equally high, or wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slimexport.target.proof.points import PointCheck, PointRows, check_points

BOX = np.array([10.0, 20.0, 40.5, 60.25])
ROWS = PointRows(np.array([[12.5, 21.5, 1.0], [30.0, 50.0, 1.0]]), np.array([4.0, 5.0]))
PIXELS, SCORE = 0.01, 1e-3


def check(points: np.ndarray, scores: np.ndarray = ROWS.scores, other: PointRows = ROWS, box: np.ndarray = BOX) -> PointCheck:
    return check_points(PointRows(points, scores), other, box, PIXELS, SCORE)


def moved(x: float, y: float) -> np.ndarray:
    points = ROWS.points.copy()
    points[1, :2] += x, y
    return points


def test_points_within_the_tolerances_are_right() -> None:
    result = check(moved(0.005, -0.009), ROWS.scores + 5e-4)
    assert not result.fault and result.moved == 0 and abs(result.error - 0.009) < 1e-9


def test_points_elsewhere_and_other_scores_are_wrong() -> None:
    for points in (moved(0.02, 0), moved(0, 1), moved(-5, 3), ROWS.points[:, [1, 0, 2]], ROWS.points[::-1]):
        assert "is at" in check(points).fault
    assert "keypoint 0 is off by 0.002" in check(ROWS.points, ROWS.scores + np.array([2e-3, 0])).fault
    assert "expected 1" in check(ROWS.points * np.array([1, 1, 0])).fault
    assert check(ROWS.points, ROWS.scores * np.nan).fault and check(moved(np.nan, 0)).fault


def test_a_place_that_is_as_good_as_highest_is_a_tie() -> None:
    low, high = ROWS.points[:, :2].copy(), ROWS.points[:, :2].copy()
    high[1, 0] += 2
    other = replace(ROWS, low=low, high=high)
    assert check(moved(2, 0), other=other) == PointCheck(0.0, 1, "")
    assert check(moved(2.1, 0), other=other).fault and check(moved(2, 0.5), other=other).fault


def test_a_side_that_may_be_rounded_the_other_way_moves_its_pixels_only() -> None:
    box = np.array([10.0, 20.0, 40.001, 60.25])
    assert not check(moved(0.6, 0), box=box).fault and check(moved(0.6, 0), box=box).moved == 1
    assert check(moved(0, 0.6), box=box).fault
