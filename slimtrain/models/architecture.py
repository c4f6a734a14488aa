"""What every architecture file provides. No torch: an architecture is a table and a loop, its layers are passed in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

from slimtrain.models.channels import Dim, Wiring

ChannelList = Sequence[int]
M = TypeVar("M")


class Layers(ABC, Generic[M]):
    """The layers that an architecture is built of; `M` is what a layer is (a torch module, or a function that counts).

    A `Dim` is an input's or output's channels; padding of convolutions is half the kernel.
    """

    @abstractmethod
    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> M: ...

    @abstractmethod
    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> M: ...

    @abstractmethod
    def norm(self, dim: Dim) -> M: ...

    @abstractmethod
    def relu(self) -> M: ...

    @abstractmethod
    def relu6(self) -> M: ...

    @abstractmethod
    def max_pool(self, kernel: int, stride: int, padding: int) -> M: ...

    @abstractmethod
    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> M:
        """Padding counts as zeros."""

    @abstractmethod
    def shuffle(self, groups: int) -> M:
        """ShuffleNet's channel shuffle."""

    @abstractmethod
    def sequential(self, modules: Sequence[M]) -> M: ...

    @abstractmethod
    def block(self, body: M, residual: bool) -> M:
        """`body`, its input added where `residual`."""

    @abstractmethod
    def bottleneck(self, body: M, shortcut: M | None) -> M:
        """ReLU of `body` plus `shortcut`, or plus the input where there is none."""

    @abstractmethod
    def shuffle_unit(self, a: Sequence[M], b: M, c: Sequence[M], pool: M | None, whole: bool) -> M:
        """ShuffleNet's unit: thirds `a`, then `b`, then thirds `c`; with `pool` the pooled input is concatenated,
        without it the input is added. `whole`: every one of `a` reads the whole input."""

    @abstractmethod
    def network(self, features: Sequence[M], out: Dim, classes: int, heads: Sequence[M] = ()) -> M:
        """Heads side by side where there are any, features, global average pool, linear classifier."""

    def unit(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1, act: M | None = None, pool: M | None = None) -> M:
        """Convolution, norm, and where given an activation and a pool."""
        parts = (self.conv(inp, out, kernel, stride), self.norm(out), act, pool)
        return self.sequential([part for part in parts if part is not None])


@dataclass(frozen=True)
class SizeKey:
    """How published training files name an architecture that comes in several sizes: by `stem` alone, the size being told by
    a `key` of its own, and where that is absent, by being the `usual` one."""

    stem: str
    key: str
    usual: int


class Architecture(ABC):
    """The shape of a network, and whatever else is peculiar to it: nothing outside of this folder names an architecture.

    `name` as in the registry, `title` as people call it. `families` are those that it is slimmed in, the keys of
    `spec.FAMILIES`. `stride` is the whole network's downsampling in pixels, with a stem stride of 2.

    A *channel list* has one count per slimmable position, in the order of AutoSlim's `channel_num_list`.
    """

    name: str
    title: str
    families: tuple[str, ...] = ("s", "us", "autoslim")
    stride: ClassVar[int] = 32
    # Why a search cannot slim it, as the reason in a message; nothing where it can.
    not_searchable: ClassVar[str] = ""
    # Keys by which a state dict of torchvision's network of this title is known.
    torchvision_keys: ClassVar[frozenset[str]] = frozenset()
    # In published training files: how they name it where that is not `name`, and what they say of it besides.
    size_key: ClassVar[SizeKey | None] = None
    settings: ClassVar[Mapping[str, int]] = MappingProxyType({})

    @property
    def published_keys(self) -> set[str]:
        """The keys of a published training file that only some architectures have, this one among them."""
        return {*self.settings, *([self.size_key.key] if self.size_key else [])}

    @abstractmethod
    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        """The channel list of one width for family `s` or `us`; `widest` is the network's largest width."""

    @abstractmethod
    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        """Groups and blocks, from the channel lists of *all* plans; ValueError where a list does not fit."""

    @abstractmethod
    def build(self, layers: Layers[M], wiring: Wiring, classes: int, stem_stride: int = 2, in_channels: int = 3) -> M:
        """The network, built of `layers`. `stem_stride` is the first convolution's, `in_channels` are the images': 2 and 3 as
        published."""

    def fixed_groups(self, family: str) -> frozenset[str]:
        """The groups that no width of a network of this `family` slims. Their norm is one for all widths."""
        return frozenset()

    def untied_list(self, keys: Iterable[str] | None = None) -> tuple[int, ...]:
        """A channel list that `wire` ties no further than this architecture always does, so that every entry which can have a
        group of its own has one. `keys` are those of a state dict: where counts also decide which layers there are, the list
        is one of a network with these; without `keys`, of one with all layers.

        Here for an architecture that ties the same entries whatever the counts are.
        """
        return self.channel_list("s", 1.0)

    def effect_of_tie(self, group: str, other: str) -> str:
        """What a network does if the counts of its channel lists tie `group` to another one, `unlike {other}`, as a clause."""
        return f"both are one group, unlike {other}"


def check_lengths(name: str, lists: Sequence[ChannelList], expected: int) -> None:
    """ValueError unless every list has `expected` positive entries."""
    for channel_list in lists:
        if len(channel_list) != expected:
            raise ValueError(f"{name} has {expected} slimmable positions, a channel list has {len(channel_list)}")
        if any(not isinstance(c, int) or c < 1 for c in channel_list):
            raise ValueError(f"channel counts are positive whole numbers, found {list(channel_list)}")


def same(lists: Sequence[ChannelList], a: int, b: int) -> bool:
    """Whether entries `a` and `b` agree in every list. Residual sums and expansions are decided by all plans at once:
    at one switch of AutoSlim-MobileNet v2 a block's ends agree by chance, and still there is no sum."""
    return all(channel_list[a] == channel_list[b] for channel_list in lists)
