"""ResNet 50, 101 and 152 (arXiv 1512.03385) with bottlenecks, slimmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, SizeKey, check_lengths
from slimtrain.models.channels import Dim, Wiring, make_divisible

STEM = 64
EXPANSION = 4
# bottlenecks per stage
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class WiredBottleneck:
    """A bottleneck's groups. A stage's first block has a projection shortcut; the others add their input."""

    inp: str
    mid1: str
    mid2: str
    out: str
    stride: int
    projection: bool


class ResNet(Architecture):
    title = "ResNet"
    torchvision_keys = frozenset({"conv1.weight", "layer1.0.conv1.weight"})
    size_key = SizeKey("resnet", "depth", 50)

    def __init__(self, depth: int):
        self.name, self.repeats = f"resnet{depth}", DEPTHS[depth]

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        us = family == "us"
        counts = [make_divisible(STEM * width) if us else int(STEM * width)]
        for stage, repeats in enumerate(self.repeats):
            base = STEM * 2**stage
            if us:
                mid = make_divisible(base * width)
                out = EXPANSION * mid
            else:
                out = int(base * width * EXPANSION)
                mid = out // EXPANSION
            counts.append(out)  # the shortcut's
            counts += [mid, mid, out] * repeats
        return tuple(counts)

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        check_lengths(self.name, lists, 1 + sum(1 + 3 * repeats for repeats in self.repeats))
        groups = ["features.0"]
        wired: list[WiredBottleneck] = []
        inp = "features.0"
        for stage, repeats in enumerate(self.repeats):
            out = f"features.{len(wired) + 1}"  # the whole stage is summed into one group, the shortcut included
            groups.append(out)
            for i in range(repeats):
                block = f"features.{len(wired) + 1}"
                mid1, mid2 = f"{block}.mid1", f"{block}.mid2"
                groups += [mid1, mid2, out]
                stride = 2 if stage > 0 and i == 0 else 1
                wired.append(WiredBottleneck(inp, mid1, mid2, out, stride, projection=i == 0))
                inp = out
        return Wiring(tuple(groups), tuple(wired))

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2, in_channels: int = 3) -> M:
        stem = Dim.of("features.0")
        pool = layers.max_pool(3, 2, padding=1)
        features = [layers.unit(in_channels, stem, 7, stride=stem_stride, act=layers.relu(), pool=pool)]
        out = stem
        for wired in wiring.blocks:
            assert isinstance(wired, WiredBottleneck)
            inp, mid1, mid2, out = (Dim.of(g) for g in (wired.inp, wired.mid1, wired.mid2, wired.out))
            body = [
                *(layers.conv(inp, mid1, 1), layers.norm(mid1), layers.relu()),
                *(layers.conv(mid1, mid2, 3, wired.stride), layers.norm(mid2), layers.relu()),
                *(layers.conv(mid2, out, 1), layers.norm(out)),
            ]
            shortcut = None
            if wired.projection:
                shortcut = layers.sequential([layers.conv(inp, out, 1, wired.stride), layers.norm(out)])
            features.append(layers.bottleneck(layers.sequential(body), shortcut))
        return layers.network(features, out, classes)


RESNET50, RESNET101, RESNET152 = (ResNet(depth) for depth in DEPTHS)
