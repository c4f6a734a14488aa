"""Pooled regions against torchvision's pooler, and, of the published convention, against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from slimtrain.detection.dense import drawn_regions
from slimtrain.detection.regions import levels_of, pooled
from slimtrain.models.detector import PUBLISHED, TORCHVISION

STRIDES = (4, 8, 16, 32)
SIZE = (512, 640)
Array = NDArray[np.float64]


def drawn() -> tuple[list[Tensor], Tensor]:
    """Maps of two images, and regions: of all levels, at the edges, smaller than a cell."""
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(2, 3, SIZE[0] // s, SIZE[1] // s, generator=generator, dtype=torch.float64) for s in STRIDES]
    edges = [[0, 0, 0, 640, 512], [1, 600, 480, 640, 512], [0, 10, 10, 12, 11.5], [1, 100, 50, 156, 106], [1, 0, 0, 224, 224]]
    return maps, torch.cat([drawn_regions(2, 12, SIZE, generator).double(), torch.tensor(edges, dtype=torch.float64)])


@pytest.mark.parametrize("size", [7, 14])
def test_regions_are_pooled_as_torchvision_does(size: int) -> None:
    maps, regions = drawn()
    pooler = MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2)
    order = torch.argsort(regions[:, 0], stable=True)
    boxes = [regions[regions[:, 0] == image][:, 1:] for image in (0, 1)]
    expected = pooler({str(index): level for index, level in enumerate(maps)}, boxes, [SIZE, SIZE])
    assert len(set(levels_of(regions, STRIDES, TORCHVISION).tolist())) == len(STRIDES)
    assert torch.equal(pooled(maps, regions, STRIDES, size, 2, TORCHVISION)[order], expected)


def test_levels_are_torchvision_s_at_their_bounds() -> None:
    sides = torch.tensor([112.0, 111.9, 224.0, 223.9, 448.0, 447.9, 4.0, 2000.0], dtype=torch.float64)
    zeros = torch.zeros_like(sides)
    regions = torch.stack([zeros, zeros, zeros, sides, sides], 1)
    assert levels_of(regions, STRIDES, TORCHVISION).tolist() == [1, 0, 2, 1, 3, 2, 0, 3]
    assert levels_of(regions, STRIDES, PUBLISHED).tolist() == [1, 0, 2, 1, 3, 2, 0, 3]


def test_published_regions_are_pooled_as_they_were_defined() -> None:
    maps, regions = drawn()
    result = pooled(maps, regions, STRIDES, 7, 2, PUBLISHED).numpy()
    arrays = [level.numpy() for level in maps]
    for region, own in zip(regions.tolist(), result, strict=True):
        image, x1, y1, x2, y2 = region
        expected = published(arrays, int(image), (x1, y1, x2 - 1, y2 - 1))  # their corners are the last pixels
        assert np.abs(own - expected).max() < 1e-9


def published(maps: list[Array], image: int, box: tuple[float, float, float, float]) -> Array:
    """RoIAlign of mmdetection in 2018: inclusive corners, two samples a side in each of 7 x 7 bins, no offset by half a cell,
    no smallest size."""
    x1, y1, x2, y2 = box
    level = min(max(math.floor(math.log2(math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1)) / 56 + 1e-6)), 0), 3)
    scale = 1 / STRIDES[level]
    left, top = x1 * scale, y1 * scale
    width, height = max((x2 + 1) * scale - left, 0) / 7, max((y2 + 1) * scale - top, 0) / 7
    plane = maps[level][image]
    bins = np.zeros((plane.shape[0], 7, 7))
    for row in range(7):
        for column in range(7):
            for i in (0.25, 0.75):
                for j in (0.25, 0.75):
                    bins[:, row, column] += bilinear(plane, top + (row + i) * height, left + (column + j) * width) / 4
    return bins


def bilinear(plane: Array, y: float, x: float) -> Array:
    _, rows, columns = plane.shape
    if not (-1 <= y <= rows and -1 <= x <= columns):
        return np.zeros(plane.shape[0])
    y, x = min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    dy, dx = y - top, x - left
    upper = plane[:, top, left] * (1 - dx) + plane[:, top, right] * dx
    lower = plane[:, bottom, left] * (1 - dx) + plane[:, bottom, right] * dx
    return np.asarray(upper * (1 - dy) + lower * dy)
