"""Losses of Faster R-CNN (arXiv 1506.01497) and of what stands on it: a mask head (1703.06870, sec. 3) or one of keypoints.

A step of training has two parts. The first gives every level's objectness and codes; what these propose, and some of what is
there, are the regions of the second, drawn at random. Both parts are the detector's, at a plan; what stands between is here.
Matching, sampling and losses are torchvision's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, keypointrcnn_loss, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from slimtrain.base.image_size import ImageSize
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.losses.outputs import Outputs, as_read, flat, levels_of
from slimtrain.models.detector import DetectorSettings


@dataclass(frozen=True)
class Sampling:
    """Which anchors and regions losses are of; the defaults are torchvision's, and those of the published training.

    An anchor is an object's where their IoU is `rpn_object` or more, or none is nearer, and background below `rpn_background`;
    of an image `rpn_sampled` count, at most the share `rpn_positive` of them objects'. Of a level `top_k` proposals go into
    NMS, of all `kept` come out. A region is an object's from an IoU of `box_object` on; `box_sampled` of an image count, at
    most the share `box_positive` of them objects'.
    """

    rpn_object: float = 0.7
    rpn_background: float = 0.3
    rpn_sampled: int = 256
    rpn_positive: float = 0.5
    top_k: int = 2000
    kept: int = 2000
    box_object: float = 0.5
    box_sampled: int = 512
    box_positive: float = 0.25


@dataclass(frozen=True)
class Regions:
    """What the second part is computed on, and what it should give. `rois` [R, 5], `mask_rois` [M, 5]: those that are
    objects', of images in their order: (image, x1, y1, x2, y2). The rest is of each image."""

    rois: Tensor
    mask_rois: Tensor
    labels: list[Tensor]
    codes: list[Tensor]
    object_boxes: list[Tensor]  # of `mask_rois`
    objects: list[Tensor]  # which object each of these is


class TwoStageLosses:
    """The losses of a detector of `settings`. Random numbers are torch's."""

    def __init__(self, settings: DetectorSettings, sampling: Sampling | None = None) -> None:
        self.settings = settings
        self.sampling = sampling = sampling or Sampling()
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(settings.anchors.sizes, settings.anchors.ratios),
            nn.Identity(),
            sampling.rpn_object,
            sampling.rpn_background,
            sampling.rpn_sampled,
            sampling.rpn_positive,
            {"training": sampling.top_k, "testing": settings.proposals.top_k},
            {"training": sampling.kept, "testing": settings.proposals.kept},
            settings.proposals.nms,
            settings.proposals.score,
        )
        self.rpn.min_size = settings.proposals.least_size
        self.heads = RoIHeads(
            None,
            None,
            None,
            sampling.box_object,
            sampling.box_object,
            sampling.box_sampled,
            sampling.box_positive,
            settings.box.weights,
            settings.box.score,
            settings.box.nms,
            settings.box.detections,
        )

    def first(
        self, outputs: Outputs, padded: ImageSize, sizes: Sequence[tuple[int, int]], targets: Sequence[Targets]
    ) -> tuple[dict[str, Tensor], Regions]:
        """The losses of the first part, and the regions of the second. `padded`: the sides of the batch's images; `sizes`:
        height and width of what is image in each."""
        logits, codes = levels_of(outputs, "objectness"), levels_of(outputs, "deltas")
        objectness, deltas = flat(logits, codes)
        levels = [level.to(deltas) for level in level_anchors(self.settings, padded)]
        anchors = [torch.cat(levels)] * len(targets)
        wanted = as_read(targets, deltas.device)
        with torch.no_grad():
            boxes = self.rpn.box_coder.decode(deltas.reshape(-1, 4), anchors).reshape(len(targets), -1, 4)
            proposals, _ = self.rpn.filter_proposals(boxes, objectness, list(sizes), [len(level) for level in levels])
        labels, matched = self.rpn.assign_targets_to_anchors(anchors, wanted)
        right = self.rpn.box_coder.encode(matched, anchors)
        of_objectness, of_boxes = self.rpn.compute_loss(objectness.reshape(-1, 1), deltas.reshape(-1, 4), labels, right)
        return {"objectness": of_objectness, "proposals": of_boxes}, self._regions(proposals, wanted)

    @torch.no_grad()
    def _regions(self, proposals: list[Tensor], wanted: list[dict[str, Tensor]]) -> Regions:
        boxes, matched, labels, codes = self.heads.select_training_samples(proposals, wanted)
        are_objects = [of_image > 0 for of_image in labels]
        object_boxes = [of_image[chosen] for of_image, chosen in zip(boxes, are_objects, strict=True)]
        return Regions(
            rows(boxes),
            rows(object_boxes),
            labels,
            list(codes),
            object_boxes,
            [of_image[chosen] for of_image, chosen in zip(matched, are_objects, strict=True)],
        )

    def second(self, outputs: Outputs, regions: Regions, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """The losses of the second part, of its outputs at `regions`."""
        of_classes, of_boxes = fastrcnn_loss(outputs["class_logits"], outputs["box_deltas"], regions.labels, regions.codes)
        losses = {"classes": of_classes, "boxes": of_boxes}
        wanted = as_read(targets, of_classes.device)
        if self.settings.mask is not None:
            losses["masks"] = maskrcnn_loss(
                outputs["mask_logits"],
                regions.object_boxes,
                [image["masks"] for image in wanted],
                [image["labels"] for image in wanted],
                regions.objects,
            )
        if self.settings.keypoints is not None:
            losses["keypoints"] = keypointrcnn_loss(
                outputs["keypoint_logits"].contiguous(),  # in whichever layout the network ran
                regions.object_boxes,
                [image["keypoints"] for image in wanted],
                regions.objects,
            )
        return losses


def rows(boxes: Sequence[Tensor]) -> Tensor:
    """Each image's boxes [n, 4] as RoIAlign reads them: [all, 5], the image's number first."""
    images = [torch.full((len(of_image), 1), float(number)).to(of_image) for number, of_image in enumerate(boxes)]
    return torch.cat([torch.cat(pair, 1) for pair in zip(images, boxes, strict=True)])
