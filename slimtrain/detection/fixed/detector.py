"""What a slimmable detector detects, at whichever plan is active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import Detections
from slimtrain.detection.fixed.keypoints import Keypoints
from slimtrain.detection.fixed.masks import Masks
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.single_stage import of_single_stage
from slimtrain.detection.halves import First, Halves
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork

Computing = Callable[[], AbstractContextManager[object]]
Detector = Callable[[Tensor], dict[str, Tensor]]
HALF = (torch.float16, torch.bfloat16)


def detector_of(
    network: SlimmableNetwork | Halves,
    settings: DetectorSettings,
    image_size: ImageSize,
    computing: Computing = nullcontext,
) -> Detector:
    """A slimmable detector of any kind: normalized images [B, 3, H, W] of `image_size` -> `boxes` [B, D, 4], `scores`,
    `labels` [B, D], `count`, `settled` [B], and `masks` [B, D, s, s], or `keypoints` [B, D, K, 3] and `keypoint_scores`
    [B, D, K].

    It is what the network's files compute, without gradients. The learned parts run within `computing()`, such as torch's
    autocast; nothing else is computed in half precision.
    """
    kind = _SingleStage if settings.single_stage else _TwoStages
    halves = network if isinstance(network, Halves) else Halves(network)
    return kind(halves, settings, image_size, computing)


class _SingleStage:
    def __init__(self, halves: Halves, settings: DetectorSettings, image_size: ImageSize, computing: Computing) -> None:
        self.halves, self.computing = halves, computing
        self.detections = of_single_stage(settings, image_size)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        with self.computing():
            outputs = _full(self.halves.first(images).outputs)
        return _run(self.detections, *(outputs[name] for name in self.detections.input_shapes))


class _TwoStages:
    def __init__(self, halves: Halves, settings: DetectorSettings, image_size: ImageSize, computing: Computing) -> None:
        self.halves, self.settings, self.computing = halves, settings, computing
        self.proposals = Proposals(settings, image_size)
        self.detections = Detections(settings, image_size, self.proposals.kept)
        self.points = None if settings.keypoints is None else Keypoints(settings.keypoints, image_size)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        with self.computing():
            first = self.halves.first(images)
        outputs = _full(first.outputs)
        proposed = _run(self.proposals, *(outputs[name] for name in self.proposals.input_shapes))
        boxes, outputs = self._further(first, proposed["rows"])
        detected = _run(self.detections, proposed["rois"], proposed["valid"], outputs["class_logits"], outputs["box_deltas"])
        detected["settled"] = detected["settled"] & proposed["settled"]
        rows = detected.pop("rows")
        if self.settings.mask is not None:
            _, outputs = self._further(boxes, rows)
            detected |= Masks()(detected["labels"], outputs["mask_logits"])
        if self.points is not None:
            _, outputs = self._further(boxes, rows)
            points = _run(self.points, detected["boxes"], detected["labels"], outputs["keypoint_logits"])
            detected |= {**points, "settled": detected["settled"] & points["settled"]}
        return detected

    def _further(self, before: First, rows: Tensor) -> tuple[First, dict[str, Tensor]]:
        with self.computing():
            first = self.halves.further(before, rows.to(before.images.dtype))
        return first, _full(first.outputs)


def _run(module: nn.Module, *given: Tensor) -> dict[str, Tensor]:
    """A module without parameters where its inputs are, in their precision."""
    result: dict[str, Tensor] = module.to(given[0])(*given)
    return result


def _full(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Boxes of half precision are pixels off."""
    return {name: value.float() if value.dtype in HALF else value for name, value in outputs.items()}
