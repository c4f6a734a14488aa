"""Images so large that a reference is computed of few of them at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

from slimtrain.data.images import Images

TOGETHER = 2**20  # pixels that a reference is computed of at a time


def batches_of(images: Images) -> Iterator[Images]:
    """Images [P, C, H, W], as many at a time as have TOGETHER pixels, larger ones each alone."""
    size = max(1, TOGETHER // math.prod(images.shape[2:]))
    return (images[start : start + size] for start in range(0, len(images), size))


def are_large(images: Images) -> bool:
    """Whether a reference of all of them takes so much memory that nothing should be computed beside."""
    return math.prod(images.shape[2:]) * len(images) > TOGETHER
