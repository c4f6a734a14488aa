"""MobileNet v2 (arXiv 1801.04381) and MNasNet (arXiv 1807.11626), slimmed: inverted residuals, two tables, one loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, check_lengths, same
from slimtrain.models.channels import Dim, Wiring, make_divisible

TAIL = 1280


@dataclass(frozen=True)
class Block:
    """An inverted residual: expansion ratio, output channels at 1.0x, stride, depthwise kernel."""

    ratio: int
    channels: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class WiredBlock:
    """A block's groups. `hidden` is the input's own group where there is no expansion."""

    inp: str
    hidden: str
    out: str
    block: Block
    residual: bool


def _repeated(table: Sequence[tuple[int, int, int, int]]) -> tuple[Block, ...]:
    """Rows (ratio, channels, repeats, stride) written out: only a row's first block has the stride."""
    return tuple(Block(t, c, s if i == 0 else 1) for t, c, n, s in table for i in range(n))


MOBILENET_V2 = _repeated(
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
)
MNASNET = (
    Block(1, 16, 1, 3),
    *(Block(3, 24, 2, 3), Block(3, 24, 1, 3), Block(3, 24, 1, 3)),
    *(Block(3, 40, 2, 5), Block(3, 40, 1, 5), Block(3, 40, 1, 5)),
    *(Block(6, 80, 2, 5), Block(6, 80, 1, 5), Block(6, 80, 1, 5)),
    *(Block(6, 96, 1, 3), Block(6, 96, 1, 3)),
    *(Block(6, 192, 2, 5), Block(6, 192, 1, 5), Block(6, 192, 1, 5), Block(6, 192, 1, 5)),
    Block(6, 320, 1, 3),
)


class InvertedResidualNetwork(Architecture):
    """A stem, `blocks`, and a 1x1 tail. The tail is never slimmed in S and US networks; AutoSlim slims it too."""

    def __init__(self, name: str, stem: int, blocks: Sequence[Block]):
        self.name, self.stem, self.blocks = name, stem, tuple(blocks)
        self.tail_name = f"features.{len(self.blocks) + 1}"

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        inp = self.stem
        counts = [make_divisible(inp * width)]
        for block in self.blocks:
            if block.ratio != 1:
                if family == "us":  # a dimension of its own, in multiples of the expansion ratio
                    counts.append(make_divisible(inp * block.ratio * width / block.ratio) * block.ratio)
                else:  # a multiple of the block's active input
                    counts.append(block.ratio * make_divisible(inp * width))
            counts.append(make_divisible(block.channels * width))
            inp = block.channels
        return (*counts, make_divisible(TAIL * widest) if widest > 1 else TAIL)

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        check_lengths(self.name, lists, 2 + sum(1 if b.ratio == 1 else 2 for b in self.blocks))
        groups = ["features.0"]
        wired = []
        inp = 0  # position of the block's input in the channel lists
        for index, block in enumerate(self.blocks, start=1):
            hidden = inp
            if block.ratio != 1:
                hidden = len(groups)
                expands = not same(lists, inp, hidden)
                groups.append(f"features.{index}.expand" if expands else groups[inp])
            out = len(groups)
            residual = block.stride == 1 and same(lists, inp, out)
            groups.append(groups[inp] if residual else f"features.{index}")
            wired.append(WiredBlock(groups[inp], groups[hidden], groups[out], block, residual))
            inp = out
        return Wiring((*groups, self.tail_name), tuple(wired))

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2) -> M:
        features = [layers.unit(3, Dim.of("features.0"), 3, stride=stem_stride, act=layers.relu6())]
        inp = Dim.of("features.0")
        for wired in wiring.blocks:
            assert isinstance(wired, WiredBlock)
            hidden, out = Dim.of(wired.hidden), Dim.of(wired.out)
            body = []
            if wired.hidden != wired.inp:
                body += [layers.conv(inp, hidden, 1), layers.norm(hidden), layers.relu6()]
            body += [layers.depthwise(hidden, wired.block.kernel, wired.block.stride)]
            body += [layers.norm(hidden), layers.relu6(), layers.conv(hidden, out, 1), layers.norm(out)]
            features.append(layers.block(layers.sequential(body), residual=wired.residual))
            inp = out
        tail = Dim.of(self.tail_name)
        features.append(layers.unit(inp, tail, 1, act=layers.relu6()))
        return layers.network(features, tail, classes)


MobileNetV2 = InvertedResidualNetwork("mobilenet_v2", 32, MOBILENET_V2)
MNASNet = InvertedResidualNetwork("mnasnet", 32, MNASNET)
