"""A detector trained on batches: all plans in every step, SGD, a rate that warms up and falls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.data.loader import seed_of
from slimtrain.detection.training.step import CLIP, Losses, accumulate_gradients, clip
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.optimizer import Schedule, sgd

DRAWS = 1  # tells a step's draws of anchors and regions from those of its images


@dataclass(frozen=True)
class StepReport:
    """What a step did. `losses`: of every plan, by name; `gradient`: the norm of all gradients before they were clipped."""

    step: int
    lr: float
    losses: Sequence[dict[str, float]]
    gradient: float

    @property
    def totals(self) -> list[float]:
        """The sum of every plan's losses."""
        return [sum(of_plan.values()) for of_plan in self.losses]


def fit(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    batches: Iterable[DetectionBatch],
    losses: Losses,
    schedule: Schedule,
    *,
    seed: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    most_gradient: float = CLIP,
    amp: str = "none",
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> None:
    """Train `network` on `batches`, each once. What a step draws depends on `seed` and its number alone. Published training
    has momentum 0.9, weight decay 1e-4 and gradients clipped at a norm of 35 (arXiv 1812.08928's code, its configurations)."""
    optimizer = sgd(network, schedule.lr, momentum, False, weight_decay)
    network.train()
    for batch in batches:
        torch.manual_seed(seed_of(seed, batch.step, DRAWS))
        for group in optimizer.param_groups:
            group["lr"] = schedule(batch.step)
        optimizer.zero_grad()
        values = accumulate_gradients(network, plans, batch, losses, amp)
        gradient = clip(network.parameters(), most_gradient)
        optimizer.step()
        on_step(StepReport(batch.step, schedule(batch.step), values, gradient))
