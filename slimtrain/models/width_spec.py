"""What every slimmable network has, whoever wired it: a family, switches, plans. No torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

from slimtrain.base.errors import UserError, WidthError, nearest
from slimtrain.base.image_size import ImageSize
from slimtrain.graph.extents import Dims
from slimtrain.graph.graph import Graph
from slimtrain.graph.sizes import Sizing
from slimtrain.models.channels import ChannelPlan, number_text, widest_plan, width_label

FAMILIES = {"s": "slimmable", "us": "universally slimmable", "autoslim": "AutoSlim"}


class WidthSpec(ABC):
    """A slimmable network, as its widths see it.

    `switches` are the plans that have batch-norm statistics, in stored order: an S network's switches, the widths a US
    network's norms know, 1 to n for AutoSlim. `width_range` is a US network's (narrowest, widest), `channel_lists` are
    AutoSlim's, one per switch.
    """

    family: str
    switches: tuple[float, ...]
    channel_lists: tuple[tuple[int, ...], ...]
    classes: int
    in_channels: int
    width_range: tuple[float, float] | None
    graph: Graph

    @property
    @abstractmethod
    def name(self) -> str:
        """`us_mobilenet_v1`."""

    @abstractmethod
    def _plan(self, width: float) -> ChannelPlan:
        """The plan of a width or switch that the network has."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """The whole network's downsampling in pixels."""

    @property
    @abstractmethod
    def entries(self) -> int:
        """How many widths `mixed_plan` takes."""

    @abstractmethod
    def mixed_plan(self, name: str, widths: Sequence[float]) -> ChannelPlan:
        """A plan whose channel groups have widths of their own (non-uniform widths, arXiv 1903.05134, sec. 3.2)."""

    @abstractmethod
    def check_image_size(self, image_size: ImageSize) -> None:
        """UserError unless the network can take images of this size."""

    @abstractmethod
    def list_of(self, plan: ChannelPlan) -> tuple[int, ...]:
        """A plan as an AutoSlim channel list: one count per slimmable position."""

    @property
    @abstractmethod
    def dims(self) -> Dims:
        """The extents of every value of `graph`."""

    @abstractmethod
    def sizing(self, plan: ChannelPlan, image_size: ImageSize | None = None) -> Sizing:
        """The graph at a plan, where sizes of maps matter for images of `image_size`."""

    @property
    def fixed_groups(self) -> frozenset[str]:
        """Groups that no width slims."""
        return frozenset()

    def own_cost(self, plan: ChannelPlan) -> tuple[int, int, int, int, int] | None:
        """What a network that counts itself says that a plan costs, as the fields of `slimtrain.costs.cost.Cost`; None of
        others."""
        return None

    def counts_singly(self, group: str) -> bool:
        """Whether a group has so few slots (heads, gates) that they are taken one by one."""
        return False

    @property
    def classifies(self) -> bool:
        """Whether it gives logits [N, classes] and nothing else."""
        return True

    @property
    def gives(self) -> str:
        """What it gives out, as messages say it."""
        return f"N x {self.classes} classes"

    def check_classifier(self, name: str, purpose: str) -> None:
        """UserError, beginning with the file's `name`, unless it takes images and gives logits [N, classes]; `purpose` is what
        needs them."""
        own = "Others are trained and tested in a loop of your own; slimexport writes and proves their files."
        if not self.classifies:
            raise UserError(f"{name}: {self.name} gives {self.gives}, expected one output of N x classes for {purpose}. {own}")
        if not self.takes_images:
            raise UserError(f"{name}: {self.name} takes no images, expected a classifier of images for {purpose}. {own}")

    @property
    def takes_images(self) -> bool:
        """Whether its input is [N, channels, height, width]."""
        return True

    @property
    def not_searchable(self) -> str:
        """Why a search cannot slim it, as the reason in a message; nothing where it can."""
        return ""

    @property
    def range(self) -> tuple[float, float]:
        """The narrowest and the widest width; switch numbers for AutoSlim."""
        return self.width_range or (min(self.switches), max(self.switches))

    @cached_property
    def plans(self) -> tuple[ChannelPlan, ...]:
        """The plans with stored statistics, in stored order."""
        return tuple(self._plan(width) for width in self.switches)

    @cached_property
    def widest(self) -> ChannelPlan:
        """The plan that stored weights have room for: every group's largest count."""
        plans = self.plans if self.width_range is None else (*self.plans, self._plan(self.range[1]))
        return widest_plan(plans)

    @cached_property
    def searchable_groups(self) -> tuple[str, ...]:
        """Groups that a search can slim, in wiring order: none of a network that has no plans between its switches."""
        if self.family != "us" or self.not_searchable:
            return ()
        return tuple(group for group in self.widest.channels if group not in self.fixed_groups)

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
