"""Which anchors and regions a step's losses are of, drawn for every image by itself.

torchvision draws one image of a batch after the other. Here what is drawn for an image depends on a seed of its own, so that a
step is the same however its images are divided over parts and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Masks = tuple[list[Tensor], list[Tensor]]  # of every image, which are objects' and which are background


class DrawnSingly:
    """`sampler`, torchvision's, which takes its random numbers from torch; `seeds` of the images to come, where there are
    any."""

    def __init__(self, sampler: Callable[[list[Tensor]], Masks]) -> None:
        self.sampler = sampler
        self.seeds: Sequence[int] = ()

    def __call__(self, matched: list[Tensor]) -> Masks:
        """Of every image's anchors or regions: what of them is drawn."""
        if not self.seeds:
            return self.sampler(matched)
        positive: list[Tensor] = []
        negative: list[Tensor] = []
        for seed, of_image in zip(self.seeds, matched, strict=True):
            torch.manual_seed(seed)
            own = self.sampler([of_image])
            positive += own[0]
            negative += own[1]
        return positive, negative


def drawn_singly(part: Any) -> DrawnSingly:
    """Let a part of torchvision's detectors that draws do so for every image by itself."""
    part.fg_bg_sampler = drawn = DrawnSingly(part.fg_bg_sampler)
    return drawn
