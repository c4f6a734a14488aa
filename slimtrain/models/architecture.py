"""What every architecture file provides. No torch: an architecture is a table and a loop, its layers are passed in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from slimtrain.channels import Wiring

if TYPE_CHECKING:
    from slimtrain.layers import Layers
    from slimtrain.network import Network

ChannelList = Sequence[int]


class Architecture(ABC):
    """A network family's shape. `name` as in the registry; `stride` is the whole network's downsampling in pixels.

    A *channel list* has one count per slimmable position, in the order of AutoSlim's `channel_num_list`.
    """

    name: str
    stride: ClassVar[int] = 32

    @abstractmethod
    def channel_list(self, family: str, width: float, widest: float = 1.0) -> tuple[int, ...]:
        """The channel list of one width for family `s` or `us`; `widest` is the network's largest width."""

    @abstractmethod
    def wire(self, lists: Sequence[ChannelList]) -> Wiring:
        """Groups and blocks, from the channel lists of *all* plans; ValueError where a list does not fit."""

    @abstractmethod
    def build(self, layers: Layers, wiring: Wiring, classes: int) -> Network:
        """The network, built of `layers`."""


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
