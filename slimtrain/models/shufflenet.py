"""ShuffleNet v1 with 3 groups (arXiv 1707.01083), slimmed. Grouped 1x1 convolutions are separate layers per third."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from slimtrain.models.architecture import Architecture, ChannelList, Layers, M, check_lengths
from slimtrain.models.channels import Dim, Wiring

GROUPS = 3
COMPRESSION = 4  # a block's inner channels are its output's over this
STEM = 24
# (output channels at 1.0x, blocks) per stage; every stage begins with stride 2
STAGES = ((240, 4), (480, 8), (960, 4))


@dataclass(frozen=True)
class WiredUnit:
    """A unit's groups. At stride 2 the branch makes `out - inp` channels, the pooled input the rest.

    The very first unit's first convolutions read the whole input (`whole`), all others their third of it.
    """

    inp: str
    mid: str
    out: str
    stride: int
    whole: bool


class ShuffleNet(Architecture):
    name, title = "shufflenet", "ShuffleNet"
    families = ("s",)
    not_searchable = "a search cannot slim ShuffleNet, whose channels come in thirds"
    settings = MappingProxyType({"groups": GROUPS})

    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        counts = [int(STEM * width) // GROUPS * GROUPS]
        for channels, repeats in STAGES:
            out = int(channels * width) // GROUPS * GROUPS
            counts += [out // COMPRESSION // GROUPS * GROUPS, out] * repeats
        return tuple(counts)

    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        check_lengths(self.name, lists, 1 + 2 * sum(repeats for _, repeats in STAGES))
        for channel_list in lists:
            if any(count % GROUPS for count in channel_list):
                raise ValueError(f"{self.name} divides every count by {GROUPS}, found {list(channel_list)}")
        groups = ["head"]
        wired: list[WiredUnit] = []
        inp = "head"
        for _, repeats in STAGES:
            out = f"features.{len(wired)}"  # stride-1 units add their input: one group per stage
            for i in range(repeats):
                mid = f"features.{len(wired)}.mid"
                groups += [mid, out]
                wired.append(WiredUnit(inp, mid, out, stride=2 if i == 0 else 1, whole=not wired))
                inp = out
        return Wiring(tuple(groups), tuple(wired))

    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2, in_channels: int = 3) -> M:
        head = Dim.of("head")
        heads = [
            layers.unit(in_channels, head // GROUPS, 3, stem_stride, layers.relu(), layers.max_pool(3, 2, padding=0))
            for _ in range(GROUPS)
        ]
        features = []
        out = head
        for wired in wiring.blocks:
            assert isinstance(wired, WiredUnit)
            inp, mid, out = Dim.of(wired.inp), Dim.of(wired.mid), Dim.of(wired.out)
            branch = out - inp if wired.stride == 2 else out
            a_in = inp if wired.whole else inp // GROUPS
            a = [layers.unit(a_in, mid // GROUPS, 1, act=layers.relu()) for _ in range(GROUPS)]
            b = layers.sequential([layers.shuffle(GROUPS), layers.depthwise(mid, 3, wired.stride), layers.norm(mid)])
            c = [layers.unit(mid // GROUPS, branch // GROUPS, 1) for _ in range(GROUPS)]
            pool = layers.average_pool(inp, 3, 2, padding=1) if wired.stride == 2 else None
            features.append(layers.shuffle_unit(a, b, c, pool, whole=wired.whole))
        return layers.network(features, out, classes, heads)


SHUFFLENET = ShuffleNet()
