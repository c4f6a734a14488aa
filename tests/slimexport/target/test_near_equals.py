"""Near-equals as `reference.npz` has them."""

from __future__ import annotations

import numpy as np
import pytest

from slimexport.target.near_equals import NearEquals, near_in

NEAR = NearEquals(np.array([[True, False], [False, False]]), np.array([[1.0, 2, 0.5, 1, 2, 3, 4], [0, 1, 0.4, 1, 2, 3, 4]]))


def test_they_come_back_as_they_were() -> None:
    arrays = dict(NEAR.arrays("x0_5"))
    assert arrays.keys() == {"near_x0_5.open", "near_x0_5.others"}
    again = near_in(arrays, "x0_5", 2, 2)
    assert again is not None and np.array_equal(again.open, NEAR.open) and np.array_equal(again.others, NEAR.others)
    assert again.of_image(1).tolist() == [NEAR.others[0].tolist()] and again.low is None
    assert near_in(arrays, "x1_0", 2, 2) is None


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("open", np.zeros((2, 3), bool)),
        ("open", np.zeros((2, 2))),
        ("others", np.zeros((2, 6))),
        ("others", np.full((1, 7), np.nan)),
        ("low", np.zeros((2, 2, 1, 2))),
    ],
)
def test_arrays_that_cannot_be_are_refused(name: str, array: np.ndarray) -> None:
    arrays = dict(NEAR.arrays("x0_5")) | {f"near_x0_5.{name}": array}
    with pytest.raises(ValueError, match="its near_x0_5 are"):
        near_in(arrays, "x0_5", 2, 2)


def test_images_that_are_chosen_bring_what_is_near_on_them() -> None:
    """In their order, as often as each is."""
    others = np.array([[0, 1, 0.9, 0, 0, 1, 1], [0, 2, 0.8, 0, 0, 2, 2], [2, 3, 0.7, 0, 0, 3, 3]], np.float64)
    open_ = np.array([[True, False], [False, False], [False, True]])
    near = NearEquals(open_, others).chosen(np.array([2, 1, 0, 2]))
    assert np.array_equal(near.open, open_[[2, 1, 0, 2]]) and near.low is None and near.high is None
    assert near.others[:, 0].tolist() == [0, 2, 2, 3] and near.others[:, 1].tolist() == [3, 1, 2, 3]
    assert len(near.of_image(1)) == 0 and near.of_image(3)[0, 2] == 0.7
