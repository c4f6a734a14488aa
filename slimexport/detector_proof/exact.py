"""A slimmable detector's learned parts in float64, on images and on regions that are given.

Of large images that takes gigabytes at once. So images are computed one after the other, in bands, and regions few at a time,
whose tensors malloc keeps at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from slimexport.references.bands import InBands
from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.dense import drawn_regions
from slimtrain.detection.halves import First, Halves
from slimtrain.detection.regions import CANONICAL_SIZE, EPSILON
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork

TOGETHER = 100  # regions: 10 MB of 256 channels, 7x7
BOUNDARY = 4e-6  # of a region's level, as float32 has it


class Exact:
    """`network`, in float64 and evaluation mode, at `plan`, on `images` [P, 3, H, W]: their maps are computed once, and held
    once."""

    def __init__(self, network: SlimmableNetwork, plan: ChannelPlan, images: Array) -> None:
        self.plan, self.halves = plan, Halves(network)
        number = next(network.parameters()).dtype
        self.first: dict[str, Tensor] = {}  # what is computed of images: maps, objectness, codes
        with torch.inference_mode(), InBands(), network.at(plan):
            self._of_images = [self._first(image, images, number) for image in range(len(images))]

    def _first(self, image: int, images: Array, number: torch.dtype) -> First:
        """Of one image, its outputs in their rows of `first`."""
        first = self.halves.first(torch.from_numpy(images[image : image + 1]).to(number))
        kept = {}
        for name, values in first.outputs.items():
            if name not in self.first:
                self.first[name] = values.new_empty((len(images), *values.shape[1:]))
            kept[id(values)] = self.first[name][image : image + 1].copy_(values)
        outputs = {name: kept[id(values)] for name, values in first.outputs.items()}
        return replace(first, slots=[kept.get(id(values), values) for values in first.slots], outputs=outputs)

    def second(self, *regions: Array) -> dict[str, Tensor]:
        """What heads give of regions [R, 5], for each of the network's inputs of such, by the outputs' names."""
        outputs: dict[str, Tensor] = {}
        with torch.inference_mode(), InBands(), self.halves.network.at(self.plan):
            for number, rows in enumerate(regions):
                outputs |= self._of_regions(number, rows)
        return outputs

    def _of_regions(self, number: int, rows: Array) -> dict[str, Tensor]:
        """What the heads that read the input of this `number` give, TOGETHER of an image at a time."""
        outputs: dict[str, Tensor] = {}
        for image, own in _by_image(rows, len(self._of_images)):
            for start in range(0, len(own) or 1, TOGETHER):
                places = own[start : start + TOGETHER]
                for name, values in self._of(number, image, rows[places]).items():
                    if name not in outputs:
                        outputs[name] = values.new_empty((len(rows), *values.shape[1:]))
                    outputs[name][torch.from_numpy(places)] = values
        return outputs

    def _of(self, number: int, image: int, rows: Array) -> dict[str, Tensor]:
        """Of regions of one image."""
        first = self._of_images[image]
        before = replace(first, slots=[*first.slots], regions=number)
        alone = np.concatenate([np.zeros_like(rows[:, :1]), rows[:, 1:]], 1)  # the first and only one there
        outputs = self.halves.further(before, torch.from_numpy(alone).to(first.images.dtype)).outputs
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


def _by_image(regions: Array, images: int) -> Sequence[tuple[int, Array]]:
    """The images that regions [R, 5] are of, and the places of theirs; of no region the first one. Regions of images that
    there are not are of the nearest."""
    numbers = np.clip(regions[:, 0].astype(np.int64), 0, images - 1)
    return [(int(image), np.flatnonzero(numbers == image)) for image in np.unique(numbers)] or [(0, np.arange(0))]


def near_boundaries(regions: Array) -> Array:
    """Which of regions [R, 5] lie so near between two levels of the pyramid that float32 may take the other one."""
    sizes = (regions[:, 3:] - regions[:, 1:3]).astype(np.float64).prod(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = 0.5 * np.log2(sizes) - math.log2(CANONICAL_SIZE) + EPSILON
        return np.asarray(np.abs(level - np.rint(level)) < BOUNDARY)  # False of no size
