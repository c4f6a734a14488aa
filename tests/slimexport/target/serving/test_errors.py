"""Images and milliseconds of a request: the quick ways give what the long ones do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from slimexport.target.serving.errors import MOST_MS, RequestError, check_counts, checked_images, checked_ms
from slimtrain.base.errors import UserError

SHAPE = (3, 4, 5)


def values(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Own(np.ndarray[Any, Any]):
    """A kind of array of somebody's."""


def other_dtype(image: Any) -> Any:
    """The same numbers, of a float32 that is equal to numpy's own, and is another object."""
    return image.view(np.dtype(np.float32, metadata={"unit": "one"}))


IMAGE = values(*SHAPE)
SINGLE = {
    "as mostly": IMAGE,
    "another float32": other_dtype(IMAGE),
    "a kind of somebody's": IMAGE.view(Own),
    "read only": np.frombuffer(IMAGE.tobytes(), np.float32).reshape(SHAPE),
    "by columns": np.asfortranarray(IMAGE),
    "every second": np.repeat(IMAGE, 2, axis=2)[:, :, ::2],
}


@pytest.mark.parametrize("kind", SINGLE)
def test_one_image_gets_a_batch_dimension(kind: str) -> None:
    images, single = checked_images(SINGLE[kind], SHAPE)
    assert single and type(images) is np.ndarray and images.dtype == np.float32 and images.flags.c_contiguous
    np.testing.assert_array_equal(images, IMAGE[None])


def test_one_image_is_not_copied() -> None:
    assert np.shares_memory(checked_images(IMAGE, SHAPE)[0], IMAGE)


def test_several_images_are_not_copied_where_they_lie_as_they_should() -> None:
    given = values(2, *SHAPE)
    assert checked_images(given, SHAPE)[0] is given
    for other in (np.asfortranarray(given), np.repeat(given, 2, axis=3)[..., ::2], other_dtype(given), given.view(Own)):
        images, single = checked_images(other, SHAPE)
        assert not single and images.flags.c_contiguous
        np.testing.assert_array_equal(images, given)


def test_several_images_stay_as_they_are() -> None:
    for count in (1, 2):
        given = values(count, *SHAPE)
        images, single = checked_images(given, SHAPE)
        assert not single and images.shape == (count, *SHAPE)
        np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE.astype(">f4"), "an input of >f4" if np.little_endian else "expected float32"),
        (IMAGE.astype("<f4"), None if np.little_endian else "expected float32"),
        (IMAGE.astype(np.float16), "an input of float16, expected float32"),
        (IMAGE.view(np.int32), "an input of int32, expected float32"),
        (values(3, 4, 6), r"shape \[3, 4, 6\], expected \[3, 4, 5\] or \[N, 3, 4, 5\]"),
        (values(0, *SHAPE), r"shape \[0, 3, 4, 5\]"),
    ],
)
def test_what_has_the_right_shape_or_size_alone_is_no_image(image: Any, message: str | None) -> None:
    if message is None:
        np.testing.assert_array_equal(checked_images(image, SHAPE)[0], IMAGE[None])
        return
    with pytest.raises(RequestError, match=message):
        checked_images(image, SHAPE)


@pytest.mark.parametrize("ms", [5e-324, 1.0, 20, np.float32(20), np.int16(20), MOST_MS, np.float64(MOST_MS)])
def test_milliseconds_are_a_float_of_python(ms: Any) -> None:
    checked = checked_ms(ms, "deadline_ms")
    assert type(checked) is float and checked == ms


@pytest.mark.parametrize("ms", [0.0, -0.0, -1.0, math.nan, math.inf, math.nextafter(MOST_MS, math.inf), True, "5", None])
def test_other_milliseconds_are_refused(ms: Any) -> None:
    with pytest.raises(RequestError, match=r"deadline_ms .* above 0, up to an hour"):
        checked_ms(ms, "deadline_ms")


@pytest.mark.parametrize("number", [0, -1, 1.0, True, None, "1"])
def test_what_is_counted_is_a_whole_number(number: object) -> None:
    check_counts(queue=1, threads=10**6)
    with pytest.raises(UserError, match=rf"^threads {number!r}: expected a whole number, 1 or more\.$"):
        check_counts(queue=1, threads=number)
