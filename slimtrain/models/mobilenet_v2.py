"""MobileNet v2 (arXiv 1801.04381) and MNasNet (arXiv 1807.11626), slimmed: inverted residuals, two tables, one loop."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, check_lengths, same
from slimtrain.models.channels import Dim, Wiring, make_divisible

STEM, TAIL = 32, 1280
EXPANSION = ".expand"  # the end of the name of an expansion's group
# Keys of a block's last convolution and norm, where others come before its depthwise convolution; else they have 3 and 4.
EXPANDED_KEY = re.compile(r"features\.(\d+)\.body\.[67]\.")


@dataclass(frozen=True)
class InvertedResidual:
    """A row of an architecture's table: expansion ratio, output channels at 1.0x, stride, depthwise kernel."""

    ratio: int
    channels: int
    stride: int
    kernel: int


@dataclass(frozen=True)
class WiredBlock:
    """A block's groups. `hidden` is the input's own group where there is no expansion."""

    inp: str
    hidden: str
    out: str
    block: InvertedResidual
    residual: bool


def _repeated(table: Sequence[tuple[int, int, int, int, int]]) -> tuple[InvertedResidual, ...]:
    """Rows (ratio, channels, repeats, stride, kernel) written out: only a row's first block has the stride."""
    return tuple(InvertedResidual(t, c, s if i == 0 else 1, k) for t, c, n, s, k in table for i in range(n))


MOBILENET_V2_BLOCKS = _repeated(
    [
        *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3)),
        *((6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3)),
    ]
)
MNASNET_BLOCKS = _repeated(
    [
        *((1, 16, 1, 1, 3), (3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5)),
        *((6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
    ]
)


class InvertedResidualNetwork(Architecture):
    """A stem, `blocks`, and a 1x1 tail. The tail is never slimmed in S and US networks; AutoSlim slims it too.

    Equal counts in all channel lists decide that a block adds its input, and that it has no expansion.
    """

    def __init__(
        self, name: str, title: str, blocks: Sequence[InvertedResidual], families: tuple[str, ...] = Architecture.families
    ) -> None:
        self.name, self.title, self.families, self.blocks = name, title, families, tuple(blocks)
        self.tail_name = f"features.{len(self.blocks) + 1}"

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        inp = STEM
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
                groups.append(f"features.{index}{EXPANSION}" if expands else groups[inp])
            out = len(groups)
            residual = block.stride == 1 and same(lists, inp, out)
            groups.append(groups[inp] if residual else f"features.{index}")
            wired.append(WiredBlock(groups[inp], groups[hidden], groups[out], block, residual))
            inp = out
        return Wiring((*groups, self.tail_name), tuple(wired))

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2, in_channels: int = 3) -> M:
        features = [layers.unit(in_channels, Dim.of("features.0"), 3, stride=stem_stride, act=layers.relu6())]
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

    def fixed_groups(self, family: str) -> frozenset[str]:
        return frozenset() if family == "autoslim" else frozenset({self.tail_name})

    def untied_list(self, keys: Iterable[str] | None = None) -> tuple[int, ...]:
        """All counts differ, so that no block adds its input; of a block that has no expansion two agree."""
        expanded = {match[1] for key in keys or () if (match := EXPANDED_KEY.match(key))}
        counts = [8]
        inp = 0  # position of the block's input
        for index, block in enumerate(self.blocks, start=1):
            if block.ratio != 1:
                has_expansion = keys is None or str(index) in expanded
                counts.append(8 * (len(counts) + 1) if has_expansion else counts[inp])
            inp = len(counts)
            counts.append(8 * (len(counts) + 1))
        return (*counts, 8 * (len(counts) + 1))

    def effect_of_tie(self, group: str, other: str) -> str:
        if group.endswith(EXPANSION):
            return f"the block does without its expansion, unlike {other}"
        return f"this block adds its input to its output, unlike {other} (no MACs more)"


MOBILENET_V2 = InvertedResidualNetwork("mobilenet_v2", "MobileNet v2", MOBILENET_V2_BLOCKS)
# us: where the search for the AutoSlim networks begins
MNASNET = InvertedResidualNetwork("mnasnet", "MNasNet", MNASNET_BLOCKS, families=("us", "autoslim"))
