"""Images on their way into a runner: their shape, and what results say of the buffers they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Cell


def check_images(images: Array, cell: Cell) -> Array:
    """`images` as a network of `cell` takes them: float32 [batch, channels, H, W], contiguous."""
    assert images.shape == (cell.batch, *cell.image_shape), images.shape
    return np.ascontiguousarray(images, np.float32)


def input_settings(buffers: Sequence[Array], cache_bytes: int) -> dict[str, Any]:
    """How many buffers rotate, all of one size, how large they are together, and the cache that they should exceed twice."""
    size = len(buffers) * buffers[0].nbytes
    return {"input_buffers": len(buffers), "input_bytes": size, "cache_bytes": cache_bytes}
