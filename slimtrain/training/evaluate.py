"""Loss and accuracy of every plan, in one pass over the images, over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from slimtrain.data.loader import Batch
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.step import autocast

TOP = 5


@dataclass(frozen=True)
class Result:
    """Mean cross entropy, and the shares of images whose class is the first, or among the first 5."""

    loss: float
    top1: float
    top5: float
    images: int


@torch.inference_mode()
def evaluate(
    network: SlimmableNetwork,
    plans: Sequence[ChannelPlan],
    batches: Iterable[Batch],
    processes: Processes,
    *,
    amp: str = "none",
    channels_last: bool = False,
) -> list[Result]:
    """A result per plan over the images of all processes, each counted once. The network is left in evaluation mode."""
    network.eval()
    sums = torch.zeros(len(plans) * 3 + 1, dtype=torch.float64, device=processes.device)
    for batch in batches:
        images, labels = to_device(batch, processes, channels_last)
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
    return [Result(loss, top1, top5, count) for loss, top1, top5 in means]


def to_device(batch: Batch, processes: Processes, channels_last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch's images and labels where they are computed with."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = batch.images.to(processes.device, non_blocking=True, memory_format=layout)
    return images, batch.labels.to(processes.device, non_blocking=True)
