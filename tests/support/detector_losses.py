"""torchvision's parts of detectors, and targets, that losses are held against."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from slimtrain.data.detection.targets import Targets
from slimtrain.detection.losses.two_stage import Sampling
from slimtrain.models.detector import (
    KEYPOINT,
    MASK,
    Anchors,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
    ProposalSettings,
)

SIZE, CHANNELS, CLASSES, POINTS = 64, 8, 3, 4
ANCHORS = Anchors(((12,), (24,), (48,)), ((0.5, 1.0, 2.0),) * 3, (8, 16, 32))
SAMPLING = Sampling(rpn_sampled=64, top_k=150, kept=100, box_sampled=32)


def settings_of(kind: str) -> DetectorSettings:
    return DetectorSettings(
        CLASSES,
        kind,
        ANCHORS,
        ProposalSettings(top_k=150, kept=100),
        mask=MaskSettings() if kind == MASK else None,
        keypoints=KeypointSettings(count=POINTS) if kind == KEYPOINT else None,
    )


def targets_of(counts: list[int], crowds: int = 0) -> list[Targets]:
    """So many objects of each image, of which the last ones are crowds."""
    draw = torch.Generator().manual_seed(5)
    images = []
    for count in counts:
        corner = torch.rand(count, 2, generator=draw) * (SIZE - 24)
        boxes = torch.cat([corner, corner + 8 + 16 * torch.rand(count, 2, generator=draw)], 1)
        masks = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[top:bottom, left:right] = torch.rand(bottom - top, right - left, generator=draw) < 0.7
        places = boxes[:, None, :2] + torch.rand(count, POINTS, 2, generator=draw) * (boxes[:, None, 2:] - boxes[:, None, :2])
        points = torch.cat([places, torch.randint(0, 3, (count, POINTS, 1), generator=draw).float()], 2)
        labels = torch.randint(1, CLASSES + 1, (count,), generator=draw)
        crowd = torch.arange(count) >= count - crowds
        images.append(Targets(SIZE, SIZE, boxes, labels, crowd, masks.sum((1, 2)).float(), 0, masks, points))
    return images


class Heads(nn.Module):
    """The parts of torchvision's detectors behind a pyramid of three levels."""

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        torch.manual_seed(1)
        pool = [MultiScaleRoIAlign(["0", "1"], size, 2) for size in (7, 14, 14)]
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(ANCHORS.sizes, ANCHORS.ratios),
            RPNHead(CHANNELS, 3),
            0.7,
            0.3,
            SAMPLING.rpn_sampled,
            0.5,
            {"training": 150, "testing": 150},
            {"training": 100, "testing": 100},
            0.7,
        )
        self.roi = RoIHeads(
            pool[0],
            TwoMLPHead(CHANNELS * 49, 16),
            FastRCNNPredictor(16, CLASSES + 1),
            0.5,
            0.5,
            SAMPLING.box_sampled,
            0.25,
            (10.0, 10.0, 5.0, 5.0),
            0.05,
            0.5,
            100,
        )
        if settings.mask is not None:
            self.roi.mask_roi_pool, self.roi.mask_head = pool[1], MaskRCNNHeads(CHANNELS, (8,), 1)
            self.roi.mask_predictor = MaskRCNNPredictor(8, 8, CLASSES + 1)
        if settings.keypoints is not None:
            self.roi.keypoint_roi_pool, self.roi.keypoint_head = pool[2], KeypointRCNNHeads(CHANNELS, (8,))
            self.roi.keypoint_predictor = KeypointRCNNPredictor(8, POINTS)

    def first(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, deltas = self.rpn.head(list(maps.values()))
        return {f"objectness{i}": level for i, level in enumerate(logits)} | {f"deltas{i}": x for i, x in enumerate(deltas)}

    def second(self, maps: dict[str, Tensor], rois: Tensor, mask_rois: Tensor, images: int) -> dict[str, Tensor]:
        sizes = [(SIZE, SIZE)] * images
        boxes, objects = ([rows[rows[:, 0] == image, 1:] for image in range(images)] for rows in (rois, mask_rois))
        classes, deltas = self.roi.box_predictor(self.roi.box_head(self.roi.box_roi_pool(maps, boxes, sizes)))
        outputs = {"class_logits": classes, "box_deltas": deltas}
        for name in ("mask", "keypoint"):
            if getattr(self.roi, f"{name}_roi_pool") is not None:
                head, predictor = getattr(self.roi, f"{name}_head"), getattr(self.roi, f"{name}_predictor")
                outputs[f"{name}_logits"] = predictor(head(getattr(self.roi, f"{name}_roi_pool")(maps, objects, sizes)))
        return outputs


def maps_of(images: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(2)
    sides = {"0": 8, "1": 4, "pool": 2}
    return OrderedDict(
        (name, torch.randn(images, CHANNELS, side, side, generator=draw).requires_grad_()) for name, side in sides.items()
    )
