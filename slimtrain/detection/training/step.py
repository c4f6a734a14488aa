"""One training step of a detector: forward and backward at every plan, gradients summed and clipped, as published with arXiv
1812.08928 (sec. 4.3).

A batch may be computed in parts, by several processes. Losses of a part are means over what is drawn of its images, as every
GPU of the published training has its own; a part counts by its share of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.data.loader import seed_of
from slimtrain.detection.halves import Halves
from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.detection.losses.two_stage import Sampling, TwoStageLosses
from slimtrain.detection.training.drawing import drawn_singly
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.step import Gradients, Stepper, autocast, split_losses

CLIP = 35.0  # the norm of all gradients that published training allows


class Losses(Protocol):
    """How far a detector at its active plan is from a batch's targets, by name. `seeds`: of what is drawn for every image;
    without them random numbers are torch's."""

    def __call__(self, halves: Halves, batch: DetectionBatch, seeds: Sequence[int] = ()) -> dict[str, Tensor]: ...


def losses_of(settings: DetectorSettings, sampling: Sampling | None = None) -> Losses:
    """The losses of a detector of `settings`. One with regions draws them, and anchors, as `sampling` says."""
    return _single_stage(settings) if settings.single_stage else _two_stage(settings, sampling)


def loss_names(settings: DetectorSettings) -> tuple[str, ...]:
    """What these losses are called: of classes and boxes, of a detector with regions also of objectness and of what is
    proposed, of masks and of keypoints where it has them (torchvision's `loss_classifier`, `loss_box_reg`, `loss_objectness`,
    `loss_rpn_box_reg`, `loss_mask`, `loss_keypoint`)."""
    names = ["classes", "boxes"]
    if not settings.single_stage:
        names += ["objectness", "proposals"]
    if settings.mask is not None:
        names.append("masks")
    if settings.keypoints is not None:
        names.append("keypoints")
    return tuple(names)


def _single_stage(settings: DetectorSettings) -> Losses:
    single = SingleStageLosses(settings)

    def compute(halves: Halves, batch: DetectionBatch, seeds: Sequence[int] = ()) -> dict[str, Tensor]:
        return single(full(halves.first(batch.images).outputs), _sides(batch.images), batch.targets)

    return compute


def _two_stage(settings: DetectorSettings, sampling: Sampling | None) -> Losses:
    both = TwoStageLosses(settings, sampling)
    drawing = [drawn_singly(both.rpn), drawn_singly(both.heads)]
    masks = settings.mask is not None or settings.keypoints is not None

    def compute(halves: Halves, batch: DetectionBatch, seeds: Sequence[int] = ()) -> dict[str, Tensor]:
        for number, part in enumerate(drawing):
            part.seeds = [seed_of(seed, number) for seed in seeds]
        first = halves.first(batch.images)
        sizes = [(target.height, target.width) for target in batch.targets]
        losses, regions = both.first(full(first.outputs), _sides(batch.images), sizes, batch.targets)
        rois = (regions.rois, regions.mask_rois) if masks else (regions.rois,)
        return losses | both.second(full(halves.second(first, *rois)), regions, batch.targets)

    return compute


def accumulate_gradients(
    network: SlimmableNetwork, plans: Sequence[ChannelPlan], batch: DetectionBatch, losses: Losses, amp: str = "none"
) -> list[dict[str, float]]:
    """Add the gradients of all `plans` to the parameters' `.grad`; every plan's losses."""
    values = list(_gradients(Halves(network), plans, batch, losses, amp))
    return [{name: float(loss) for name, loss in of_plan.items()} for of_plan in values]


def _gradients(
    halves: Halves,
    plans: Sequence[ChannelPlan],
    batch: DetectionBatch,
    losses: Losses,
    amp: str,
    weight: float | Tensor = 1.0,
    seeds: Callable[[int], Sequence[int]] = lambda number: (),
) -> Iterator[dict[str, Tensor]]:
    """The losses of every plan, whose gradients, times `weight`, are added up meanwhile. `seeds`: a plan's of every image."""
    for number, plan in enumerate(plans):
        with halves.network.at(plan):
            with autocast(batch.images.device, amp):
                of_plan = losses(halves, batch, seeds(number))
            torch.autograd.backward(total(of_plan, batch.images.device) * weight)
        yield {name: loss.detach() for name, loss in of_plan.items()}


class DetectionStepper(Stepper):
    """Training steps of a slimmable detector, by `detect`. `names`: of its losses, each of which has a place of every plan in
    `gradients`; `parts`, `clip`: as of any steps."""

    def __init__(
        self,
        network: SlimmableNetwork,
        optimizer: torch.optim.Optimizer,
        gradients: Gradients,
        losses: Losses,
        names: Sequence[str],
        *,
        amp: str = "none",
        parts: int = 1,
        clip: float = 0.0,
    ) -> None:
        super().__init__(network, optimizer, gradients, smoothing=0.0, distill=False, amp=amp, parts=parts, clip=clip)
        self.losses, self.names = losses, tuple(names)

    def detect(self, plans: Sequence[ChannelPlan], batch: DetectionBatch, seed: int) -> Tensor:
        """The step's gradients, over all processes, in the parameters' `.grad` (times the scaler's scale in fp16); the sum of
        every plan's losses [plans], 0 behind those of a stage that runs fewer, and behind all of them each loss, plan by plan,
        in the order of their `names`. What is drawn of an image depends on `seed`, the step, the image and the place of the
        plan."""
        self.network.train()
        self.gradients.clear()
        device = batch.images.device
        scale = self.scaler.scale(torch.ones((), device=device)) if self.amp == "fp16" else 1.0
        halves = Halves(self.network)
        sums, single = split_losses(self.gradients.losses, len(self.names))
        for part in parts_of(batch, self.parts):
            share = len(part.targets) / batch.total
            ids = [target.image_id for target in part.targets]

            def seeds(number: int, ids: Sequence[int] = ids) -> list[int]:
                return [seed_of(seed, batch.step, number, own) for own in ids]

            computed = _gradients(halves, plans, part, self.losses, self.amp, share * scale, seeds)
            for number, of_plan in enumerate(computed):
                sums[number] += total(of_plan, device) * share
                single[number] += torch.stack([of_plan[name] for name in self.names]) * share
        self.gradients.reduce()
        return self.gradients.losses


def parts_of(batch: DetectionBatch, parts: int) -> Iterator[DetectionBatch]:
    """A batch's images in so many parts, as even as they can be."""
    begin = 0
    for images in batch.images.tensor_split(parts):
        own = slice(begin, begin + len(images))
        yield batch._replace(images=images, targets=batch.targets[own], scales=batch.scales[own])
        begin = own.stop


def total(losses: dict[str, Tensor], device: torch.device) -> Tensor:
    """Their sum."""
    return sum(losses.values(), torch.zeros((), device=device))


def clip(parameters: Iterable[nn.Parameter], most: float = CLIP) -> float:
    """Scale gradients down where all of them together have a larger norm than `most`; the norm before that."""
    return float(nn.utils.clip_grad_norm_(parameters, most))


def _sides(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def full(outputs: object) -> dict[str, Tensor]:
    """In float32: losses and boxes of half precision are none."""
    assert isinstance(outputs, dict)
    return {
        name: value.float() if value.dtype in (torch.bfloat16, torch.float16) else value for name, value in outputs.items()
    }
