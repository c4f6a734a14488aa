"""How many images a reference is computed of at a time."""

from __future__ import annotations

import numpy as np
import pytest

from slimexport.probes.large import are_large, batches_of


@pytest.mark.parametrize(
    ("count", "side", "sizes", "large"),
    [(5, 8, [5], False), (4, 512, [4], False), (5, 512, [4, 1], True), (3, 1024, [1, 1, 1], True), (2, 1100, [1, 1], True)],
)
def test_batches_hold_a_million_pixels_or_one_image(count: int, side: int, sizes: list[int], large: bool) -> None:
    images = np.zeros((count, 1, side, side), np.float32)
    images[:, 0, 0, 0] = np.arange(count)
    batches = list(batches_of(images))
    assert [len(batch) for batch in batches] == sizes and are_large(images) is large
    assert np.array_equal(np.concatenate(batches)[:, 0, 0, 0], np.arange(count))
