"""Losses of single-stage detectors, by torchvision's own functions: RetinaNet's focal loss of all anchors (arXiv 1708.02002),
and SSD's of SSDLite (1512.02325, sec. 2.2): of the anchors that are background those that look least like it count, three for
each of an object's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from slimtrain.base.image_size import ImageSize
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.losses.outputs import Outputs, as_read, flat, levels_of
from slimtrain.models.detector import RETINA, DetectorSettings

OBJECT, BACKGROUND = 0.5, 0.4  # IoU from which on an anchor is an object's, and below which it is background's
NONE = -1  # the object of an anchor that is background


class SingleStageLosses:
    """The losses of a detector of `settings`."""

    def __init__(self, settings: DetectorSettings) -> None:
        self.settings = settings
        if settings.kind == RETINA:
            self.matcher = Matcher(OBJECT, BACKGROUND, allow_low_quality_matches=True)
            self.head = RetinaNetHead(1, 1, settings.classes)  # whose losses read none of its layers
        else:
            self.ssd = _ssd(settings)
            self.matcher = self.ssd.proposal_matcher

    def __call__(self, outputs: Outputs, padded: ImageSize, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Of a batch whose images have the sides `padded`."""
        logits, codes = flat(levels_of(outputs, "class_logits"), levels_of(outputs, "box_deltas"))
        anchors = torch.cat(level_anchors(self.settings, padded)).to(codes)
        given = {"cls_logits": logits, "bbox_regression": codes}
        retina = self.settings.kind == RETINA
        wanted = as_read(targets, codes.device, first_class=0 if retina else 1)
        objects = [self._objects(image["boxes"], anchors) for image in wanted]
        every = [anchors] * len(wanted)
        if retina:
            losses = self.head.compute_loss(wanted, given, every, objects)
        else:
            losses = self.ssd.compute_loss(wanted, given, every, objects)
        return {"classes": losses["classification"], "boxes": losses["bbox_regression"]}

    def _objects(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """The object of every anchor, int64 [anchors]: below 0 background, or neither."""
        if not len(boxes):
            return torch.full((len(anchors),), NONE, dtype=torch.int64, device=anchors.device)
        matched: Tensor = self.matcher(box_iou(boxes, anchors))
        return matched


def _ssd(settings: DetectorSettings) -> SSD:
    """torchvision's, whose losses read none of its layers."""
    anchors = settings.anchors
    boxes = DefaultBoxGenerator([list(ratios) for ratios in anchors.ratios], scales=list(anchors.scales))
    return SSD(nn.Identity(), boxes, (1, 1), settings.classes + 1, head=nn.Identity(), iou_thresh=OBJECT)
