"""A slimmable detector's learned parts in float64, on images and on regions that are given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.dense import drawn_regions
from slimtrain.detection.halves import Halves
from slimtrain.detection.regions import CANONICAL_SIZE, EPSILON
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork

TOGETHER = 500  # regions
BOUNDARY = 4e-6  # of a region's level, as float32 has it


class Exact:
    """`network`, in float64 and evaluation mode, at `plan`, on `images` [P, 3, H, W]: their maps are computed once."""

    def __init__(self, network: SlimmableNetwork, plan: ChannelPlan, images: Array) -> None:
        self.plan, self.halves = plan, Halves(network)
        number = next(network.parameters()).dtype
        with torch.inference_mode(), network.at(plan):
            self._first = self.halves.first(torch.from_numpy(images).to(number))

    @property
    def first(self) -> dict[str, Tensor]:
        """What is computed of images: maps, objectness, codes."""
        return dict(self._first.outputs)

    def second(self, *regions: Array) -> dict[str, Tensor]:
        """What heads give of regions [R, 5], for each of the network's inputs of such, by the outputs' names. TOGETHER of them
        at a time: pooled in float64 from every level, a thousand of a large network are gigabytes."""
        outputs: dict[str, Tensor] = {}
        with torch.inference_mode(), self.halves.network.at(self.plan):
            for number, rows in enumerate(regions):
                parts = [self._of(number, rows[start : start + TOGETHER]) for start in range(0, len(rows) or 1, TOGETHER)]
                outputs |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return outputs

    def _of(self, number: int, rows: Array) -> dict[str, Tensor]:
        """What the heads that read the input of this `number` give."""
        before = replace(self._first, slots=[*self._first.slots], regions=number)
        outputs = self.halves.further(before, torch.from_numpy(rows).to(self._first.images.dtype)).outputs
        heads = {name: values for name, values in outputs.items() if name.endswith("logits") or name == "box_deltas"}
        return {name: values for name, values in heads.items() if values is not None}

    def points_of(self, regions: Array) -> Tensor:
        """Keypoint logits of regions [R, 5]."""
        return self.second(regions, regions)["keypoint_logits"]


def regions_of_all_levels(image_size: ImageSize, settings: DetectorSettings, images: int, count: int) -> Array:
    """`count` regions of each of `images`, float32 [images count, 5]: of every level of the pyramid, whether or not such fit
    into the image, some wholly within it, and one of no size."""
    height, width = sides(image_size)
    generator = torch.Generator().manual_seed(3)
    inside = drawn_regions(images, count, (height, width), generator)
    levels = len(settings.anchors.strides) - settings.extra_levels
    first = math.log2(settings.anchors.strides[0])
    level = torch.arange(images * count) % levels
    middle = CANONICAL_SIZE * torch.exp2(first + level - 4 + 0.2 + 0.6 * torch.rand(images * count, generator=generator))
    shape = torch.rand(images * count, 1, generator=generator) - 0.5
    side = torch.stack([middle, middle], 1) * torch.exp2(shape * torch.tensor([1.0, -1.0]))
    room = torch.tensor([width, height]) - side
    corner = room * torch.rand(images * count, 2, generator=generator)
    reaching = torch.cat([inside[:, :1], corner, corner + side], 1)
    regions = torch.where((torch.arange(images * count) % 3 > 0)[:, None], reaching, inside)
    regions[::count, 1:] = 0
    return np.asarray(regions.float().numpy())


def near_boundaries(regions: Array) -> Array:
    """Which of regions [R, 5] lie so near between two levels of the pyramid that float32 may take the other one."""
    sizes = (regions[:, 3:] - regions[:, 1:3]).astype(np.float64).prod(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 0.5 * np.log2(sizes) - math.log2(CANONICAL_SIZE) + EPSILON
        return np.asarray(np.abs(level - np.rint(level)) < BOUNDARY)  # False of no size
