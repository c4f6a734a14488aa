"""Operators as a graph calls them."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from slimtrain.slimmable.program import pooled_regions

HOW = (0.5, 3, 3, 2, False)  # scale, height, width, samples, aligned


def test_regions_are_pooled_as_torchvision_does() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 4, 8, 8, generator=draw)
    regions = torch.tensor([[0.0, 1.0, 2.0, 9.0, 12.0], [1.0, 0.0, 0.0, 16.0, 16.0], [1.0, 3.5, 3.0, 3.5, 3.0]])
    assert torch.equal(pooled_regions(maps, regions, *HOW), roi_align(maps, regions, (3, 3), 0.5, 2, False))
    assert pooled_regions(maps, regions[:0], *HOW).shape == (0, 4, 3, 3)


@pytest.mark.parametrize("number", [float("nan"), 1e9, -1e9, float("inf")])
@pytest.mark.parametrize("place", range(5))
def test_no_region_reads_what_is_no_map(number: float, place: int) -> None:
    """Of a graph of somebody else: torchvision's own operator crashes, or gives what lies in memory."""
    maps = torch.full((2, 4, 8, 8), 3.0)
    regions = torch.tensor([[1.0, 1.0, 1.0, 9.0, 9.0]])
    regions[0, place] = number
    given = pooled_regions(maps, regions, *HOW)
    assert given.isfinite().all() and given.min() >= 0 and given.max() <= 3 + 1e-4
