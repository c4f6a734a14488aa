"""Layers with an active width: they store their weights at the size of the widest plan and use the leading corner of them
(arXiv 1812.08928, sec. 3.1).

Only `SlimmableNetwork.at` (network.py) calls `activate`; nothing else changes active widths.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.models.channels import ChannelPlan, Dim


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

    @property
    def dims(self) -> tuple[Dim | int, ...]:
        """What it reads and writes."""
        return self.inp, self.out

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

    @property
    def dims(self) -> tuple[Dim | int, ...]:
        """What it reads; classes are never slimmed."""
        return (self.inp,)

    def activate(self, plan: ChannelPlan) -> None:
        self.active_in = plan.size(self.inp)

    def forward(self, x: Tensor) -> Tensor:
        """[N, active_in] -> [N, classes]."""
        return F.linear(x, self.weight[:, : self.active_in], self.bias)
