"""Keypoints are held against the whole of a file's own maps."""

from __future__ import annotations

import numpy as np
import pytest

from slimexport.detector_proof.choices import Judged
from slimexport.detector_proof.points import judge_points
from slimexport.target.arrays import Array

BOX = np.array([[4.0, 2.0, 12.0, 10.0]], np.float32)  # as large as the map: a pixel is a cell


def judged(maps: Array, column: int, row: int, score: float, settled: bool = True) -> Judged:
    points = np.array([[[4.5 + column, 2.5 + row, 1.0]]], np.float32)
    return judge_points(BOX, maps[None, None].astype(np.float32), points, np.array([[score]], np.float32), settled)


def a_map(*peaks: tuple[int, int, float]) -> Array:
    values = np.zeros((8, 8))
    for column, row, height in peaks:
        values[row, column] = height
    return values


def test_the_highest_pixel_is_right() -> None:
    result = judged(a_map((5, 3, 6.0), (1, 1, 4.0)), 5, 3, 6.0)
    assert not result.faults and result.ties == 0 and result.rows == 1


@pytest.mark.parametrize("settled", [True, False])
def test_another_pixel_is_wrong_where_the_file_says_that_it_is_settled(settled: bool) -> None:
    result = judged(a_map((5, 3, 6.0), (1, 1, 4.0)), 1, 1, 4.0, settled)
    assert bool(result.faults) == settled and all("elsewhere that is 6.0" in fault for fault in result.faults)


def test_of_two_that_float32_cannot_tell_apart_either_is_right() -> None:
    maps = a_map((5, 3, 6.0), (1, 1, 6.0 - 1e-6))
    result = judged(maps, 1, 1, 6.0)
    assert not result.faults and result.ties == 1


def test_another_score_and_no_pixel_are_wrong() -> None:
    maps = a_map((5, 3, 6.0))
    assert "has score" in judged(maps, 5, 3, 6.01).faults[0]
    assert "is no pixel" in judged(maps, 9, 3, 6.0).faults[0]
