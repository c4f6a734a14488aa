"""What is done to an image and its objects together: resized in its proportions, mirrored, normalized.

Each step is a function from an image and its targets to both. `DetectionTransform` does all of them, with what is random drawn
from a generator that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from slimtrain.data.detection.targets import Targets
from slimtrain.data.samples import Picture, as_pillow

Pairs = Sequence[tuple[int, int]]


def fitted(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """(height, width) in the same proportions, to whole pixels: the shorter side is `short`, unless the longer one would be
    more than `long`, which it is then. Halves are rounded up, as mmcv's `imrescale` does."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resized(image: Image.Image, targets: Targets, height: int, width: int) -> tuple[Image.Image, Targets]:
    """Both in another size. Boxes and keypoints go with the true ratio of each side, masks to the nearest pixel; areas are
    those of the new size."""
    down, across = height / targets.height, width / targets.width
    masks, keypoints = targets.masks, targets.keypoints
    if masks is not None:
        rows, columns = (torch.arange(new) * 2 + 1 for new in (height, width))  # twice the pixels' middles
        masks = masks[:, rows * targets.height // (2 * height)][:, :, columns * targets.width // (2 * width)]
    if keypoints is not None:
        keypoints = keypoints * torch.tensor([across, down, 1])
    new = replace(
        targets,
        height=height,
        width=width,
        boxes=targets.boxes * torch.tensor([across, down, across, down]),
        area=targets.area * (across * down),
        masks=masks,
        keypoints=keypoints,
    )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image, new


def mirrored(image: Image.Image, targets: Targets, pairs: Pairs = ()) -> tuple[Image.Image, Targets]:
    """Left and right exchanged; of keypoints also the numbers of each pair, since a left eye is a right one then. Unknown
    keypoints stay at zero."""
    x1, y1, x2, y2 = targets.boxes.unbind(1)
    masks, keypoints = targets.masks, targets.keypoints
    if keypoints is not None:
        x, y, seen = keypoints.unbind(2)
        order = list(range(keypoints.shape[1]))
        for left, right in pairs:
            order[left], order[right] = right, left
        keypoints = torch.stack([torch.where(seen > 0, targets.width - x, x), y, seen], 2)[:, order]
    boxes = torch.stack([targets.width - x2, y1, targets.width - x1, y2], 1)
    new = replace(targets, boxes=boxes, masks=None if masks is None else masks.flip(2), keypoints=keypoints)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), new


def normalized(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float32 [channels, H, W] of values from 0 to 1, minus `mean`, over `std`, each per channel."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    values = pixels.view(image.height, image.width, len(mean)).permute(2, 0, 1).float() / 255
    return ((values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]).contiguous()


def padded(images: Sequence[Tensor], multiple: int = 1, size: tuple[int, int] | None = None) -> Tensor:
    """Images [C, h, w] of several sizes in one [N, C, H, W], zeros to the right and below: of the smallest multiples of
    `multiple` that hold all, or of `size`. ValueError where an image is larger than that."""
    height, width = (-(-max(image.shape[axis] for image in images) // multiple) * multiple for axis in (1, 2))
    if size is not None:
        if height > size[0] or width > size[1]:
            raise ValueError(f"images of up to {height} x {width} pixels do not fit into {size[0]} x {size[1]}")
        height, width = size
    result = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image in zip(result, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return result


@dataclass(frozen=True)
class DetectionTransform:
    """`short`: of which one is drawn as the shorter side, `long` the most of the longer one; none: images keep their size.
    `mirror`: the share of images that is mirrored, with its keypoints' `pairs`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    short: tuple[int, ...] = ()
    long: int = 1333
    mirror: float = 0.0
    pairs: tuple[tuple[int, int], ...] = ()

    def __call__(self, picture: Picture, targets: Targets, draw: torch.Generator | None = None) -> tuple[Tensor, Targets]:
        """A normalized image and its targets. Without `draw`, as in testing: of the last of `short`, not mirrored."""
        image = as_pillow(picture, len(self.mean))
        if self.short:
            which = len(self.short) - 1 if draw is None else int(torch.randint(len(self.short), (), generator=draw))
            size = fitted(targets.height, targets.width, self.short[which], self.long)
            image, targets = resized(image, targets, *size)
        if draw is not None and float(torch.rand((), generator=draw)) < self.mirror:
            image, targets = mirrored(image, targets, self.pairs)
        return normalized(image, self.mean, self.std), targets
