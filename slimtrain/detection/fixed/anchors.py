"""Anchors: the boxes that a level's outputs are counted from, for images of one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.models.detector import PUBLISHED, Anchors, DetectorSettings


def grids(anchors: Anchors, image_size: ImageSize) -> list[tuple[int, int]]:
    """Height and width of every level's map: halving rounds up."""
    height, width = sides(image_size)
    return [(-(-height // stride), -(-width // stride)) for stride in anchors.strides]


def level_anchors(settings: DetectorSettings, image_size: ImageSize) -> list[Tensor]:
    """The anchors of every level, float32 [h w A, 4], corners in pixels, in the order of outputs [h, w, A].

    torchvision's generators make them, whose strides are the image's size by the map's. Published ones (mmdetection of 2018)
    have the level's stride, and round the corners of a box around the middle of its first cell, which lies at half a stride.
    """
    anchors, sizes = settings.anchors, grids(settings.anchors, image_size)
    if settings.convention == PUBLISHED:
        return [
            _tiled(_published(stride, of_size, ratios), grid, stride)
            for stride, of_size, ratios, grid in zip(anchors.strides, anchors.sizes, anchors.ratios, sizes, strict=True)
        ]
    if anchors.scales:
        return _default_boxes(anchors, sides(image_size), sizes)
    generator = AnchorGenerator(anchors.sizes, anchors.ratios)
    generator.set_cell_anchors(torch.float32, torch.device("cpu"))
    height, width = sides(image_size)
    strides = [[torch.tensor(height // rows), torch.tensor(width // columns)] for rows, columns in sizes]
    return [level.float() for level in generator.grid_anchors([list(grid) for grid in sizes], strides)]


def _default_boxes(anchors: Anchors, image_size: tuple[int, int], sizes: list[tuple[int, int]]) -> list[Tensor]:
    """SSD's (arXiv 1512.02325, sec. 2.2)."""
    generator = DefaultBoxGenerator([list(of_level) for of_level in anchors.ratios], scales=list(anchors.scales))
    images = ImageList(torch.zeros(1, 3, *image_size), [image_size])
    (boxes,) = generator(images, [torch.zeros(1, 1, *grid) for grid in sizes])
    counts = [rows * columns * count for (rows, columns), count in zip(sizes, anchors.counts, strict=True)]
    return [*boxes.split(counts)]


def _published(stride: int, sizes: Sequence[int], ratios: Sequence[float]) -> Tensor:
    """The anchors of the first cell, in today's coordinates: x2 and y2 lie behind the last pixel."""
    centre = (stride - 1) / 2
    cells = []
    for ratio in ratios:
        for size in sizes:
            height, width = size * ratio**0.5, size / ratio**0.5
            right, down = (width - 1) / 2, (height - 1) / 2
            cells.append([centre - right, centre - down, centre + right, centre + down])
    rounded = torch.tensor(cells, dtype=torch.float64).round().float()
    return rounded + torch.tensor([0.0, 0.0, 1.0, 1.0])


def _tiled(cell: Tensor, grid: tuple[int, int], stride: int) -> Tensor:
    rows, columns = torch.meshgrid(*(torch.arange(size) * stride for size in grid), indexing="ij")
    shifts = torch.stack((columns, rows, columns, rows), -1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)
