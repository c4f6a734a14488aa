"""Regions pooled from the maps of a pyramid (RoIAlign, arXiv 1703.06870), in shapes that no region decides on.

Every level pools all regions, and of each region the level that it belongs to counts; at the others it lies outside of the
map, where there is nothing to sum up, forward and backward. torchvision's `MultiScaleRoIAlign` pools those of a level alone,
of which there are as many as the regions say; what both give is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from slimtrain.models.detector import PUBLISHED

CANONICAL_SIZE, CANONICAL_STRIDE = 224, 16  # of a region, and of the level that it belongs to (arXiv 1612.03144, eq. 1)
EPSILON = 1e-6
OUTSIDE = -16  # cells to the left and above a map


def levels_of(regions: Tensor, strides: Sequence[int], convention: str) -> Tensor:
    """The number of the level that each of `regions` [R, 5] (image, x1, y1, x2, y2) belongs to, [R], as numbers of theirs."""
    size = torch.sqrt((regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2]))
    if convention == PUBLISHED:
        finest = CANONICAL_SIZE * strides[0] // CANONICAL_STRIDE
        level = torch.floor(torch.log2(size / finest + EPSILON))
    else:
        first = int(math.log2(strides[0]))
        level = torch.floor(math.log2(CANONICAL_STRIDE) + torch.log2(size / CANONICAL_SIZE) + EPSILON) - first
    return torch.clamp(level, 0, len(strides) - 1)


def pooled(
    maps: Sequence[Tensor], regions: Tensor, strides: Sequence[int], size: int, sampling_ratio: int, convention: str
) -> Tensor:
    """[R, C, size, size] of `regions` [R, 5] (image, x1, y1, x2, y2 in pixels), each pooled from the map of its level.

    As the published branch did it, a region narrower than a cell is not widened to one. torchvision's operator does so where
    it is aligned, half a cell further to the left and up; regions that far to the right and down make that even.
    """
    level = levels_of(regions, strides, convention)
    published = convention == PUBLISHED
    result = None
    for index, (level_map, stride) in enumerate(zip(maps, strides, strict=True)):
        corners = regions[:, 1:] + stride / 2 if published else regions[:, 1:]
        own = torch.cat([regions[:, :1], torch.where((level == index)[:, None], corners, OUTSIDE * stride)], 1)
        part = roi_align(level_map, own, (size, size), 1 / stride, sampling_ratio, aligned=published)
        result = part if result is None else torch.where((level == index)[:, None, None, None], part, result)
    assert result is not None
    return result
