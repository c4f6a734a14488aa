"""Channel groups, channel plans and rounding: the one concept everything else is written in. No torch here.

A *channel group* is a set of tensor dimensions that must shrink together: a convolution's outputs, its norm, the
depthwise convolution after it, every tensor summed with it, the inputs that read it. A *channel plan* gives every
group its number of active channels. Rounding happens when a plan is made and nowhere else; whatever comes later
(layers, slices, MACs, file names) takes a plan.

Source of the rounding rules: arXiv 1812.08928 and 1903.05134, as pinned down by the published checkpoints' shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from slimtrain.graph.extents import Slimmed


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` (halves up), one `divisor` more where that is under 0.9 `value`."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


def width_label(width: float) -> str:
    """A width as users write it: `0.5`, `1.0`, `0.275`."""
    return str(float(width))


def number_text(width: float) -> str:
    """A width or switch number as a user typed it: `2`, `0.33`, all digits kept."""
    return str(int(width)) if float(width).is_integer() else str(float(width))


def width_name(width: float) -> str:
    """A width in a file name, torchvision style, without a dot: `x0_5`."""
    return "x" + width_label(width).replace(".", "_")


@dataclass(frozen=True)
class Dim(Slimmed):
    """A tensor dimension: a sum of groups' active channels, or an exact share of it.

    `Dim.of("stem")` is a whole group; `(out - inp) // 3` is a third of a difference, as ShuffleNet needs it.
    """

    terms: tuple[tuple[str, int], ...]
    divisor: int = 1

    @staticmethod
    def of(group: str) -> Dim:
        return Dim(((group, 1),))

    def __sub__(self, other: Dim) -> Dim:
        assert self.divisor == other.divisor == 1, "differences come before shares"
        return Dim(self.terms + tuple((group, -sign) for group, sign in other.terms))

    def __floordiv__(self, divisor: int) -> Dim:
        return Dim(self.terms, self.divisor * divisor)

    def active(self, channels: Mapping[str, int]) -> int:
        return sum(sign * channels[group] for group, sign in self.terms) // self.divisor

    def positions(self, channels: Mapping[str, int]) -> slice:
        """The leading corner."""
        return slice(self.active(channels))

    @staticmethod
    def total(parts: Sequence[Dim]) -> Dim:
        """Dimensions one behind the other: three thirds of a group are the group."""
        divisor = math.lcm(*(part.divisor for part in parts))
        terms: dict[str, int] = {}
        for part in parts:
            for group, sign in part.terms:
                terms[group] = terms.get(group, 0) + sign * (divisor // part.divisor)
        left = {group: times for group, times in terms.items() if times}
        shared = math.gcd(divisor, *left.values())
        return Dim(tuple((group, times // shared) for group, times in left.items()), divisor // shared)

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(group for group, _ in self.terms)


@dataclass(frozen=True)
class ChannelPlan:
    """Every group's active channels; immutable.

    `name` goes into file names (`x0_5`, `s1`); `width` is the width of an S or US network, the switch's number of an
    AutoSlim one, None for a plan that no width describes. Two plans are equal when their channels are.

    >>> import slimtrain
    >>> half = slimtrain.published_spec("us_mobilenet_v1").plan(0.5)
    >>> mine = slimtrain.ChannelPlan("mine", {**half.channels, "features.3": 40})
    >>> half.channels["features.3"], mine.channels["features.3"], mine == half
    (64, 40, False)
    """

    name: str = field(compare=False)
    channels: Mapping[str, int]
    width: float | int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", MappingProxyType(dict(self.channels)))

    def __hash__(self) -> int:
        return self._hashed

    @cached_property
    def _hashed(self) -> int:
        return hash(tuple(sorted(self.channels.items())))

    def __reduce__(self) -> tuple[type[ChannelPlan], tuple[object, ...]]:
        return ChannelPlan, (self.name, dict(self.channels), self.width)

    def size(self, dim: Slimmed | int) -> int:
        """The active size of a dimension; a plain number (image channels, classes) is never slimmed."""
        return dim if isinstance(dim, int) else dim.active(self.channels)


def widest_plan(plans: Sequence[ChannelPlan]) -> ChannelPlan:
    """The plan that has room for all of `plans`: the largest count of every group. Weights are stored at its size."""
    channels = {group: max(plan.channels[group] for plan in plans) for group in plans[0].channels}
    return ChannelPlan("widest", channels)


@dataclass(frozen=True)
class Wiring:
    """The groups of an architecture and what each block of it is, decided once for all its plans.

    `groups` names the group of every entry of the architecture's channel list; tied entries share one name.
    `blocks` is what the architecture's own builder reads.
    """

    groups: tuple[str, ...]
    blocks: tuple[object, ...]

    def plan(self, name: str, channel_list: Sequence[int], width: float | int | None = None) -> ChannelPlan:
        """The plan of one channel list. Entries tied in one group hold the same count, or ValueError."""
        channels: dict[str, int] = {}
        for group, count in zip(self.groups, channel_list, strict=True):
            if channels.setdefault(group, count) != count:
                raise ValueError(f"group {group} has {channels[group]} and {count} channels in plan {name}")
        return ChannelPlan(name, channels, width)
