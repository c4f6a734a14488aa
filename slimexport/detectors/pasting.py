"""Where a detection's mask lies in a photograph. No torch.

A file gives the probability of s x s places of a detection's box. As torchvision's `paste_masks_in_image` has it, the box is
stretched by a place on every side, of which nothing is known to be the object's, and between the middles of places the
probability is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimexport.target.arrays import Array
from slimtrain.data.detection.masks import runs_of_mask, text_of_runs

FAR = 2.0**40  # pixels: a box that is as large is a damaged file's
MASKED = 0.5  # the probability above which a pixel is an object's, as average precision has it


@dataclass(frozen=True)
class PlacedMask:
    """Which of a photograph's pixels are an object's, [height, width]: `counts` as COCO compresses runs. `share`: of the
    detection's whole box, by the mask's own places."""

    height: int
    width: int
    counts: str
    share: float

    @property
    def plain(self) -> dict[str, object]:
        """As COCO's tools read it."""
        return {"size": [self.height, self.width], "counts": self.counts}


def placed(mask: Array, box: Sequence[float], size: tuple[int, int]) -> PlacedMask:
    """A detection's `mask` [s, s] in a photograph of `size`, width and height, whose pixels its `box` (x1, y1, x2, y2) is
    in. It may reach beyond the photograph."""
    width, height = size
    whole = np.zeros((height, width), bool)
    rows, columns, probabilities = pasted(mask, box, size)
    whole[rows, columns] = probabilities > MASKED
    return PlacedMask(height, width, text_of_runs(runs_of_mask(whole)), float((mask > MASKED).mean()))


def pasted(mask: Array, box: Sequence[float], size: tuple[int, int]) -> tuple[slice, slice, Array]:
    """The rows and columns of the photograph that the box covers, and the probabilities there, float32."""
    places = mask.shape[-1]
    bordered = np.pad(np.asarray(mask, np.float32), 1)
    stretch = np.float32((places + 2) / places)
    x1, y1, x2, y2 = np.clip(box, -FAR, FAR).astype(np.float32)
    (columns, across), (rows, down) = (
        _along(*_stretched(low, high, stretch), side, places + 2) for low, high, side in ((x1, x2, size[0]), (y1, y2, size[1]))
    )
    return rows, columns, down @ bordered @ across.T


def _stretched(low: np.float32, high: np.float32, stretch: np.float32) -> tuple[int, int]:
    """An edge of the box and the other, to whole pixels."""
    half, middle = (high - low) * np.float32(0.5) * stretch, (high + low) * np.float32(0.5)
    return int(middle - half), int(middle + half)


def _along(first: int, last: int, side: int, places: int) -> tuple[slice, Array]:
    """Of one direction the pixels `first` to `last` that are in the photograph, and the weights of all `places` in each:
    [pixels, places]."""
    count = max(last - first + 1, 1)
    begin, end = (min(max(edge, 0), side) for edge in (first, last + 1))
    pixels = np.arange(begin, max(begin, end)) - first
    positions = np.clip((pixels + 0.5) * (places / count) - 0.5, 0, places - 1)
    distance = np.abs(positions[:, None] - np.arange(places))
    return slice(begin, begin + len(pixels)), np.clip(1 - distance, 0, None).astype(np.float32)
