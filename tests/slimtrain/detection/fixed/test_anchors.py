"""Anchors against torchvision's generator, and the published ones against their definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from slimtrain.detection.fixed.anchors import grids, level_anchors
from slimtrain.models.detector import PUBLISHED, SSD_ANCHORS, SSDLITE, Anchors, DetectorSettings, usual_box

DEFAULT = DetectorSettings(classes=80)


@pytest.mark.parametrize("image", [(128, 192), (800, 1344)])  # 800 px make 13 rows of stride 64, which do not fit
def test_they_are_those_of_torchvision(image: tuple[int, int]) -> None:
    maps = [torch.zeros(1, 1, *grid) for grid in grids(DEFAULT.anchors, image)]
    generator = AnchorGenerator(DEFAULT.anchors.sizes, DEFAULT.anchors.ratios)
    (expected,) = generator(ImageList(torch.zeros(1, 3, *image), [image]), maps)
    assert torch.equal(torch.cat(level_anchors(DEFAULT, image)), expected)


def test_a_map_halves_upwards() -> None:
    assert grids(DEFAULT.anchors, (800, 1344)) == [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]


def test_published_ones_are_as_defined() -> None:
    """mmdetection of 2018: around the middle of a cell's pixels, corners rounded, the last pixel inside."""
    given = replace(DEFAULT, convention=PUBLISHED, anchors=Anchors(((32, 40), (64,)), ((0.5, 1.0, 2.0),) * 2, (4, 8)))
    image = 48, 64
    for level, boxes in enumerate(level_anchors(given, image)):
        stride = given.anchors.strides[level]
        expected = []
        for row in range(image[0] // stride):
            for column in range(image[1] // stride):
                for ratio in given.anchors.ratios[level]:
                    for size in given.anchors.sizes[level]:
                        high, wide = size * np.sqrt(ratio), size / np.sqrt(ratio)
                        middle = 0.5 * (stride - 1)
                        corner = np.round([middle - 0.5 * (wide - 1), middle - 0.5 * (high - 1)])
                        end = np.round([middle + 0.5 * (wide - 1), middle + 0.5 * (high - 1)])
                        shift = np.array([column, row]) * stride
                        expected.append([*(corner + shift), *(end + shift + 1)])
        assert np.array_equal(boxes.numpy(), np.array(expected))


@pytest.mark.parametrize("image", [(320, 320), (128, 192)])
def test_default_boxes_are_those_of_torchvision(image: tuple[int, int]) -> None:
    """ssdlite320's, whose maps of 320 px are 20, 10, 5, 3, 2 and 1 wide."""
    given = DetectorSettings(80, SSDLITE, SSD_ANCHORS, box=usual_box(SSDLITE))
    if image == (320, 320):
        assert grids(given.anchors, image) == [(side, side) for side in (20, 10, 5, 3, 2, 1)]
    maps = [torch.zeros(1, 1, *grid) for grid in grids(given.anchors, image)]
    generator = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    (expected,) = generator(ImageList(torch.zeros(1, 3, *image), [image]), maps)
    boxes = level_anchors(given, image)
    assert [len(level) for level in boxes] == [6 * h * w for h, w in grids(given.anchors, image)]
    torch.testing.assert_close(torch.cat(boxes), expected, rtol=0, atol=1e-5)
