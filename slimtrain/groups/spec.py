"""What a traced network is, in plain values: its graph, its channel groups, its widths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize, as_image_size, format_size, sides
from slimtrain.base.text import count
from slimtrain.graph.extents import Dims
from slimtrain.graph.graph import Batch, Graph, Size
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import graph_cost
from slimtrain.groups.groups import Groups
from slimtrain.groups.rounding import WHOLE, channels_at, slots_at
from slimtrain.models.channels import ChannelPlan, width_name
from slimtrain.models.detector import DetectorSettings
from slimtrain.models.width_spec import WidthSpec

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # it goes into file names


def shape_text(shape: Sequence[Size]) -> str:
    """`Nx21x64x64`."""
    return "x".join(("N" if n.factor == 1 else f"{n.factor}N") if isinstance(n, Batch) else str(n) for n in shape)


@dataclass(frozen=True)
class GraphSpec(WidthSpec):
    """A slimmable network whose graph was read off a module. `model`: what it is called (`mobilenet_v3_small`).

    `switches` and `width_range` as of any network. `channel_lists` are AutoSlim's, one per switch: a count for every channel
    group, in their order. Its weights have room for the whole module, whatever the lists use of it. `classes`: the second
    dimension of its first output, a detector's as its settings say. Its input is an image [C, H, W], a signal [C, L], a row of
    numbers [C], or more than that. `detector`: what a detector is beside its graph, which is a dense one
    (`slimtrain.detection.dense`).
    """

    model: str
    family: str
    switches: tuple[float, ...]
    graph: Graph
    groups: Groups
    width_range: tuple[float, float] | None = None
    channel_lists: tuple[tuple[int, ...], ...] = ()
    detector: DetectorSettings | None = None

    @property
    def name(self) -> str:
        return f"{self.family}_{self.model}"

    @property
    def classifies(self) -> bool:
        return self.graph.classifies

    @property
    def takes_images(self) -> bool:
        return len(self.input_shape) == 3

    @property
    def gives(self) -> str:
        """What it gives out, as messages say it: `out Nx21x64x64, aux Nx21x64x64`."""
        return ", ".join(f"{name} {shape_text(type_.shape)}" for name, type_ in self.graph.results)

    @property
    def classes(self) -> int:  # type: ignore[override]
        if self.detector is not None:
            return self.detector.classes
        shape = self.graph.types[self.graph.outputs[0]].shape
        size = shape[1] if len(shape) > 1 else 0
        return size if isinstance(size, int) else 0

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        """Of an image."""
        return self.input_shape[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: of an image (channels, height, width)."""
        (_, type_), *_ = self.graph.inputs
        return tuple(size for size in type_.shape[1:] if isinstance(size, int))

    def _plan(self, width: float) -> ChannelPlan:
        if self.family == "autoslim":
            counts = self.channel_lists[int(width) - 1]
            return ChannelPlan(f"s{int(width)}", dict(zip(self.groups.sizes, counts, strict=True)), int(width))
        return ChannelPlan(width_name(width), channels_at(self.groups.sizes, width), float(width))

    @cached_property
    def widest(self) -> ChannelPlan:
        return ChannelPlan("widest", self.groups.sizes)

    def list_of(self, plan: ChannelPlan) -> tuple[int, ...]:
        return tuple(plan.channels[group] for group in self.groups.sizes)

    @property
    def stride(self) -> int:
        """Of no account: what it was traced with it can take."""
        return 0

    @property
    def entries(self) -> int:
        return len(self.groups.groups)

    def mixed_plan(self, name: str, widths: Sequence[float]) -> ChannelPlan:
        """One width per channel group."""
        sizes = self.groups.sizes.items()
        return ChannelPlan(name, {group: slots_at(n, width) for (group, n), width in zip(sizes, widths, strict=True)})

    def own_cost(self, plan: ChannelPlan) -> tuple[int, int, int, int, int]:
        return graph_cost(self.sizing(plan))

    def counts_singly(self, group: str) -> bool:
        return self.groups.sizes[group] < WHOLE

    @property
    def dims(self) -> Dims:
        """The extents of every value of `graph`."""
        return self.groups.dims

    def sizing(self, plan: ChannelPlan, image_size: ImageSize | None = None) -> Sizing:
        """The graph at a plan, where sizes of maps matter for images of `image_size`; those that it was traced with are
        the only ones."""
        return Sizing(self.graph, self.groups, plan.channels)

    @property
    def image_size(self) -> ImageSize:
        """The images that the network was traced with: its graph holds their size. A signal is an image of one row, a row of
        numbers one of one pixel."""
        spatial = self.input_shape[1:]
        return as_image_size([1, 1, *spatial][-2:] if len(spatial) < 2 else list(spatial[-2:]))

    def check_image_size(self, image_size: ImageSize) -> None:
        """UserError unless images are of the size that the network was traced with; of a detector, of a size that its strides
        divide."""
        if self.detector is not None:
            stride = self.detector.image_stride
            if any(side % stride for side in sides(image_size)):
                raise UserError(
                    f"image size {format_size(image_size)}: {self.name} has maps of stride {stride}. Expected sides that are "
                    f"multiples of {stride}; smaller images are padded."
                )
            return
        if image_size != self.image_size:
            size = format_size(self.image_size)
            raise UserError(
                f"image size {format_size(image_size)}: {self.name} was traced with images of {size} pixels, and its graph "
                f"holds that size. Expected {size}; make the network slimmable again with other images to change it."
            )

    def autoslim(self, lists: Sequence[Mapping[str, int]]) -> GraphSpec:
        """The AutoSlim network of the same graph whose switches have these channels, group -> count. WidthError where a group
        is missing, unknown or impossible, UserError where there are no lists, or two are the same."""
        if not lists:
            raise UserError(f"autoslim_{self.model}: there are no channel lists, a switch each. Name plan files: --plans DIR.")
        for number, channels in enumerate(lists, 1):
            self.check_channels(f"switch {number}", channels)
        counts = tuple(tuple(channels[group] for group in self.groups.sizes) for channels in lists)
        for number, own in enumerate(counts, 1):
            if (first := counts.index(own) + 1) != number:
                raise UserError(
                    f"switch {number} has the channels of switch {first}. Expected each network once: leave one out."
                )
        numbers = tuple(range(1, len(counts) + 1))
        return replace(self, family="autoslim", switches=numbers, width_range=None, channel_lists=counts)

    def describe(self) -> str:
        """In a few words: how much of it can be slimmed."""
        slots = sum(self.groups.sizes.values())
        return f"{self.name}: {count(len(self.groups.groups), 'channel group')}, {slots:,} slots"
