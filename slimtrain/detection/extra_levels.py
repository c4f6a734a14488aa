"""SSDLite's levels (arXiv 1801.04381, sec. 6.2): a network's stages as they are, and four further ones behind the last, each
of half the sides, rounded up. There is no pyramid: a level knows nothing of coarser ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

SSD_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)  # torchvision's, of further levels and heads
FURTHER = (2.0, 1.0, 1.0, 0.5)  # channels of the further levels, next to the neck's: 512, 256, 256, 128 of 256
LEAST = 16  # channels of a level
DEVIATION = 0.03  # of the weights that training begins with


class ExtendedBackbone(nn.Module):
    """A network's stages and the levels behind them: `body`, as torchvision's detectors call it, and `extra`. `channels`: of
    every level."""

    def __init__(self, body: nn.Module, channels: Sequence[int], neck: int) -> None:
        super().__init__()
        self.body = body
        further = [max(LEAST, int(neck * share)) for share in FURTHER]
        self.channels = (*channels, *further)
        self.extra = nn.ModuleList(
            extra_level(first, second) for first, second in zip(self.channels[len(channels) - 1 :], further, strict=False)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the levels' maps, the finest first."""
        maps = list(self.body(images).values())
        for level in self.extra:
            maps.append(level(maps[-1]))
        return maps


def extra_level(channels: int, out: int) -> nn.Sequential:
    """Of a map [B, channels, h, w] the next, [B, out, h / 2, w / 2], sides rounded up."""
    unit = partial(Conv2dNormActivation, norm_layer=SSD_NORM, activation_layer=nn.ReLU6)
    half = out // 2
    level = nn.Sequential(
        unit(channels, half, kernel_size=1),
        unit(half, half, kernel_size=3, stride=2, groups=half),
        unit(half, out, kernel_size=1),
    )
    for part in level.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=DEVIATION)
    return level
