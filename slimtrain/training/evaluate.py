"""Over batches of all processes: the figures of a network's plans on test images, and their statistics of training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.layout import memory_format
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.step import autocast

TOP = 5
BY_SIZE = ("widest", "narrowest")
MEAN = "mean"


class Result(Protocol):
    """What a test on so many `images` says of a plan."""

    @property
    def images(self) -> int: ...

    @property
    def error(self) -> float:
        """What best.pt follows, from 0 to 1."""

    @property
    def figures(self) -> Mapping[str, float]:
        """By name, as summary.csv and JSON have them."""

    @property
    def columns(self) -> Mapping[str, str]:
        """As a table shows them, by their headers."""


@dataclass(frozen=True)
class Scores:
    """Mean cross entropy, and the shares of images whose class is the first, or among the first 5."""

    loss: float
    top1: float
    top5: float
    images: int
    classes: int = field(default=0, compare=False)  # 0: not known

    @property
    def error(self) -> float:
        return 1 - self.top1

    @property
    def figures(self) -> dict[str, float]:
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5}

    @property
    def columns(self) -> dict[str, str]:
        """The first 5 say nothing of 5 classes and fewer."""
        top5 = {} if 0 < self.classes <= TOP else {"top-5": f"{self.top5:.2%}"}
        return {"loss": f"{self.loss:.4f}", "top-1": f"{self.top1:.2%}", **top5}


@torch.inference_mode()
def evaluate(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    batches: Iterable[tuple[Tensor, Tensor]],
    processes: Processes | None = None,
    *,
    amp: str = "none",
    channels_last: bool = False,
) -> list[Scores]:
    """The scores of every plan on `batches`: images float32 [n, C, H, W] and their labels int64 [n].

    Of several `processes` each gives its share, every image counts once, and all get the same. `amp` is none, bf16 or fp16.
    The network is left in evaluation mode.

    >>> import slimtrain, torch
    >>> network = slimtrain.SlimmableNetwork(slimtrain.published_spec("s_mobilenet_v1", classes=10))
    >>> batches = [(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3]))]
    >>> [scores.images for scores in slimtrain.evaluate(network, network.spec.plans, batches)]
    [4, 4, 4, 4]

    LookupError where a plan has no batch-norm statistics.
    """
    processes = processes or Processes(0, 1, next(network.parameters()).device)
    network.eval()
    sums = torch.zeros(len(plans) * 3 + 1, dtype=torch.float64, device=processes.device)
    for batch in batches:
        images = to_device(batch[0], processes.device, channels_last)
        labels = batch[1].to(processes.device, non_blocking=True)
        for i, plan in enumerate(plans):
            with network.at(plan), autocast(images.device, amp):
                logits = network(images).float()
            first = logits.topk(min(TOP, logits.shape[1]), 1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums[3 * i : 3 * i + 3] += torch.stack([loss, first[:, 0].sum(), first.sum()]).double()
        sums[-1] += len(labels)
    total = processes.sum(sums).cpu()
    count = int(total[-1])
    means = (total[:-1] / max(count, 1)).reshape(len(plans), 3).tolist()
    return [Scores(loss, top1, top5, count, network.spec.classes) for loss, top1, top5 in means]


def calibrate_on(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    batches: Iterable[Tensor],
    processes: Processes,
    *,
    channels_last: bool = False,
    sync_norm: bool = False,
    forward: Callable[[Tensor], Any] | None = None,
) -> None:
    """Give `plans` the statistics of `batches` of images, the same for any number of processes. `sync_norm`: whether norms
    are synchronized apart from that; `forward`: as of `calibrate`."""
    network.synchronize(processes.world > 1)
    try:
        calibrate(network, plans, (to_device(images, processes.device, channels_last) for images in batches), forward)
    finally:
        network.synchronize(sync_norm and processes.world > 1)


@torch.inference_mode()
def logit_spread(network: SlimmableNetwork, plans: Sequence[ChannelPlan], images: Tensor) -> float:
    """How far the logits of `images` [N, C, H, W] differ between them, relative to their scale: of the plan that tells them
    apart least. What `slimexport` verifies says nothing where they hardly do."""
    network.eval()
    images = images.to(next(network.parameters()).device)
    spreads = []
    for plan in plans:
        with network.at(plan):
            logits = network(images).double()
        scale = float(logits.abs().max())
        known = 0 < scale < float("inf")
        spreads.append(float((logits.max(0).values - logits.min(0).values).max()) / scale if known else 0.0)
    return min(spreads, default=0.0)


def to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """Images where they are computed with."""
    return images.to(device, non_blocking=True, memory_format=memory_format(channels_last))


def check_followed(rule: str, plans: Sequence[ChannelPlan]) -> None:
    """UserError where `best_by` is the width of none of the plans that are tested while training."""
    if rule in (*BY_SIZE, MEAN) or float(rule) in [plan.width for plan in plans]:
        return
    known = ", ".join(number_text(plan.width or 0) for plan in plans)
    raise UserError(f"best_by {rule}: while training, {known} are tested. Choose one of these.")


def followed_error(rule: str, plans: Sequence[ChannelPlan], scores: Sequence[Result]) -> float:
    """The error that `best_by` names: of the widest or narrowest plan, the mean, or of a width."""
    errors = {plan.width: score.error for plan, score in zip(plans, scores, strict=True)}
    if rule == MEAN:
        return sum(errors.values()) / len(errors)
    if rule in BY_SIZE:
        by_size = sorted(plans, key=lambda plan: sum(plan.channels.values()))
        return errors[by_size[-1 if rule == "widest" else 0].width]
    return errors[float(rule)]
