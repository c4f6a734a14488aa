"""The optimizer, and the weights that training begins with."""

from __future__ import annotations

import math

import torch
from torch import nn

from slimtrain.config.config import Config
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear
from slimtrain.slimmable.network import SlimmableNetwork


def sgd(network: SlimmableNetwork, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> torch.optim.SGD:
    """SGD with weight decay on ordinary convolutions and linear weights only: none on depthwise kernels, biases and
    norms, as published."""
    decayed = [
        module.weight
        for module in network.modules()
        if isinstance(module, SlimLinear) or (isinstance(module, SlimConv2d) and not module.depthwise)
    ]
    chosen = {id(weight) for weight in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


@torch.no_grad()
def initialize(network: SlimmableNetwork, seed: int) -> None:
    """Random weights: He et al. (arXiv 1502.01852, fan out) for convolutions, N(0, 0.01) for the classifier, norms as
    the identity. The same for the same seed."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, SlimConv2d):
            fan_out = module.out_channels * module.weight[0, 0].numel() / module.groups
            module.weight.normal_(0, math.sqrt(2 / fan_out), generator=draw)
        elif isinstance(module, SlimLinear):
            module.weight.normal_(0, 0.01, generator=draw)
            nn.init.zeros_(module.bias)


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The learning rate of `step` (from 0), as the schedule sets it per iteration.

    Linear falls to 0, cosine as half a wave (arXiv 1608.03983, without restarts), exponential by `gamma` an epoch,
    multistep by `gamma` at each milestone. Meanwhile warm-up rises linearly, its last step reaching the full rate.
    """
    total = config.epochs * steps_per_epoch
    epoch, done = step / steps_per_epoch, step / total
    factor = {
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "exponential": config.gamma**epoch,
        "multistep": config.gamma ** sum(epoch >= milestone for milestone in config.milestones),
    }[config.schedule]
    warmup = config.warmup_epochs * steps_per_epoch
    return config.lr * factor * min(1.0, (step + 1) / warmup if warmup else 1.0)
