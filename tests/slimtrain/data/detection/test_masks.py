"""Masks against their definition: runs counted by hand, polygons by asking for every pixel's middle."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from slimtrain.base.errors import ResourceError
from slimtrain.data.detection.masks import (
    mask_library,
    mask_of_polygons,
    mask_of_runs,
    runs_of_mask,
    runs_of_masks,
    runs_of_text,
    text_of_runs,
)

pytest.importorskip("faster_coco_eval", reason="the extra detection is not installed")


def runs(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[int]:
    lengths, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def test_runs_are_told_in_numbers_and_in_text() -> None:
    draw = np.random.default_rng(0)
    masks = draw.random((40, 13, 9)) < np.linspace(0, 1, 40)[:, None, None]
    large = np.zeros((1, 300, 200), bool)  # numbers of several characters, and of a sign
    large[0, 20:250, 3:190] = True
    for mask in (*masks, *large):
        own = runs(mask)
        assert (mask_of_runs(own, *mask.shape) == mask).all()
        (written,) = runs_of_masks(mask[None])
        assert written["size"] == list(mask.shape) and runs_of_text(written["counts"].decode()) == own
        assert runs_of_mask(mask) == own and text_of_runs(own) == written["counts"].decode()


@pytest.mark.parametrize("wrong", [[5], [-1, 7], [6, 2**62], [2**62, 2**62, 2**62, 2**62], []])
def test_runs_that_do_not_fill_an_image_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fill the image's 6 pixels"):
        mask_of_runs(wrong, 2, 3)


@pytest.mark.parametrize("text", ["!", "5P", "\x7f", "o" * 50, "é"])
def test_a_text_that_tells_no_runs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"counts|ascii"):
        runs_of_text(text)


def test_polygons_fill_the_pixels_whose_middles_they_enclose() -> None:
    """COCO's own filling differs from that at the edge by less than a pixel."""
    triangle = np.array([3.0, 2.0, 28.0, 6.0, 10.0, 25.0])
    filled = mask_of_polygons([triangle, triangle + 12], 40, 44)
    y, x = np.mgrid[:40, :44] + 0.5

    def distance(
        corners: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        points = corners.reshape(-1, 2)
        sides = []
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
            sides.append(((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) / np.hypot(x2 - x1, y2 - y1))
        return np.min(sides, 0)  # positive inside

    inside = np.maximum(distance(triangle), distance(triangle + 12))
    assert filled[inside > 1].all() and not filled[inside < -1].any()
    assert (mask_of_polygons([np.array([2.0, 2, 8, 2, 8, 8, 2, 8])], 10, 20).nonzero()[0] == np.repeat(range(2, 8), 6)).all()


def test_without_the_package_a_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core", None)
    with pytest.raises(ResourceError, match=r"pip install 'slimmable-deploy\[detection\]'"):
        mask_library()
