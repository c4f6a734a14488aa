"""Pyramids against torchvision's, whose maps grow to sizes and not by a factor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from slimtrain.detection.pyramid import Pyramid, PyramidBackbone


def maps(height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        str(level): torch.randn(2, channels, height >> level, width >> level, generator=generator, dtype=torch.float64)
        for level, channels in enumerate((4, 6, 8))
    }


@pytest.mark.parametrize("extra", ["pool", "convolutions"])
@pytest.mark.parametrize("size", [(8, 12), (4, 20)])
def test_it_is_torchvision_s_where_maps_halve(extra: str, size: tuple[int, int]) -> None:
    blocks = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(5, 5)
    theirs = FeaturePyramidNetwork([4, 6, 8], 5, blocks).double()
    ours = PyramidBackbone(nn.Identity(), (4, 6, 8), 5, extra).double()
    ours.fpn.load_state_dict(theirs.state_dict())
    given = maps(*size)
    for result, expected in zip(ours(given), theirs(given).values(), strict=True):
        assert torch.equal(result, expected)


def test_maps_keep_their_names() -> None:
    assert list(Pyramid([4, 6, 8], 5, LastLevelMaxPool()).double()(maps(8, 8))) == ["0", "1", "2", "pool"]
