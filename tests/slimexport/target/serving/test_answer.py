"""A run's output cut into what belongs to its requests."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.answer import parts
from slimexport.target.tensors import Result

LOGITS = Result(name="output", shape=("batch", 5), dtype="float32")
BOXES = Result(name="boxes", shape=("3*batch", 2, 2), dtype="float32")
SIZES = [(2, False), (1, True), (1, False), (3, False)]


def rows(count: int, *shape: int) -> Any:
    return np.arange(count * int(np.prod(shape)), dtype=np.float32).reshape(count, *shape)


def test_rows_go_to_those_whose_images_they_are() -> None:
    given = rows(7, 5)
    own = parts(given, [LOGITS], SIZES)
    assert [part.shape for part in own] == [(2, 5), (5,), (1, 5), (3, 5)]
    np.testing.assert_array_equal(np.concatenate([np.atleast_2d(part) for part in own]), given)


def test_several_rows_an_image_and_several_outputs() -> None:
    given = {"boxes": rows(21, 2, 2), "output": rows(7, 5)}
    own = parts(given, [LOGITS, BOXES], SIZES)
    assert [(part["output"].shape, part["boxes"].shape) for part in own] == [
        ((2, 5), (6, 2, 2)),
        ((5,), (3, 2, 2)),
        ((1, 5), (3, 2, 2)),
        ((3, 5), (9, 2, 2)),
    ]
    np.testing.assert_array_equal(np.concatenate([part["boxes"] for part in own]), given["boxes"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rows(6, 5), "output is of [6, 5], expected [7, 5]"),
        (rows(7, 4), "output is of [7, 4], expected [7, 5]"),
        (rows(35), "output is of [35], expected [7, 5]"),
        ({"logits": rows(7, 5)}, "it gave logits, expected output"),
        ({}, "it gave , expected output"),
        ({"output": rows(7, 5), "boxes": rows(7, 5)}, "it gave output, boxes, expected output"),
    ],
)
def test_an_output_of_another_shape_is_none(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parts(given, [LOGITS], SIZES)


def test_one_image_that_comes_alone_gets_its_row() -> None:
    """As mostly, and a way of its own."""
    given = rows(1, 5)
    for form in (given, {"output": given}):
        (own,) = parts(form, [LOGITS], [(1, True)])
        assert own.shape == (5,)
        np.testing.assert_array_equal(own, given[0])
    (boxes,) = parts(rows(3, 2, 2), [BOXES], [(1, True)])
    np.testing.assert_array_equal(boxes, rows(3, 2, 2))


@pytest.mark.parametrize(
    ("given", "result", "message"),
    [
        (rows(1, 4), LOGITS, "output is of [1, 4], expected [1, 5]"),
        (rows(2, 5), LOGITS, "output is of [2, 5], expected [1, 5]"),
        (rows(5), LOGITS, "output is of [5], expected [1, 5]"),
        (rows(1, 5, 1), LOGITS, "output is of [1, 5, 1], expected [1, 5]"),
        (rows(1, 2, 2), BOXES, "boxes is of [1, 2, 2], expected [3, 2, 2]"),
    ],
)
def test_an_output_of_another_shape_is_none_of_one_image_either(given: Any, result: Result, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parts(given, [result], [(1, True)])
