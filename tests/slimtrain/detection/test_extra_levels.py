"""SSDLite's further levels against torchvision's."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.detection.ssdlite import _extra_block

from slimtrain.detection.extra_levels import SSD_NORM, ExtendedBackbone, extra_level


class Two(nn.Module):
    """Two stages, of 6 and 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.first(x)
        return {"0": first, "1": self.second(first)}


def test_a_level_is_torchvision_s_and_begins_as_its_own_do() -> None:
    torch.manual_seed(0)
    own, theirs = extra_level(10, 24).eval(), _extra_block(10, 24, SSD_NORM).eval()
    theirs.load_state_dict(own.state_dict())
    for size in ((7, 4), (1, 1)):
        x = torch.randn(2, 10, *size)
        assert torch.equal(own(x), theirs(x))
    weights = torch.cat([part.weight.flatten() for part in own.modules() if isinstance(part, nn.Conv2d)])
    assert 0.02 < float(weights.std().detach()) < 0.04


def test_levels_follow_the_stages_with_half_the_sides() -> None:
    backbone = ExtendedBackbone(Two(), (6, 8), 64).eval()
    assert backbone.channels == (6, 8, 128, 64, 64, 32)
    maps = backbone(torch.zeros(1, 3, 40, 24))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (6, 20, 12),
        (8, 10, 6),
        (128, 5, 3),
        (64, 3, 2),
        (64, 2, 1),
        (32, 1, 1),
    ]


def test_levels_have_the_channels_of_torchvision_s_at_its_neck() -> None:
    assert ExtendedBackbone(Two(), (6, 8), 256).channels[2:] == (512, 256, 256, 128)
    assert ExtendedBackbone(Two(), (6, 8), 8).channels[2:] == (16, 16, 16, 16)
