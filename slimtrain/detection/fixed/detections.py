"""Detections: of every proposal's classes and boxes those that are given out, as many for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.coding import clipped, decoded, leading, rows_of, taken
from slimtrain.detection.fixed.suppression import FixedPoint, Suppression
from slimtrain.models.detector import DetectorSettings


def detections_of(settings: DetectorSettings, proposals: int) -> int:
    """D, of an image with so many proposals."""
    return min(settings.box.detections, proposals * settings.classes)


def given_out(boxes: Tensor, scores: Tensor, labels: Tensor, kept: int) -> dict[str, Tensor]:
    """Of candidates [B, n], whose scores are -1 where they go, the best: `boxes` [B, kept, 4], `scores`, `labels`, and their
    `count` [B]. The rows behind are zeros."""
    scores, places = leading(scores, kept)
    there = scores >= 0
    return {
        "boxes": taken(boxes, places) * there.to(boxes.dtype).unsqueeze(-1),
        "scores": torch.where(there, scores, 0.0),
        "labels": torch.where(there, labels.gather(1, places), 0),
        "count": there.to(torch.int64).sum(1),
    }


class Detections(nn.Module):
    """RoIs [B, P, 4], which of them count [B, P], class logits [B P, C + 1] (0 is the background), codes [B P, 4 (C + 1)] ->
    `boxes` [B, D, 4], `scores` [B, D] in descending order, `labels` [B, D] (from 1), `count` [B] of the rows that are
    detections (the others are zeros), `settled` [B], and `rows` [B D, 5], the boxes as RoIAlign reads them.

    D is the number of detections, or P C where that is less. What torchvision's RoIHeads give, where `settled`: NMS came to an
    end, and there were no more candidates than room for them, or enough detections among the best.
    """

    def __init__(
        self, settings: DetectorSettings, image_size: ImageSize, proposals: int, suppression: Suppression | None = None
    ) -> None:
        super().__init__()
        self.settings, self.image_size, self.proposals = settings, image_size, proposals
        self.suppression = suppression or FixedPoint()

    def forward(self, rois: Tensor, valid: Tensor, class_logits: Tensor, box_deltas: Tensor) -> dict[str, Tensor]:
        rules, classes, convention = self.settings.box, self.settings.classes, self.settings.convention
        every = self.proposals * classes
        room = min(rules.candidates, every)
        scores = F.softmax(class_logits, -1).reshape(-1, self.proposals, classes + 1)[..., 1:]
        above = (scores > rules.score) & (valid.unsqueeze(-1) > 0)
        scores = torch.where(above, scores, -1.0).reshape(-1, every)
        crowded = above.reshape(-1, every).to(scores.dtype).sum(1) > room
        scores, places = leading(scores, room)
        owners = torch.div(places, classes, rounding_mode="trunc")
        labels = places - owners * classes + 1
        codes = taken(box_deltas.reshape(-1, self.proposals * (classes + 1), 4), owners * (classes + 1) + labels)
        box = clipped(decoded(codes, taken(rois, owners), rules.weights, convention), self.image_size, convention)
        left, top, right, bottom = box
        boxes = torch.stack(box, -1)
        large = (right - left >= rules.least_size) & (bottom - top >= rules.least_size)
        valid = (large & (scores >= 0)).to(boxes.dtype)
        keep, settled = self.suppression(boxes, valid, labels, rules.nms)
        kept = detections_of(self.settings, self.proposals)
        given = given_out(boxes, torch.where(keep > 0, scores, -1.0), labels, kept)
        settled = settled & ~(crowded & (given["count"] < kept))
        return {**given, "settled": settled, "rows": rows_of(given["boxes"])}


class RawDetections(nn.Module):
    """What `Detections` reads -> `boxes` [B, P, C, 4] within the image and `scores` [B, P, C], 0 of proposals that do not
    count: for a consumer's own NMS."""

    def __init__(self, settings: DetectorSettings, image_size: ImageSize, proposals: int) -> None:
        super().__init__()
        self.settings, self.image_size, self.proposals = settings, image_size, proposals

    def forward(self, rois: Tensor, valid: Tensor, class_logits: Tensor, box_deltas: Tensor) -> dict[str, Tensor]:
        rows, convention = self.settings.classes + 1, self.settings.convention
        scores = F.softmax(class_logits, -1).reshape(-1, self.proposals, rows)[..., 1:] * valid.unsqueeze(-1)
        codes = box_deltas.reshape(-1, self.proposals, rows, 4)[:, :, 1:]
        box = decoded(codes, rois.unsqueeze(2), self.settings.box.weights, convention)
        return {"boxes": torch.stack(clipped(box, self.image_size, convention), -1), "scores": scores}
