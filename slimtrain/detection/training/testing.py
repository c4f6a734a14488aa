"""What a slimmable detector finds at a plan, and how much of what is there that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from slimtrain.base.image_size import ImageSize
from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.detection.average_precision import AveragePrecision, Detected, Precision
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.halves import Halves
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork


class Detector:
    """Detections of images of one size, [B, 3, H, W], by a slimmable two-stage detector at whichever plan is active."""

    def __init__(self, network: SlimmableNetwork, settings: DetectorSettings, image_size: ImageSize) -> None:
        self.halves = Halves(network)
        self.proposals = Proposals(settings, image_size)
        self.detections = Detections(settings, image_size, self.proposals.kept)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """`boxes` [B, D, 4], `scores`, `labels` [B, D], `count`, `settled` [B]."""
        self.proposals.to(images), self.detections.to(images)
        first = self.halves.first(images)
        proposed = self.proposals(*(first.outputs[name] for name in self.proposals.input_shapes))
        outputs = self.halves.second(first, proposed["rows"])
        given: dict[str, Tensor] = self.detections(
            proposed["rois"], proposed["valid"], outputs["class_logits"], outputs["box_deltas"]
        )
        return given


def precisions_of(
    network: SlimmableNetwork,
    settings: DetectorSettings,
    plans: Sequence[ChannelPlan],
    batches: Iterable[DetectionBatch],
) -> list[Precision]:
    """Average precision of boxes at each plan, in evaluation mode. Batches are gone through once."""
    precisions = [AveragePrecision(settings.classes) for _ in plans]
    detectors: dict[tuple[int, int], Detector] = {}
    training = network.training
    network.eval()
    try:
        for batch in batches:
            if not len(batch.targets):
                continue
            size = batch.images.shape[2], batch.images.shape[3]
            detector = detectors.setdefault(size, Detector(network, settings, size))
            for plan, precision in zip(plans, precisions, strict=True):
                with network.at(plan):
                    given = detector(batch.images)
                for number, targets in enumerate(batch.targets):
                    count = int(given["count"][number])
                    rows = (given[name][number, :count].cpu().numpy() for name in ("boxes", "scores", "labels"))
                    precision.add(targets, Detected(*rows))
    finally:
        network.train(training)
    return [precision.compute() for precision in precisions]
