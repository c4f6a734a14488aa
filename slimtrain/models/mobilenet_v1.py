"""MobileNet v1 (arXiv 1704.04861) as slimmed in arXiv 1812.08928, 1903.05134 and 1903.11728."""

from __future__ import annotations

from collections.abc import Sequence

from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, check_lengths
from slimtrain.models.channels import Dim, Wiring, make_divisible

STEM = 32
# (output channels at 1.0x, stride) of every depthwise separable block
BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


class MobileNetV1(Architecture):
    name, title = "mobilenet_v1", "MobileNet v1"

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        return tuple(make_divisible(c * width) for c in (STEM, *(c for c, _ in BLOCKS)))

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        check_lengths(self.name, lists, 1 + len(BLOCKS))
        return Wiring(tuple(f"features.{i}" for i in range(1 + len(BLOCKS))), BLOCKS)

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2, in_channels: int = 3) -> M:
        inp = Dim.of(wiring.groups[0])
        features = [layers.unit(in_channels, inp, 3, stride=stem_stride, act=layers.relu6())]
        for group, (_, stride) in zip(wiring.groups[1:], BLOCKS, strict=True):
            out = Dim.of(group)
            body = [
                *(layers.depthwise(inp, 3, stride), layers.norm(inp), layers.relu6()),
                *(layers.conv(inp, out, 1), layers.norm(out), layers.relu6()),
            ]
            features.append(layers.block(layers.sequential(body), residual=False))
            inp = out
        return layers.network(features, inp, classes)


MOBILENET_V1 = MobileNetV1()
