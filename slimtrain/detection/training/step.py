"""One training step of a detector: forward and backward at every plan, gradients summed and clipped, as published with arXiv
1812.08928 (sec. 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.detection.halves import Halves
from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.detection.losses.two_stage import Sampling, TwoStageLosses
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import RETINA, DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.step import autocast

CLIP = 35.0  # the norm of all gradients that published training allows
Losses = Callable[[Halves, DetectionBatch], dict[str, Tensor]]  # at the active plan, by name


def losses_of(settings: DetectorSettings, sampling: Sampling | None = None) -> Losses:
    """How far a detector of `settings` is from a batch's targets. A detector with regions draws them: random numbers are
    torch's."""
    if settings.kind == RETINA:
        single = SingleStageLosses(settings)
        return lambda halves, batch: single(halves.first(batch.images).outputs, _sides(batch.images), batch.targets)
    both = TwoStageLosses(settings, sampling)
    masks = settings.mask is not None or settings.keypoints is not None

    def compute(halves: Halves, batch: DetectionBatch) -> dict[str, Tensor]:
        first = halves.first(batch.images)
        sizes = [(target.height, target.width) for target in batch.targets]
        losses, regions = both.first(_full(first.outputs), _sides(batch.images), sizes, batch.targets)
        rois = (regions.rois, regions.mask_rois) if masks else (regions.rois,)
        return losses | both.second(_full(halves.second(first, *rois)), regions, batch.targets)

    return compute


def accumulate_gradients(
    network: SlimmableNetwork, plans: Sequence[ChannelPlan], batch: DetectionBatch, losses: Losses, amp: str = "none"
) -> list[dict[str, float]]:
    """Add the gradients of all `plans` to the parameters' `.grad`; every plan's losses."""
    halves, values = Halves(network), []
    for plan in plans:
        with network.at(plan):
            with autocast(batch.images.device, amp):
                of_plan = losses(halves, batch)
            torch.autograd.backward(sum(of_plan.values(), torch.zeros((), device=batch.images.device)))
        values.append({name: float(loss.detach()) for name, loss in of_plan.items()})
    return values


def clip(parameters: Iterable[nn.Parameter], most: float = CLIP) -> float:
    """Scale gradients down where all of them together have a larger norm than `most`; the norm before that."""
    return float(nn.utils.clip_grad_norm_(parameters, most))


def _sides(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _full(outputs: object) -> dict[str, Tensor]:
    """In float32: losses of half precision are none."""
    assert isinstance(outputs, dict)
    return {
        name: value.float() if value.dtype in (torch.bfloat16, torch.float16) else value for name, value in outputs.items()
    }
