"""Batch norm over the images of all processes, on any backend: torch's own refuses tensors on the CPU.

Every process contributes its count, mean and variance per channel; the exact mean and variance of all images follow
from these (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979),
without the cancellation of E[x^2] - E[x]^2. Gradients take the same way back, so that they are those of one process
that sees all images.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Statistics = tuple[Tensor, Tensor]  # mean and variance, each [channels]


class OneValueError(ValueError):
    """A norm that takes its statistics from a batch sees one value per channel, which has no variance."""


class _Sum(torch.autograd.Function):
    """The sum over all processes. Backward is the same sum: every process's loss depends on every process's input."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def combine(counts: Tensor, means: Tensor, variances: Tensor) -> Statistics:
    """Mean and biased variance [channels] of the union of parts, each of `counts` [parts, 1] values with `means` and
    biased `variances` [parts, channels]."""
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
    return mean, variance


def synchronized_batch_norm(
    x: Tensor, running: Statistics | None, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """[N, C, ...] normalized by the statistics of all processes' images, scaled and shifted; `running` follows them.

    OneValueError, on every process alike, where a channel has one value only.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    channels = x.shape[1]
    values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    variance, mean = torch.var_mean(values, (0, *range(2, x.ndim)), correction=0)
    count = x.numel() // channels
    own = torch.cat([mean, variance, mean.new_full((1,), count)])
    # Every process fills a row of its own: one sum gathers all of them, and can be differentiated.
    rows = _Sum.apply(torch.cat([own.new_zeros(rank, len(own)), own[None], own.new_zeros(world - rank - 1, len(own))]))
    counts = rows[:, -1:].detach()
    mean, variance = combine(counts, rows[:, :channels], rows[:, channels:-1])
    total = counts.sum()
    # Who has two values knows enough; looking at a tensor makes a GPU wait, and interrupts what torch.compile sees.
    if count < 2 and float(total) < 2:
        raise OneValueError("all processes together have one value per channel")
    if running is not None:
        with torch.no_grad():
            running[0].lerp_(mean.detach().to(running[0].dtype), momentum)
            running[1].lerp_((variance.detach() * (total / (total - 1))).to(running[1].dtype), momentum)
    scale = weight * torch.rsqrt(variance + eps)
    shift = bias - mean * scale
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (values * scale.view(shape) + shift.view(shape)).to(x.dtype)
