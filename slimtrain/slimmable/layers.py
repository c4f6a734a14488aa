"""Slimmable layers, and the two sets of layers an architecture can be built of.

A slimmable layer stores its weights at the size of the widest plan and uses their leading corner (arXiv 1812.08928,
sec. 3.1). `SlimmableLayers` builds the network that trains; `DenseLayers` builds ordinary `torch.nn` layers at the
size of one plan. Both are used by the same loop, so that their modules carry the same names.

Only `SlimmableNetwork.at` (slimmable.py) calls `activate`; nothing else changes active widths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.slimmable.blocks import Block, Bottleneck, Network, ShuffleUnit
from slimtrain.slimmable.sync_norm import Statistics, synchronized_batch_norm

if TYPE_CHECKING:
    from slimtrain.models.spec import NetworkSpec

BN_EPS = 1e-5
BN_MOMENTUM = 0.1


class SlimConv2d(nn.Conv2d):
    """A bias-free convolution whose input and output channels follow the active plan; depthwise or ordinary."""

    def __init__(self, inp: Dim | int, out: Dim | int, kernel: int, stride: int, depthwise: bool, widest: ChannelPlan) -> None:
        in_channels, out_channels = widest.size(inp), widest.size(out)
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            groups=out_channels if depthwise else 1,
            bias=False,
        )
        self.inp, self.out, self.depthwise = inp, out, depthwise
        self.active_in, self.active_out = in_channels, out_channels

    def activate(self, plan: ChannelPlan) -> None:
        self.active_in, self.active_out = plan.size(self.inp), plan.size(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """[N, active_in, H, W] -> [N, active_out, H', W']."""
        weight = self.weight[: self.active_out, : 1 if self.depthwise else self.active_in]
        groups = self.active_out if self.depthwise else 1
        return F.conv2d(x, weight, None, self.stride, self.padding, 1, groups)


class SlimLinear(nn.Linear):
    """The classifier: its inputs follow the plan, its outputs (the classes) never shrink."""

    def __init__(self, inp: Dim, classes: int, widest: ChannelPlan) -> None:
        super().__init__(widest.size(inp), classes)
        self.inp = inp
        self.active_in = self.in_features

    def activate(self, plan: ChannelPlan) -> None:
        self.active_in = plan.size(self.inp)

    def forward(self, x: Tensor) -> Tensor:
        """[N, active_in] -> [N, classes]."""
        return F.linear(x, self.weight[:, : self.active_in], self.bias)


class PlanNorm(nn.Module, ABC):
    """A batch norm whose statistics belong to a plan. `index` is the active plan's stored entry, None if it has none;
    `calibrated` the active plan's own statistics, which go before the stored ones.

    In training mode batch statistics are used, and the plan's stored statistics, where it has some, follow them with
    momentum 0.1. While `averaging` is set, it is the calibrated statistics that follow, with that momentum.
    `synchronized`: batch statistics are those of all processes' images.
    """

    def __init__(self, dim: Dim, *norm: Any) -> None:
        super().__init__(*norm)
        self.dim = dim
        self.index: int | None = None
        self.active = 0
        self.calibrated: Statistics | None = None
        self.averaging: float | None = None
        self.synchronized = False

    def activate(self, plan: ChannelPlan, index: int | None, calibrated: Statistics | None) -> None:
        self.active, self.index, self.calibrated = plan.size(self.dim), index, calibrated

    @abstractmethod
    def scale_and_shift(self) -> Statistics:
        """Scale and shift of the active plan, each [active]."""

    @abstractmethod
    def stored(self) -> nn.BatchNorm2d | None:
        """The norm that stores the active plan's running statistics."""

    def statistics(self) -> Statistics:
        """Running mean and variance of the active plan, each [active]; LookupError where it has none."""
        if self.calibrated is not None:
            return self.calibrated
        stored = self.stored()
        if stored is None:
            raise LookupError("the active plan has no batch-norm statistics: calibrate it first")
        assert stored.running_mean is not None and stored.running_var is not None
        return stored.running_mean, stored.running_var

    def forward(self, x: Tensor) -> Tensor:
        """[N, active, H, W] -> the same shape."""
        weight, bias = self.scale_and_shift()
        if not self.training and self.averaging is None:
            return F.batch_norm(x, *self.statistics(), weight, bias, False, 0.0, BN_EPS)
        running, momentum = self.calibrated, self.averaging
        if momentum is None:
            running, momentum = None, BN_MOMENTUM
            stored = self.stored()
            if stored is not None:
                assert stored.num_batches_tracked is not None
                assert stored.running_mean is not None and stored.running_var is not None
                stored.num_batches_tracked.add_(1)
                running = stored.running_mean, stored.running_var
        if self.synchronized:
            return synchronized_batch_norm(x, running, weight, bias, momentum, BN_EPS)
        mean, var = running or (None, None)
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, BN_EPS)


class SwitchableNorm(PlanNorm):
    """S and AutoSlim: one complete batch norm per switch (arXiv 1812.08928, sec. 3.2)."""

    def __init__(self, dim: Dim, plans: Sequence[ChannelPlan]) -> None:
        super().__init__(dim)
        self.bn = nn.ModuleList(nn.BatchNorm2d(plan.size(dim), BN_EPS, BN_MOMENTUM) for plan in plans)

    def stored(self) -> nn.BatchNorm2d:
        if self.index is None:
            raise LookupError("the active plan is none of the switches: a switchable norm has no parameters for it")
        norm = self.bn[self.index]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def scale_and_shift(self) -> Statistics:
        norm = self.stored()
        return norm.weight, norm.bias


class UniversalNorm(PlanNorm):
    """US: scale and shift are shared and sliced, statistics are per width (arXiv 1903.05134, sec. 3.1)."""

    def __init__(self, dim: Dim, plans: Sequence[ChannelPlan], widest: ChannelPlan) -> None:
        super().__init__(dim)
        channels = widest.size(dim)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.bn = nn.ModuleList(nn.BatchNorm2d(plan.size(dim), BN_EPS, BN_MOMENTUM, affine=False) for plan in plans)

    def stored(self) -> nn.BatchNorm2d | None:
        if self.index is None:
            return None
        norm = self.bn[self.index]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def scale_and_shift(self) -> Statistics:
        return self.weight[: self.active], self.bias[: self.active]


class SharedNorm(PlanNorm, nn.BatchNorm2d):
    """The tail norm of S- and US-MobileNet v2: one for all widths in the published layout, until a plan is calibrated
    and brings its own statistics."""

    def __init__(self, dim: Dim, widest: ChannelPlan) -> None:
        super().__init__(dim, widest.size(dim), BN_EPS, BN_MOMENTUM)

    def stored(self) -> nn.BatchNorm2d:
        return self

    def scale_and_shift(self) -> Statistics:
        return self.weight, self.bias


class TorchLayers(Layers[nn.Module]):
    """What slimmable and dense networks have in common."""

    def relu(self) -> nn.Module:
        return nn.ReLU(inplace=True)

    def relu6(self) -> nn.Module:
        return nn.ReLU6(inplace=True)

    def max_pool(self, kernel: int, stride: int, padding: int) -> nn.Module:
        return nn.MaxPool2d(kernel, stride, padding)

    def average_pool(self, kernel: int, stride: int, padding: int) -> nn.Module:
        return nn.AvgPool2d(kernel, stride, padding, count_include_pad=True)

    def shuffle(self, groups: int) -> nn.Module:
        return nn.ChannelShuffle(groups)

    def sequential(self, modules: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*modules)

    def block(self, body: nn.Module, residual: bool) -> nn.Module:
        return Block(body, residual)

    def bottleneck(self, body: nn.Module, shortcut: nn.Module | None) -> nn.Module:
        return Bottleneck(body, shortcut)

    def shuffle_unit(
        self, a: Sequence[nn.Module], b: nn.Module, c: Sequence[nn.Module], pool: nn.Module | None, whole: bool
    ) -> nn.Module:
        return ShuffleUnit(a, b, c, pool, whole)

    def network(self, features: Sequence[nn.Module], out: Dim, classes: int, heads: Sequence[nn.Module] = ()) -> nn.Module:
        return Network(features, self.linear(out, classes), heads)

    @abstractmethod
    def linear(self, inp: Dim, classes: int) -> nn.Module:
        """The classifier."""


class SlimmableLayers(TorchLayers):
    """The layers of the network that trains, sized for all plans of `spec`."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.plans, self.widest, self.universal = spec.plans, spec.widest, spec.family == "us"
        self.fixed = spec.fixed_groups

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> nn.Module:
        return SlimConv2d(inp, out, kernel, stride, False, self.widest)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> nn.Module:
        return SlimConv2d(dim, dim, kernel, stride, True, self.widest)

    def norm(self, dim: Dim) -> nn.Module:
        if {group for group, _ in dim.terms} <= self.fixed:
            return SharedNorm(dim, self.widest)
        return UniversalNorm(dim, self.plans, self.widest) if self.universal else SwitchableNorm(dim, self.plans)

    def linear(self, inp: Dim, classes: int) -> nn.Module:
        return SlimLinear(inp, classes, self.widest)


class DenseLayers(TorchLayers):
    """Ordinary `torch.nn` layers at the size of one plan."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.plan = plan

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> nn.Module:
        size = self.plan.size
        return nn.Conv2d(size(inp), size(out), kernel, stride, padding=kernel // 2, bias=False)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> nn.Module:
        channels = self.plan.size(dim)
        return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def norm(self, dim: Dim) -> nn.Module:
        return nn.BatchNorm2d(self.plan.size(dim), BN_EPS, BN_MOMENTUM)

    def linear(self, inp: Dim, classes: int) -> nn.Module:
        return nn.Linear(self.plan.size(inp), classes)
