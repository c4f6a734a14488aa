"""One training step: forward and backward at every plan, gradients summed, one step of the optimizer.

Slimmable training: arXiv 1812.08928, sec. 3.3. Sandwich rule and inplace distillation: 1903.05134, sec. 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.compiling import Forward
from slimtrain.training.gradients import Gradients
from slimtrain.training.losses import distillation_loss, full_precision, label_loss

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """A context in which forward passes run in `amp`: none, bf16 or fp16."""
    return torch.autocast(device.type, AMP.get(amp, torch.bfloat16), enabled=amp in AMP)


def accumulate_gradients(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    images: Tensor,
    labels: Tensor,
    total: int,
    *,
    smoothing: float = 0.0,
    distill: bool = False,
    amp: str = "none",
    scale: float | Tensor = 1.0,
    forward: Forward | None = None,
    losses: Tensor | None = None,
) -> None:
    """Add the gradients of all `plans` for images [N, 3, H, W] and labels [N] to the parameters' `.grad`.

    Losses are sums over images divided by `total`, the images of the step over all its parts and processes, so that
    parts add up to the mean. With `distill` the first plan learns from the labels, the others from its detached
    probabilities. `scale` multiplies what is differentiated (fp16). `losses` [plans] collects the unscaled values.
    """
    teacher: Tensor | None = None
    for i, plan in enumerate(plans):
        with network.at(plan):
            with autocast(images.device, amp):
                logits = (forward or network)(images)
            loss = label_loss(logits, labels, smoothing) if teacher is None else distillation_loss(logits, teacher)
            loss = loss / total
            (loss * scale).backward()  # type: ignore[no-untyped-call]
        if distill and teacher is None:
            teacher = full_precision(logits.detach()).softmax(1)
        if losses is not None:
            losses[i] += loss.detach()


class Stepper:
    """Training steps of one network. `scaler` is for fp16."""

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
    ) -> None:
        self.network, self.optimizer, self.gradients = network, optimizer, gradients
        self.smoothing, self.distill, self.amp, self.parts, self.forward = smoothing, distill, amp, parts, forward
        self.scaler = torch.amp.GradScaler(gradients.processes.device.type, enabled=amp == "fp16")

    def compute(self, plans: Sequence[ChannelPlan], images: Tensor, labels: Tensor, total: int) -> Tensor:
        """The step's gradients, over all processes, in the parameters' `.grad` (times the scaler's scale in fp16);
        the mean loss of every plan [plans]."""
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
        self.scaler.step(self.optimizer)
        self.scaler.update()
