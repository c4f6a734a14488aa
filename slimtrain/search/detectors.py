"""What a search for a detector's channel counts measures: its loss, or what is missing of its average precision, on held-out
images with objects.

The loss is that of training: of anchors and regions drawn for every image from the seed and the image alone, so that all
candidates learn from the same draws. Precision is COCO's of boxes, at an IoU of 0.5 or from 0.5 to 0.95, in the mean with that
of masks or keypoints where a detector gives some. Stages, pyramid and RPN are shared as far as a candidate is the current
network (slimtrain/detection/shared_halves.py); proposals and heads are each candidate's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.config.config import AP, AP50, LOSS
from slimtrain.data.detection.batches import DetectionBatch, Padding, detection_test_batches
from slimtrain.data.detection.held_out import DetectionPart
from slimtrain.data.detection.targets import DetectionSamples
from slimtrain.data.detection.transforms import DetectionTransform
from slimtrain.data.loader import seed_of
from slimtrain.detection.average_precision import AveragePrecision
from slimtrain.detection.fixed.detector import Detector, detector_of
from slimtrain.detection.losses.two_stage import Sampling
from slimtrain.detection.shared_halves import SharedHalves
from slimtrain.detection.training.step import Losses, losses_of, total
from slimtrain.detection.training.testing import note_detections, precision_of
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.search.evaluator import Evaluator, Given
from slimtrain.search.greedy import CandidateScore
from slimtrain.search.held_out import HeldOut
from slimtrain.training.evaluate import to_device
from slimtrain.training.step import autocast


class HeldOutObjects(HeldOut):
    """`DetectionSamples` in chunks, as `HeldOut` has labeled images. `stride` divides the sides of a chunk's images."""

    def __init__(
        self, samples: DetectionSamples, transform: DetectionTransform, batch: int, *, stride: int, **how: Any
    ) -> None:
        super().__init__(samples, transform, batch, **how)
        self.stride = stride

    def _batches(self, indices: NDArray[np.int64]) -> Iterator[DetectionBatch]:
        part = DetectionPart(self.samples, indices)
        batches = detection_test_batches(
            part, self.transform, batch_size=self.size, padding=Padding(self.stride), workers=self.workers
        )
        return (batch for batch in batches if batch.targets)

    def _chunk(self, batch: DetectionBatch) -> tuple[DetectionBatch, int]:
        masks = (target.masks for target in (*batch.targets, *batch.originals))
        return batch, batch.images.nbytes + sum(mask.nbytes for mask in masks if mask is not None)

    def _known(self, index: int) -> bytes:
        targets = self.samples.targets(index)
        return b"".join(part.numpy().tobytes() for part in (targets.boxes, targets.labels, targets.crowd)) + b"\n"


@dataclass(frozen=True)
class OnChunk:
    """What a plan gives on a chunk: the sum of its losses over `images`, and what it detects, where that counts."""

    loss: float
    images: int
    precision: AveragePrecision | None = None


@dataclass(frozen=True)
class DetectionEvaluator(Evaluator):
    """`evaluator(current, candidates)` scores plans of a detector of `settings` on chunks of a `HeldOutObjects`.

    `measured`: what a score's error is: `loss`, or `ap50` and `ap`, what is missing of that precision in percent. `sampling`
    says which anchors and regions losses are of, `seed` which are drawn.
    """

    settings: DetectorSettings = field(kw_only=True)
    measured: str = AP50
    sampling: Sampling | None = None
    seed: int = 0

    @property
    def percent(self) -> bool:
        return self.measured != LOSS

    @cached_property
    def losses(self) -> Losses:
        return losses_of(self.settings, self.sampling)

    @cached_property
    def halves(self) -> SharedHalves:
        return SharedHalves(self.network)

    @cached_property
    def detectors(self) -> dict[tuple[int, int], Detector]:
        """By the sides of the images that they detect in."""
        return {}

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "error": self.measured}

    def _computing(self) -> AbstractContextManager[Any]:
        """Boxes of half precision are pixels off: the learned parts alone are computed so."""
        return nullcontext()

    def _prefix(self) -> SharedHalves:
        return self.halves

    def _given(
        self, prefix: Any, current: ChannelPlan, plans: Sequence[ChannelPlan], chunk: DetectionBatch
    ) -> Iterator[tuple[int, Given]]:
        for number, batch in self._at_plans(current, plans, chunk):
            seeds = [seed_of(self.seed, target.image_id) for target in batch.targets]
            with torch.random.fork_rng(devices=()), autocast(self.processes.device, self.amp):
                loss = float(total(self.losses(self.halves, batch, seeds), self.processes.device))
            images = len(batch.targets)
            yield number, OnChunk(images * loss, images, self._detections(batch) if self.percent else None)

    def _run(self, prefix: Any, current: ChannelPlan, plans: Sequence[ChannelPlan], chunk: DetectionBatch) -> None:
        for _, batch in self._at_plans(current, plans, chunk):
            with autocast(self.processes.device, self.amp):
                self.halves.first(batch.images)

    def _at_plans(
        self, current: ChannelPlan, plans: Sequence[ChannelPlan], chunk: DetectionBatch
    ) -> Iterator[tuple[int, DetectionBatch]]:
        """A chunk where it is computed with, and the number of every plan, which is active then; in the order in which they
        begin to differ from `current`."""
        device = self.processes.device
        images = to_device(chunk.images, device, self.channels_last)
        batch = chunk._replace(images=images, targets=tuple(target.to(device) for target in chunk.targets))
        self.halves.share(current if self.reuse else None)
        for number in sorted(range(len(plans)), key=lambda i: self.halves.first_difference(current, plans[i])):
            with self.network.at(plans[number]):
                yield number, batch
        self.halves.share(None)

    def _detections(self, batch: DetectionBatch) -> AveragePrecision:
        height, width = batch.images.shape[2:]
        if (height, width) not in self.detectors:
            self.detectors[height, width] = detector_of(
                self.halves, self.settings, (height, width), lambda: autocast(self.processes.device, self.amp)
            )
        precision = precision_of(self.settings)
        note_detections(precision, self.detectors[height, width](batch.images), batch)
        return precision

    def _scores(self, pairs: Mapping[int, Given], chunks: int, plans: int) -> list[CandidateScore]:
        every: dict[int, OnChunk] = {}
        for of_process in self.processes.gathered(dict(pairs)):
            every |= of_process
        return [
            self._score([every[pair] for pair in range(plan, chunks * plans, plans) if pair in every]) for plan in range(plans)
        ]

    def _score(self, parts: Sequence[OnChunk]) -> CandidateScore:
        """The score of one plan from its chunks, in their order."""
        images = sum(part.images for part in parts)
        if not images:
            raise UserError("none of the held-out images can be read.")
        loss = sum(part.loss for part in parts) / images
        if not self.percent:
            return CandidateScore(loss, loss, images)
        whole = precision_of(self.settings)
        for part in parts:
            assert part.precision is not None
            whole.extend(part.precision)
        precisions = [whole.compute(kind) for kind in whole.kinds]
        shares = [precision.ap if self.measured == AP else precision.ap50 for precision in precisions]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            raise UserError("no held-out image shows an object, so that there is nothing to be detected. Hold out others.")
        return CandidateScore(100 * (1 - sum(known) / len(known)), loss, images)
