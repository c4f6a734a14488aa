"""One training step: forward and backward at every plan, gradients summed, one step of the optimizer.

Slimmable training: arXiv 1812.08928, sec. 3.3. Sandwich rule and inplace distillation: 1903.05134, sec. 3.2 and 3.3. A frozen
teacher: 1908.09791. Losses are summed over images; logits are [N, classes].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.compiling import Forward
from slimtrain.training.distributed import Processes

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """A context in which forward passes run in `amp`: none, bf16 or fp16."""
    return torch.autocast(device.type, AMP.get(amp, torch.bfloat16), enabled=amp in AMP)


def torch_smoothing(smoothing: float, classes: int) -> float:
    """torch's `label_smoothing` for the published one.

    The published smoothing s gives s / (n - 1) to each of the other n - 1 classes; torch's spreads its s over all n.
    UserError where it would leave the true class less than the others.
    """
    if not smoothing:
        return 0.0
    if smoothing >= 1 - 1 / classes:
        raise UserError(
            f"label_smoothing {smoothing}: with {classes} classes the true one would get no more than the others. Expected "
            f"less than {1 - 1 / classes:.3g}."
        )
    return smoothing * classes / (classes - 1)


def full_precision(x: Tensor) -> Tensor:
    """bf16 and fp16 as float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy with labels [N], smoothed as published."""
    spread = torch_smoothing(smoothing, logits.shape[1])
    return F.cross_entropy(full_precision(logits), labels, reduction="sum", label_smoothing=spread)


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the teacher's probabilities [N, classes] (inplace distillation, arXiv 1903.05134, sec. 3.3)."""
    return -(teacher * full_precision(logits).log_softmax(1)).sum()


class FrozenTeacher:
    """A copy of `network` that teaches and never learns: at `plan`, the full network, in evaluation mode, with the statistics
    that this plan has.

    Once-for-all networks learn from the soft labels of the trained full network so, beside the true ones (arXiv 1908.09791;
    their code lets the teacher's norms follow the batch, here what it says of an image does not depend on the others).
    """

    def __init__(self, network: SlimmableNetwork, plan: ChannelPlan, amp: str = "none") -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.plan, self.amp = plan, amp

    def load(self, network: SlimmableNetwork) -> None:
        """Become what `network` is now, but for statistics that it keeps beside its layout's."""
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The probabilities [N, classes] of images [N, 3, H, W]."""
        with self.network.at(self.plan), autocast(images.device, self.amp):
            logits = self.network(images)
        return full_precision(logits).softmax(1)


def plan_loss(logits: Tensor, labels: Tensor, smoothing: float, teacher: Tensor | None, share: float) -> Tensor:
    """What a plan is trained on: a `share` of the teacher's probabilities [N, classes], the rest labels [N]."""
    if teacher is None:
        return label_loss(logits, labels, smoothing)
    if share == 1:
        return distillation_loss(logits, teacher)
    return (1 - share) * label_loss(logits, labels, smoothing) + share * distillation_loss(logits, teacher)


def accumulate_gradients(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    images: Tensor,
    labels: Tensor,
    total: int,
    *,
    smoothing: float = 0.0,
    distill: bool = False,
    frozen: FrozenTeacher | None = None,
    share: float = 0.5,
    amp: str = "none",
    scale: float | Tensor = 1.0,
    forward: Forward | None = None,
    losses: Tensor | None = None,
) -> None:
    """Add the gradients of all `plans` for images [N, C, H, W] and labels [N] to the parameters' `.grad`.

    Losses are sums over images divided by `total`, the images of the step over all its parts and processes, so that
    parts add up to the mean. With `distill` the first plan learns from the labels, the others from its detached
    probabilities. A `frozen` teacher teaches all plans in its place, by a `share` of their losses. `scale` multiplies what is
    differentiated (fp16). `losses` [plans] collects the unscaled values; it may be longer.
    """
    teacher = None if frozen is None else frozen(images)
    share = 1.0 if frozen is None else share
    for i, plan in enumerate(plans):
        with network.at(plan):
            with autocast(images.device, amp):
                logits = (forward or network)(images)
            loss = plan_loss(logits, labels, smoothing, teacher, share) / total
            (loss * scale).backward()  # type: ignore[no-untyped-call]
        if distill and teacher is None:
            teacher = full_precision(logits.detach()).softmax(1)
        if losses is not None:
            losses[i] += loss.detach()


def split_losses(losses: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The losses of plans [plans] and the `parts` that these are sums of [plans, parts], as views of both after each other."""
    plans = len(losses) // (1 + parts)
    return losses[:plans], losses[plans:].view(plans, parts)


class Gradients:
    """All gradients of `network` in one tensor, so that one all-reduce per step sums them over the processes.

    Beside them lie the step's `losses` [plans] (with what they are sums of, `split_losses`), and, where norms are not
    synchronized, the running statistics, which are averaged: after every step all processes hold the same network. The
    parameters' `.grad` are views of it.
    """

    def __init__(self, network: SlimmableNetwork, plans: int, processes: Processes, synchronized: bool) -> None:
        self.processes = processes
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.averaged: list[Tensor] = []
        if processes.world > 1 and not synchronized:  # of norms: a user's constants are the same everywhere, and stay so
            followed = {id(b) for norm in network.norms.values() for b in norm.buffers()}
            self.averaged = [b for b in network.buffers() if b.is_floating_point() and id(b) in followed]
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


class Stepper:
    """Training steps of one network. `scaler` is for fp16; a `frozen` teacher goes before `distill`; above `clip` the norm of
    all gradients is scaled down to it."""

    def __init__(
        self,
        network: SlimmableNetwork,
        optimizer: torch.optim.Optimizer,
        gradients: Gradients,
        *,
        smoothing: float,
        distill: bool,
        amp: str,
        parts: int = 1,
        forward: Forward | None = None,
        frozen: FrozenTeacher | None = None,
        share: float = 0.5,
        clip: float = 0.0,
    ) -> None:
        self.network, self.optimizer, self.gradients = network, optimizer, gradients
        self.smoothing, self.distill, self.amp, self.parts, self.forward = smoothing, distill, amp, parts, forward
        self.frozen, self.share, self.clip = frozen, share, clip
        self.scaler = torch.amp.GradScaler(gradients.processes.device.type, enabled=amp == "fp16")

    def compute(self, plans: Sequence[ChannelPlan], images: Tensor, labels: Tensor, total: int) -> Tensor:
        """The step's gradients, over all processes, in the parameters' `.grad` (times the scaler's scale in fp16);
        the mean loss of every plan [plans], 0 behind those of a stage that runs fewer."""
        self.network.train()
        self.gradients.clear()
        scale = self.scaler.scale(torch.ones((), device=images.device)) if self.amp == "fp16" else 1.0
        for part, targets in zip(images.tensor_split(self.parts), labels.tensor_split(self.parts), strict=True):
            accumulate_gradients(
                self.network,
                plans,
                part,
                targets,
                total,
                smoothing=self.smoothing,
                distill=self.distill,
                frozen=self.frozen,
                share=self.share,
                amp=self.amp,
                scale=scale,
                forward=self.forward,
                losses=self.gradients.losses,
            )
        self.gradients.reduce()
        return self.gradients.losses

    def apply(self, lr: float) -> None:
        """One step of the optimizer on what `compute` left."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
