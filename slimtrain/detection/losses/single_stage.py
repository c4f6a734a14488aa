"""Losses of RetinaNet: the focal loss of all anchors (arXiv 1708.02002), by torchvision's own functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from slimtrain.base.image_size import ImageSize
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.losses.outputs import Outputs, as_read, flat, levels_of
from slimtrain.models.detector import DetectorSettings

OBJECT, BACKGROUND = 0.5, 0.4  # IoU from which on an anchor is an object's, and below which it is background's
NONE = -1  # the object of an anchor that is background


class SingleStageLosses:
    """The losses of a detector of `settings`."""

    def __init__(self, settings: DetectorSettings) -> None:
        self.settings = settings
        self.matcher = Matcher(OBJECT, BACKGROUND, allow_low_quality_matches=True)
        self.head = RetinaNetHead(1, 1, settings.classes)  # whose losses read none of its layers

    def __call__(self, outputs: Outputs, padded: ImageSize, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Of a batch whose images have the sides `padded`."""
        logits, codes = flat(levels_of(outputs, "class_logits"), levels_of(outputs, "box_deltas"))
        anchors = torch.cat(level_anchors(self.settings, padded)).to(codes)
        wanted = as_read(targets, codes.device, first_class=0)
        objects = [self._objects(image["boxes"], anchors) for image in wanted]
        losses = self.head.compute_loss(
            wanted, {"cls_logits": logits, "bbox_regression": codes}, [anchors] * len(wanted), objects
        )
        return {"classes": losses["classification"], "boxes": losses["bbox_regression"]}

    def _objects(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The object of every anchor, int64 [anchors]: below 0 background, or neither."""
        if not len(boxes):
            return torch.full((len(anchors),), NONE, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self.matcher(box_iou(boxes, anchors))
        return matched
