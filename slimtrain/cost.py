"""Multiply-accumulates and weights of a plan, counted on shapes alone.

A MAC is not a FLOP: the papers' "FLOPs" are MACs at batch 1, of convolutions and linear layers, plus one per input
element of every average pool. `Cost.macs` leaves the pools out, `Cost.pools` holds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from slimtrain.channels import ChannelPlan, Dim
from slimtrain.layers import SlimConv2d, SlimLinear, SlimmableLayers
from slimtrain.spec import NetworkSpec


@dataclass(frozen=True)
class Cost:
    """`macs`: convolutions and linear layers, batch 1. `pools`: input elements of average pools. `params`: weights
    and biases once batch norm is folded."""

    macs: int
    pools: int
    params: int

    @property
    def published_macs(self) -> int:
        """The figure of the papers' tables, pools included."""
        return self.macs + self.pools


class _WithoutNorms(SlimmableLayers):
    """Norms cost nothing once folded, and are most of a slimmable network's modules."""

    def norm(self, dim: Dim) -> nn.Module:
        return nn.Identity()


class CostCounter:
    """Costs of any plan of one network at one image size (pixels). Holds shapes only: everything is on `meta`."""

    def __init__(self, spec: NetworkSpec, image_size: int) -> None:
        with torch.device("meta"):
            self.network = spec.arch.build(_WithoutNorms(spec), spec.wiring, spec.classes)
            self.image = torch.empty(1, 3, image_size, image_size)
        self.macs = self.pools = self.params = 0
        for module in self.network.modules():
            if isinstance(module, SlimConv2d | SlimLinear | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
                module.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, SlimConv2d):
            per_output = (1 if module.depthwise else module.active_in) * module.kernel_size[0] * module.kernel_size[1]
            self.macs += per_output * output.numel()
            self.params += module.active_out * (per_output + 1)
        elif isinstance(module, SlimLinear):
            self.macs += module.active_in * output.numel()
            self.params += module.out_features * (module.active_in + 1)
        else:
            self.pools += inputs[0].numel()

    @torch.inference_mode()
    def __call__(self, plan: ChannelPlan) -> Cost:
        for module in self.network.modules():
            if isinstance(module, SlimConv2d | SlimLinear):
                module.activate(plan)
        self.macs = self.pools = self.params = 0
        self.network(self.image)
        return Cost(self.macs, self.pools, self.params)
