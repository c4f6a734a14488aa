"""Noise with boxes around nothing, to try out whether a detector's training runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data.detection.targets import Targets

OBJECTS = 3  # of an image


@dataclass(frozen=True)
class FakeObjects:
    """`count` images of `image_size`, each with a few objects of `classes`, their masks, and so many keypoints."""

    count: int
    image_size: ImageSize
    classes: int
    keypoints: int = 0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        """The image's number."""
        return f"fake {index}"

    def image(self, index: int) -> Tensor:
        """uint8 [3, H, W]."""
        return torch.randint(256, (3, *sides(self.image_size)), dtype=torch.uint8, generator=self._draw(index))

    def targets(self, index: int) -> Targets:
        """Boxes of a quarter to half of each side; an object is all of its box, its keypoints in the middle."""
        draw, (height, width) = self._draw(index), sides(self.image_size)
        whole = torch.tensor([width, height])
        size = (whole * (0.25 + 0.25 * torch.rand(OBJECTS, 2, generator=draw))).floor()
        corner = ((whole - size) * torch.rand(OBJECTS, 2, generator=draw)).floor()
        boxes = torch.cat([corner, corner + size], 1)
        left, top, right, bottom = (edge[:, None, None] for edge in boxes.unbind(1))
        rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None]
        masks = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        middle = torch.cat([corner + size / 2, torch.full((OBJECTS, 1), 2.0)], 1)
        return Targets(
            height,
            width,
            boxes,
            torch.randint(1, self.classes + 1, (OBJECTS,), generator=draw),
            torch.zeros(OBJECTS, dtype=torch.bool),
            size.prod(1),
            index,
            masks,
            middle[:, None].repeat(1, self.keypoints, 1) if self.keypoints else None,
        )

    def _draw(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(index)
