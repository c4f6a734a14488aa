"""What a network is, in plain values: architecture, family, switches, classes. Plans come from here. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from slimtrain.base.errors import UserError, WidthError, nearest
from slimtrain.base.image_size import ImageSize
from slimtrain.models.architecture import Architecture, Layers, M
from slimtrain.models.channels import ChannelPlan, Wiring, number_text, widest_plan, width_label, width_name
from slimtrain.models.registry import ARCHITECTURES

IMAGENET_CLASSES = 1000  # of the published networks, and where nothing tells another number
IMAGE_CHANNELS = 3  # red, green and blue, of the published networks
MOST_IMAGE_CHANNELS = 16
FAMILIES = {"s": "slimmable", "us": "universally slimmable", "autoslim": "AutoSlim"}


@dataclass(frozen=True)
class NetworkSpec:
    """One slimmable network.

    `switches` are the plans that have batch-norm statistics, in stored order: an S network's switches, the widths a US
    network's norms know, 1 to n for AutoSlim. `channel_lists` are AutoSlim's, one per switch. `width_range` is a US
    network's (narrowest, widest). `stem_stride` is the first convolution's: 2 as published, 1 for small images. `in_channels`
    are its images': 3 as published.

    >>> import slimtrain
    >>> spec = slimtrain.NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), classes=10, width_range=(0.25, 1.0))
    >>> spec.name, spec.plan(0.5).name
    ('us_mobilenet_v1', 'x0_5')
    """

    architecture: str
    family: str
    switches: tuple[float, ...]
    classes: int = IMAGENET_CLASSES
    channel_lists: tuple[tuple[int, ...], ...] = ()
    width_range: tuple[float, float] | None = None
    stem_stride: int = 2
    in_channels: int = IMAGE_CHANNELS

    @property
    def name(self) -> str:
        """As in the registry: `us_mobilenet_v1`."""
        return f"{self.family}_{self.architecture}"

    @property
    def arch(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    @property
    def stride(self) -> int:
        """The whole network's downsampling in pixels."""
        return self.arch.stride * self.stem_stride // 2

    def build(self, layers: Layers[M]) -> M:
        """The network, built of `layers`."""
        return self.arch.build(layers, self.wiring, self.classes, self.stem_stride, self.in_channels)

    @property
    def range(self) -> tuple[float, float]:
        """The narrowest and the widest width; switch numbers for AutoSlim."""
        return self.width_range or (min(self.switches), max(self.switches))

    def channel_list(self, width: float) -> tuple[int, ...]:
        """The channel list of a width (S, US) or switch number (AutoSlim)."""
        if self.family == "autoslim":
            return self.channel_lists[int(width) - 1]
        return self.arch.channel_list(self.family, width, self.range[1])

    @cached_property
    def wiring(self) -> Wiring:
        widths = self.switches if self.width_range is None else (*self.width_range, *self.switches, 1.0)
        return self.arch.wire([self.channel_list(width) for width in widths])

    @cached_property
    def plans(self) -> tuple[ChannelPlan, ...]:
        """The plans with stored statistics, in stored order."""
        return tuple(self._plan(width) for width in self.switches)

    @cached_property
    def widest(self) -> ChannelPlan:
        """The plan that stored weights have room for: every group's largest count."""
        plans = self.plans if self.width_range is None else (*self.plans, self._plan(self.range[1]))
        return widest_plan(plans)

    @property
    def fixed_groups(self) -> frozenset[str]:
        """Groups that no width slims. Their norm is one for all widths."""
        return self.arch.fixed_groups(self.family)

    @cached_property
    def searchable_groups(self) -> tuple[str, ...]:
        """Groups that a search can slim, in wiring order: none of a network that has no plans between its switches."""
        if self.family != "us" or self.arch.not_searchable:
            return ()
        return tuple(group for group in self.widest.channels if group not in self.fixed_groups)

    def _plan(self, width: float) -> ChannelPlan:
        if self.family == "autoslim":
            return self.wiring.plan(f"s{int(width)}", self.channel_list(width), int(width))
        return self.wiring.plan(width_name(width), self.channel_list(width), float(width))

    def plan(self, width: float) -> ChannelPlan:
        """The plan of a width or switch; WidthError where the network has no such width."""
        if not isinstance(width, int | float) or math.isnan(width):
            raise WidthError(f"width {width}: not a number. Choose from {self.describe_widths()}.")
        if self.family == "us":
            low, high = self.range
            if not low <= width <= high:
                raise WidthError(
                    f"width {number_text(width)}: outside the range of this {self.name}, "
                    f"{width_label(low)} to {width_label(high)}. Choose a width within it."
                )
        elif width not in self.switches:
            kind = "switch" if self.family == "autoslim" else "width"
            raise WidthError(
                f"{kind} {number_text(width)}: this {self.name} has {self.describe_widths()} and no other. Choose from these."
            )
        return self._plan(width)

    def describe_widths(self) -> str:
        """The widths with statistics, ascending, as a message names them."""
        if self.family == "autoslim":
            return "switches " + ", ".join(str(int(s)) for s in sorted(self.switches))
        return ("switches " if self.family == "s" else "widths ") + ", ".join(map(width_label, sorted(self.switches)))

    def plan_from_channels(self, name: str, channels: Mapping[str, int]) -> ChannelPlan:
        """A plan given group by group. WidthError where a group is missing, unknown or impossible."""
        self.check_channels(f"plan {name}", channels)
        widest = self.widest.channels
        for group, count in channels.items():
            if group in self.fixed_groups and count != widest[group]:
                raise WidthError(
                    f"plan {name}: group {group} has {count} channels, but {self.name} never slims it: "
                    f"expected {widest[group]}."
                )
        plan = ChannelPlan(name, {group: channels[group] for group in widest})
        for known in self.plans:
            if known == plan:  # a switch under another name: it keeps that switch's width
                return ChannelPlan(name, plan.channels, known.width)
        if self.family != "us":
            raise WidthError(
                f"plan {name}: an {FAMILIES[self.family]} network has batch-norm parameters for its "
                f"{self.describe_widths()} only, and these channels are none of them. Export a switch, or train a "
                "universally slimmable network."
            )
        return plan

    def check_channels(self, what: str, channels: Mapping[str, object]) -> None:
        """WidthError, beginning with `what`, unless every group has a number of channels from 1 to the widest's, and nothing
        else has one."""
        widest = self.widest.channels
        for group in channels:
            if group not in widest:
                raise WidthError(
                    f"{what}: {self.name} has no channel group {group!r}{nearest(str(group), widest)}. Its groups are "
                    f"{', '.join(widest)}."
                )
        missing = [group for group in widest if group not in channels]
        if missing:
            raise WidthError(f"{what}: channels are missing for {', '.join(missing)}.")
        for group, count in channels.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= widest[group]:
                raise WidthError(
                    f"{what}: group {group} has {count!r} channels, expected a whole number from 1 to {widest[group]}."
                )

    def check_image_size(self, image_size: ImageSize) -> None:
        """UserError unless the network can take images of this size: pixels of a square, or (height, width)."""
        given = image_size if isinstance(image_size, tuple) else (image_size,)
        shown = "x".join(map(str, given))
        whole = len(given) in (1, 2) and all(isinstance(side, int) and not isinstance(side, bool) for side in given)
        if not whole or min(given) < self.stride:
            raise UserError(
                f"image size {shown}: {self.name} halves its input down to 1/{self.stride}, so it takes images of at least "
                f"{self.stride} pixels a side. Choose {self.stride} or more (224 as published)."
            )
        if max(given) > MAX_IMAGE_SIZE:
            raise UserError(f"image size {shown}: expected at most {MAX_IMAGE_SIZE} pixels a side.")


MAX_IMAGE_SIZE = 4096
