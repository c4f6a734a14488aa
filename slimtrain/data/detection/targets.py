"""What is to be found in an image, and sets of images that tell it.

Coordinates are those of torchvision's detectors: pixel i of a row lies between i and i + 1, so that a box's x2 and y2 are the
first ones outside and the middle of the first pixel is at 0.5. Keypoints are in the same coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from slimtrain.data.samples import Pictures


@dataclass(frozen=True, eq=False)
class Targets:
    """The N objects of an image of `height` x `width` pixels. `crowd` ones are regions of many objects: neither to be learned
    nor to be missed. `area` in pixels says which are small, medium and large."""

    height: int
    width: int
    boxes: Tensor  # float32 [N, 4]: x1, y1, x2, y2
    labels: Tensor  # int64 [N], from 1: 0 is the background
    crowd: Tensor  # bool [N]
    area: Tensor  # float32 [N]
    image_id: int = 0
    masks: Tensor | None = None  # bool [N, H, W]
    keypoints: Tensor | None = None  # float32 [N, K, 3]: x, y, and 0 unknown, 1 hidden, 2 visible

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Tensor) -> Targets:
        """Those objects for which `chosen`, bool [N], is true."""
        return Targets(
            self.height,
            self.width,
            self.boxes[chosen],
            self.labels[chosen],
            self.crowd[chosen],
            self.area[chosen],
            self.image_id,
            None if self.masks is None else self.masks[chosen],
            None if self.keypoints is None else self.keypoints[chosen],
        )

    def to(self, device: torch.device) -> Targets:
        """The same where they are computed with."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            labels=self.labels.to(device),
            crowd=self.crowd.to(device),
            area=self.area.to(device),
            masks=None if self.masks is None else self.masks.to(device),
            keypoints=None if self.keypoints is None else self.keypoints.to(device),
        )

    def single(self) -> Targets:
        """Without crowds: what is trained on."""
        return self.only(~self.crowd)


class DetectionSamples(Pictures, Protocol):
    """Images with objects."""

    def targets(self, index: int) -> Targets:
        """What is in an image."""
        ...


def boxes_of_masks(masks: Tensor) -> Tensor:
    """The smallest boxes, float32 [N, 4], around masks, bool [N, H, W]; of an empty mask all zeros."""
    rows, columns = masks.any(2), masks.any(1)
    edges = [axis.int().argmax(1) for axis in (columns, rows)]
    ends = [axis.shape[1] - axis.flip(1).int().argmax(1) for axis in (columns, rows)]
    return torch.stack([*edges, *ends], 1).float() * rows.any(1, keepdim=True)
