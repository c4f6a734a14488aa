"""What a network is, in plain values: architecture, family, switches, classes. Plans come from here. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from slimtrain.base.errors import UserError, WidthError
from slimtrain.base.image_size import ImageSize
from slimtrain.graph.extents import Dims, WiredGraph
from slimtrain.graph.graph import Graph
from slimtrain.graph.sizes import Sizing
from slimtrain.models.architecture import Architecture, Layers, M
from slimtrain.models.channels import ChannelPlan, Wiring, width_name
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.table import TableLayers, write_table
from slimtrain.models.width_spec import WidthSpec

IMAGENET_CLASSES = 1000  # of the published networks, and where nothing tells another number
PUBLISHED_SIZE: ImageSize = 224  # pixels
IMAGE_CHANNELS = 3  # red, green and blue, of the published networks
MOST_IMAGE_CHANNELS = 16
WIDTH_STEPS = 40  # to 1.0, in which advice on a width is given


@dataclass(frozen=True)
class NetworkSpec(WidthSpec):
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

    def wired(self, image_size: ImageSize) -> WiredGraph:
        """The network's graph for images of `image_size` pixels."""
        return _wired(self, image_size)

    @property
    def graph(self) -> Graph:  # type: ignore[override]
        """The network's graph. The sizes of its maps are those of published images; what it computes depends on none."""
        return self.wired(PUBLISHED_SIZE).graph

    @property
    def dims(self) -> Dims:
        """The extents of every value of `graph`."""
        return self.wired(PUBLISHED_SIZE).dims

    def sizing(self, plan: ChannelPlan, image_size: ImageSize | None = None) -> Sizing:
        """The graph at a plan, where sizes of maps matter for images of `image_size`."""
        wired = self.wired(image_size or PUBLISHED_SIZE)
        return Sizing(wired.graph, wired, plan.channels)

    def channel_list(self, width: float) -> tuple[int, ...]:
        """The channel list of a width (S, US) or switch number (AutoSlim). WidthError where a layer would have no channels."""
        if self.family == "autoslim":
            return self.channel_lists[int(width) - 1]
        counts = self.arch.channel_list(self.family, width, self.range[1])
        if min(counts) < 1:
            steps = (step / WIDTH_STEPS for step in range(1, WIDTH_STEPS + 1))
            least = next(step for step in steps if min(self.arch.channel_list(self.family, step, self.range[1])) > 0)
            raise WidthError(
                f"width {width:g}: leaves a layer of {self.arch.title} without channels. Choose {least:g} or more."
            )
        return counts

    def list_of(self, plan: ChannelPlan) -> tuple[int, ...]:
        return tuple(plan.channels[group] for group in self.wiring.groups)

    @cached_property
    def wiring(self) -> Wiring:
        widths = self.switches if self.width_range is None else (*self.width_range, *self.switches, 1.0)
        return self.arch.wire([self.channel_list(width) for width in widths])

    @property
    def fixed_groups(self) -> frozenset[str]:
        """Groups that no width slims. Their norm is one for all widths."""
        return self.arch.fixed_groups(self.family)

    @property
    def not_searchable(self) -> str:
        return self.arch.not_searchable

    def _plan(self, width: float) -> ChannelPlan:
        if self.family == "autoslim":
            return self.wiring.plan(f"s{int(width)}", self.channel_list(width), int(width))
        return self.wiring.plan(width_name(width), self.channel_list(width), float(width))

    @property
    def entries(self) -> int:
        return len(self.wiring.groups)

    def mixed_plan(self, name: str, widths: Sequence[float]) -> ChannelPlan:
        """One width per entry of the channel list; of entries that share a group the first decides."""
        channels: dict[str, int] = {}
        for position, (group, width) in enumerate(zip(self.wiring.groups, widths, strict=True)):
            if group not in channels:
                channels[group] = self.channel_list(width)[position]
        return ChannelPlan(name, channels)

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


@lru_cache(maxsize=16)  # whoever asks for one network's graph in one process does so in several places
def _wired(spec: NetworkSpec, image_size: ImageSize) -> WiredGraph:
    return write_table(spec.build(TableLayers()), spec.widest, spec.in_channels, image_size)


def published(spec: WidthSpec, what: str) -> NetworkSpec:
    """`spec`, where it is a published architecture's. UserError, beginning with `what` cannot be done, where it was traced."""
    if isinstance(spec, NetworkSpec):
        return spec
    raise UserError(
        f"{what}: takes the published architectures, and {spec.name} was made of a module. Expected one of "
        f"{', '.join(sorted(ARCHITECTURES))}."
    )
