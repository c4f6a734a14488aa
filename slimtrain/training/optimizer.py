"""The optimizer, its learning rate, and the weights that training begins with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from slimtrain.slimmable.network import SlimmableNetwork


def sgd(network: SlimmableNetwork, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> torch.optim.SGD:
    """SGD with weight decay on ordinary convolutions and linear weights only: none on depthwise kernels, biases and
    norms, as published. What takes no gradient is left as it is."""
    decayed = [weight for weight in network.body.decayed() if weight.requires_grad]
    chosen = {id(weight) for weight in decayed}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen and parameter.requires_grad]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


@torch.no_grad()
def initialize(network: SlimmableNetwork, seed: int) -> None:
    """Random weights: He et al. (arXiv 1502.01852, fan out) for convolutions, N(0, 0.01) for the classifier, norms as
    the identity. The same for the same seed."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in network.body.weights.items():
        tensor = network.body.stored(name)
        if weight.linear:
            tensor.normal_(0, 0.01, generator=draw)
            if weight.bias is not None:
                nn.init.zeros_(network.body.stored(weight.bias))
        else:
            fan_out = weight.shape[0] * math.prod(weight.shape[2:]) / weight.groups
            tensor.normal_(0, math.sqrt(2 / fan_out), generator=draw)


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step, and the epochs that steps fall into.

    Linear falls to 0, cosine as half a wave (arXiv 1608.03983, without restarts), exponential by `gamma` an epoch,
    multistep by `gamma` at each milestone. Meanwhile warm-up rises linearly, its last step reaching the full rate; with
    `warmup_from` its first has that share of it, and the full rate follows on the last.
    """

    lr: float
    kind: str
    epochs: int
    steps: int  # per epoch
    milestones: tuple[float, ...] = ()  # epochs
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    warmup_from: float = 0.0

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps

    def epoch(self, step: int) -> int:
        """The epoch of `step`, both counted from 0."""
        return step // self.steps

    def __call__(self, step: int) -> float:
        """The rate of `step`, from 0, as it is set per iteration."""
        epoch, done = step / self.steps, step / self.total
        factor = {
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "exponential": self.gamma**epoch,
            "multistep": self.gamma ** sum(epoch >= milestone for milestone in self.milestones),
        }[self.kind]
        return self.lr * factor * self._risen(step)

    def _risen(self, step: int) -> float:
        """The share of the rate that warm-up has reached."""
        warmup = self.warmup_epochs * self.steps
        if not warmup:
            return 1.0
        if not self.warmup_from:
            return min(1.0, (step + 1) / warmup)
        return min(1.0, self.warmup_from + (1 - self.warmup_from) * step / warmup)
