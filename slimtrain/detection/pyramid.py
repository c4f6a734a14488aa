"""Feature pyramids (arXiv 1612.03144), for images of any size that the coarsest stage's stride divides.

torchvision's own enlarges a map to the size of the next: traced, its graph would hold the size of the images. Between stages
that halve theirs, twice as large is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7


class Pyramid(FeaturePyramidNetwork):  # type: ignore[misc]
    """torchvision's, with its parameters and their names; each stage's map has half the sides of the one before."""

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps by names, the finest first -> maps by names, those of `extra_blocks` behind."""
        names, maps = list(x), list(x.values())
        inner = self.inner_blocks[len(maps) - 1](maps[-1])
        results = [self.layer_blocks[len(maps) - 1](inner)]
        for index in range(len(maps) - 2, -1, -1):
            inner = self.inner_blocks[index](maps[index]) + functional.interpolate(inner, scale_factor=2.0, mode="nearest")
            results.insert(0, self.layer_blocks[index](inner))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return dict(zip(names, results, strict=True))


class PyramidBackbone(nn.Module):
    """A network's stages with a pyramid upon them, under torchvision's names: `body` and `fpn`.

    `body`: images -> a dictionary of maps, each of `channels` and half the sides of the one before. `extra`: a coarser level
    that is the coarsest at every second place (`pool`), or two of convolutions of their own (`convolutions`: RetinaNet).
    `norm`: what is made for so many channels, after every convolution but these.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: Sequence[int],
        neck: int,
        extra: str = "pool",
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        blocks = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(neck, neck)
        self.fpn = Pyramid(list(channels), neck, blocks, norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the levels' maps, the finest first."""
        return list(self.fpn(self.body(images)).values())
