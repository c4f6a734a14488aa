"""Batch norms that hold the statistics of every plan: switchable, universal, and shared by all widths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.extents import Slimmed
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.table import BN_EPS, BN_MOMENTUM
from slimtrain.slimmable.plan_positions import Kept, kept_of, take
from slimtrain.slimmable.sync_norm import OneValueError, Statistics, synchronized_batch_norm

AFFINE, RUNNING = ("weight", "bias"), ("running_mean", "running_var")  # entries of a batch norm in a state dict


class PlanNorm(nn.Module, ABC):
    """A batch norm whose statistics belong to a plan. `index` is the active plan's stored entry, None if it has none;
    `calibrated` the active plan's own statistics, which go before the stored ones.

    In training mode batch statistics are used, and the plan's stored statistics, where it has some, follow them with
    momentum 0.1. While `averaging` is set, it is the calibrated statistics that follow, with that momentum.
    `synchronized`: batch statistics are those of all processes' images. `frozen`: the stored statistics are used in training
    too. `dim`: its channels.
    """

    eps = BN_EPS
    momentum: Any = BN_MOMENTUM

    def __init__(self, dim: Slimmed, *norm: Any) -> None:
        super().__init__(*norm)
        self.dim = dim
        self.index: int | None = None
        self.kept: Kept = slice(None)
        self.calibrated: Statistics | None = None
        self.averaging: float | None = None
        self.synchronized = False
        self.frozen = False

    def freeze(self) -> None:
        """Neither statistics nor scale and shift change from now on."""
        self.frozen = True
        self.requires_grad_(False)

    def activate(self, plan: ChannelPlan, index: int | None, calibrated: Statistics | None) -> None:
        self.kept, self.index, self.calibrated = kept_of(self.dim, plan.channels), index, calibrated

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
        """[N, active, H, W] -> the same shape. OneValueError where the batch's own statistics are asked for, and it has one
        value per channel."""
        weight, bias = self.scale_and_shift()
        if self.averaging is None and (self.frozen or not self.training):
            return F.batch_norm(x, *self.statistics(), weight, bias, False, 0.0, self.eps)
        running, momentum = self.calibrated, self.averaging
        if momentum is None:
            stored, momentum = self.stored(), self.momentum
            running = None
            if stored is not None:
                assert stored.num_batches_tracked is not None
                assert stored.running_mean is not None and stored.running_var is not None
                stored.num_batches_tracked.add_(1)
                running = stored.running_mean, stored.running_var
                if momentum is None:
                    return self._averaged(x, running, stored.num_batches_tracked, weight, bias)
        return self._by_batch(x, running, weight, bias, momentum or 0.0)

    def _by_batch(self, x: Tensor, running: Statistics | None, weight: Tensor, bias: Tensor, momentum: float) -> Tensor:
        """Normalized by the batch's statistics, which `running` follows."""
        if self.synchronized:
            return synchronized_batch_norm(x, running, weight, bias, momentum, self.eps)
        if x.numel() == x.shape[1]:
            raise OneValueError(f"a map of {list(x.shape)} has one value per channel")
        mean, var = running or (None, None)
        return F.batch_norm(x, mean, var, weight, bias, True, momentum, self.eps)

    def _averaged(self, x: Tensor, running: Statistics, batches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalized by the batch's statistics, `running` being the average of all `batches`. Their number stays
        a tensor: torch.compile would have to stop and ask for it."""
        own = torch.zeros_like(running[0]), torch.zeros_like(running[1])
        result = self._by_batch(x, own, weight, bias, 1.0)
        with torch.no_grad():
            for average, value in zip(running, own, strict=True):
                average.lerp_(value, (1 / batches).to(average.dtype))
        return result


class SwitchableNorm(PlanNorm):
    """S and AutoSlim: one complete batch norm per switch (arXiv 1812.08928, sec. 3.2)."""

    def __init__(self, dim: Slimmed, plans: Sequence[ChannelPlan]) -> None:
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

    def __init__(self, dim: Slimmed, plans: Sequence[ChannelPlan], widest: ChannelPlan) -> None:
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
        return take(self.weight, 0, self.kept), take(self.bias, 0, self.kept)


class SharedNorm(PlanNorm, nn.BatchNorm2d):
    """The norm of a fixed group: one for all widths in the published layout, until a plan is calibrated and brings its own
    statistics."""

    def __init__(self, dim: Slimmed, widest: ChannelPlan) -> None:
        super().__init__(dim, widest.size(dim), BN_EPS, BN_MOMENTUM)

    def stored(self) -> nn.BatchNorm2d:
        return self

    def scale_and_shift(self) -> Statistics:
        return self.weight, self.bias
