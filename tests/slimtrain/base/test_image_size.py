"""One value for the size of images: squares are numbers, all else is height and width, in this order."""

from __future__ import annotations

import json

import pytest

from slimtrain.base.image_size import as_image_size, format_size, pixels, plain_size, sides


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (224, 224),
        ("224", 224),
        ("256x192", (256, 192)),
        (" 256 X 192 ", (256, 192)),
        ([256, 192], (256, 192)),
        ((1, 2), (1, 2)),
        ("64x64", 64),
        ([64, 64], 64),
        ((64, 64), 64),
    ],
)
def test_a_size_is_read_as_height_and_width(given: object, expected: object) -> None:
    size = as_image_size(given)
    assert size == expected
    assert type(size) is type(expected)


@pytest.mark.parametrize(
    "given",
    [
        *("", "x", "256x", "x192", "256x192x3", "-1", "1.5", "0", "0x5", "256,192", "9" * 400),
        *(0, -3, True, 2.0, None, float("nan"), {"a": 1}),
        *([], [5], [1, 2, 3], [True, 2], ["1", 2], (0, 5)),
    ],
)
def test_anything_else_is_no_size(given: object) -> None:
    with pytest.raises(ValueError, match="expected pixels of a square, as in 224, or HEIGHTxWIDTH"):
        as_image_size(given)


@pytest.mark.parametrize("size", [1, 224, (256, 192), (1, 4096)])
def test_what_is_written_is_read_back(size: int | tuple[int, int]) -> None:
    assert as_image_size(format_size(size)) == size
    assert as_image_size(json.loads(json.dumps(plain_size(size)))) == size
    height, width = sides(size)
    assert as_image_size((height, width)) == size
    assert pixels(size) == len(bytes(width) * height)
