"""All gradients of a network in one tensor, so that one all-reduce per step sums them over the processes.

Beside them lie the step's losses, and, where norms are not synchronized, the running statistics, which are averaged:
after every step all processes hold the same network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes


class Gradients:
    """Owns the gradients of `network`'s parameters: views of one flat tensor. `losses` [plans] is another view."""

    def __init__(self, network: SlimmableNetwork, plans: int, processes: Processes, synchronized: bool) -> None:
        self.processes = processes
        parameters = list(network.parameters())
        self.averaged: list[Tensor] = []
        if processes.world > 1 and not synchronized:
            self.averaged = [b for b in network.buffers() if b.is_floating_point()]
        sizes = [p.numel() for p in parameters]
        statistics = sum(b.numel() for b in self.averaged)
        self.flat = torch.zeros(sum(sizes) + plans + statistics, dtype=parameters[0].dtype, device=processes.device)
        offset = 0
        for parameter, size in zip(parameters, sizes, strict=True):
            # The parameter's own strides: optimizers work on many tensors at once where layouts agree.
            parameter.grad = self.flat.as_strided(parameter.shape, parameter.stride(), offset)
            offset += size
        self.losses = self.flat[offset : offset + plans]
        self.statistics = self.flat[offset + plans :]

    def clear(self) -> None:
        self.flat.zero_()

    def reduce(self) -> None:
        """Sum gradients and losses over all processes, average the running statistics: one all-reduce."""
        if self.processes.world == 1:
            return
        if self.averaged:
            torch.cat([b.flatten() for b in self.averaged], out=self.statistics)
            self.statistics.div_(self.processes.world)
        self.processes.sum(self.flat)
        offset = 0
        for buffer in self.averaged:
            buffer.copy_(self.statistics[offset : offset + buffer.numel()].view_as(buffer))
            offset += buffer.numel()
