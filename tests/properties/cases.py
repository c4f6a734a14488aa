"""Slimmable networks at a plan, drawn: published architectures as tables, and traced modules."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from slimtrain.base.image_size import ImageSize
from slimtrain.graph.policy import POLICIES, Policy
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable
from tests.properties.drawn_modules import Recipe, recipes

# In float64, of the largest output: sums in another order. The deepest of these networks, 150 layers, multiply it.
EXACT = 1e-9
# The deepest, which take seconds, less often.
ARCHITECTURE_NAMES = [name for name in sorted(ARCHITECTURES) for _ in range(1 if name in ("resnet101", "resnet152") else 4)]


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in (result.values() if isinstance(result, dict) else result) for tensor in tensors_of(part)]


def difference(result: Any, expected: Any) -> float:
    """The largest difference of two outputs, of the largest value of the second."""
    ours, theirs = tensors_of(result), tensors_of(expected)
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    errors = [
        float((a.detach().double() - b.detach().double()).abs().max() / b.detach().double().abs().max().clamp(min=1e-30))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return max(errors) if all(error == error for error in errors) else float("inf")


@dataclass(frozen=True)
class Published:
    """A published architecture, as small as it is drawn."""

    spec: NetworkSpec
    image_size: ImageSize
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        size = self.image_size
        return (self.spec.in_channels, *(size if isinstance(size, tuple) else (size, size)))

    def images(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, *self.shape, generator=draw, dtype=torch.float64).to(dtype)

    def network(self) -> SlimmableNetwork:
        torch.manual_seed(self.seed)
        network = SlimmableNetwork(self.spec)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.ndim < 2:
                    parameter.uniform_(*((-0.2, 0.2) if name.endswith("bias") else (0.5, 1.5)))
                else:  # a gain of 1: deep networks neither die nor explode
                    parameter.normal_(0, (1.5 / parameter[0].numel()) ** 0.5)
        return network.eval()


@dataclass(frozen=True)
class Module:
    """A drawn module, made slimmable."""

    recipe: Recipe
    family: str
    heads: str
    conv_groups: str
    order: str

    def images(self, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.recipe.images(count, dtype)

    @cached_property
    def module(self) -> nn.Module:
        return self.recipe.module()

    def network(self, example: Tensor | None = None) -> SlimmableNetwork:
        widths = (0.25, 1.0) if self.family == "us" else (0.3, 0.6, 1.0)
        policy = Policy(self.heads, self.conv_groups)
        example = self.images(2) if example is None else example
        return make_slimmable(self.module, example, widths, family=self.family, name="drawn", policy=policy, order=self.order)

    @property
    def image_size(self) -> ImageSize:
        _, height, width = self.recipe.shape
        return height if height == width else (height, width)


@dataclass
class Case:
    """A network with statistics for the plan that is drawn of it."""

    source: Published | Module
    network: SlimmableNetwork
    plan: ChannelPlan

    @property
    def spec(self) -> WidthSpec:
        return self.network.spec

    @cached_property
    def exact(self) -> SlimmableNetwork:
        """In float64."""
        return copy.deepcopy(self.network).double()

    def images(self, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.source.images(count, dtype)

    def run(self, images: Tensor, network: SlimmableNetwork | None = None) -> Any:
        network = network or self.exact
        with network.at(self.plan), torch.no_grad():
            return network(images)


@st.composite
def published_specs(draw: st.DrawFn) -> NetworkSpec:
    """Any architecture in any family, narrow for the most part."""
    arch = ARCHITECTURES[draw(st.sampled_from(ARCHITECTURE_NAMES))]
    family = draw(st.sampled_from(arch.families))
    classes, in_channels = draw(st.sampled_from((1, 2, 7, 10, 100))), draw(st.sampled_from((1, 3, 4)))
    stem_stride = draw(st.sampled_from((1, 2)))
    widest = 0.4 if arch.name.startswith("resnet") else 1.5  # of the first the widest take seconds
    widths = st.floats(0.15, widest).map(lambda width: round(width, 3))  # at 0.1 ShuffleNet has no stem
    if family == "autoslim":
        us = NetworkSpec(arch.name, "us", (0.25, 1.0), width_range=(0.25, 1.0))
        lists = us.channel_list(0.25), us.channel_list(draw(st.sampled_from((0.35, 0.4, 0.5))))
        return NetworkSpec(arch.name, family, (1, 2), classes, lists, stem_stride=stem_stride, in_channels=in_channels)
    if family == "us":
        low, high = sorted(draw(st.lists(widths, min_size=2, max_size=2, unique=True)))
        kept = tuple(sorted({low, high, *(w for w in draw(st.lists(widths, max_size=2)) if low <= w <= high)}))
        return NetworkSpec(
            arch.name, family, kept, classes, width_range=(low, high), stem_stride=stem_stride, in_channels=in_channels
        )
    switches = tuple(sorted(draw(st.lists(widths, min_size=1, max_size=3, unique=True))))
    return NetworkSpec(arch.name, family, switches, classes, stem_stride=stem_stride, in_channels=in_channels)


@st.composite
def published_cases(draw: st.DrawFn) -> Published:
    spec = draw(published_specs())
    least = max(spec.stride, 16)
    sides = st.integers(least, least + 12)
    size = draw(st.one_of(sides, st.tuples(sides, sides).filter(lambda s: s[0] != s[1])))
    return Published(spec, size, draw(st.integers(0, 2**16)))


modules = st.builds(
    Module,
    recipes(),
    family=st.sampled_from(("us", "us", "s")),
    heads=st.sampled_from(POLICIES["heads"]),
    conv_groups=st.sampled_from(POLICIES["conv_groups"]),
    order=st.sampled_from(("l1", "l2", "none")),
)


@st.composite
def plans(draw: st.DrawFn, spec: WidthSpec) -> ChannelPlan:
    """A plan that the network has: of a width, of widths of every group's own, or of any counts."""
    if spec.family != "us":
        return spec.plan(draw(st.sampled_from(spec.switches)))
    low, high = spec.range
    width = st.floats(low, high).map(lambda w: min(max(round(w, 4), low), high))
    kind = draw(st.sampled_from(("width", "mixed", "counts")))
    if kind == "width":
        return spec.plan(draw(width))
    if kind == "mixed":
        return spec.mixed_plan("mixed", draw(st.lists(width, min_size=spec.entries, max_size=spec.entries)))
    if isinstance(spec, NetworkSpec) and not spec.searchable_groups:  # its groups cannot have counts of their own
        return spec.plan(draw(width))
    fixed = spec.fixed_groups
    counts = {group: most if group in fixed else draw(st.integers(1, most)) for group, most in spec.widest.channels.items()}
    return spec.plan_from_channels("counts", counts)


@st.composite
def cases(draw: st.DrawFn, sources: st.SearchStrategy[Published | Module]) -> Case:
    """A network, its plan calibrated."""
    source = draw(sources)
    network = source.network()
    plan = draw(plans(network.spec))
    if not (isinstance(network.spec, GraphSpec) and plan == network.spec.widest):  # which has the module's
        calibrate(network, [plan], [source.images(8)])
    return Case(source, network.eval(), plan)
