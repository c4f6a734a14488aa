"""Detections of single-stage detectors: of all anchors' classes and boxes those that are given out, as many for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.anchors import grids, level_anchors
from slimtrain.detection.fixed.coding import clipped, decoded, flat_level, leading, taken
from slimtrain.detection.fixed.detections import given_out
from slimtrain.detection.fixed.suppression import FixedPoint, Suppression
from slimtrain.models.detector import RETINA, DetectorSettings


class SingleStage(nn.Module):
    """What detections of RetinaNet and SSDLite have in common: they read class logits of every level, [B, A C, h, w] of
    RetinaNet and [B, A (C + 1), h, w] of SSDLite (0 is the background), then codes [B, 4 A, h, w] of every level."""

    def __init__(self, settings: DetectorSettings, image_size: ImageSize) -> None:
        super().__init__()
        self.settings, self.image_size = settings, image_size
        self.grids = grids(settings.anchors, image_size)
        self.columns = settings.classes + (0 if settings.kind == RETINA else 1)
        for level, anchors in enumerate(level_anchors(settings, image_size)):
            self.register_buffer(f"anchors{level}", anchors, persistent=False)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What it takes of an image, by the names of the dense graph's outputs."""
        counts = self.settings.anchors.counts
        shapes: dict[str, tuple[int, ...]] = {}
        for output, numbers in (("class_logits", self.columns), ("box_deltas", 4)):
            for level, (count, grid) in enumerate(zip(counts, self.grids, strict=True)):
                shapes[f"{output}{level}"] = (numbers * count, *grid)
        return shapes

    @property
    def level_sizes(self) -> list[int]:
        """The number of anchors of every level."""
        return [h * w * count for (h, w), count in zip(self.grids, self.settings.anchors.counts, strict=True)]

    def read(self, level: int, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Of a level logits [B, n, columns], codes [B, n, 4] and anchors [n, 4]."""
        logits, codes = maps[level], maps[len(self.grids) + level]
        return flat_level(logits, self.columns), flat_level(codes, 4), self.get_buffer(f"anchors{level}")

    def decoded(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes [..., 4] within the image."""
        convention = self.settings.convention
        box = decoded(codes, anchors, self.settings.box.weights, convention)
        return torch.stack(clipped(box, self.image_size, convention), -1)

    def large(self, boxes: Tensor) -> Tensor:
        """Which boxes [..., 4] have sides that count."""
        left, top, right, bottom = boxes.unbind(-1)
        least = self.settings.box.least_size
        return (right - left >= least) & (bottom - top >= least)


class RetinaDetections(SingleStage):
    """-> `boxes` [B, D, 4], `scores` [B, D] in descending order, `labels` [B, D] (from 1), `count` [B] of the rows that are
    detections (the others are zeros), `settled` [B].

    What torchvision's RetinaNet gives, where `settled`: NMS came to an end, and there were no more candidates than room for
    them, or enough detections among the best. Of equal logits the first count as the larger.
    """

    def __init__(self, settings: DetectorSettings, image_size: ImageSize, suppression: Suppression | None = None) -> None:
        super().__init__(settings, image_size)
        self.suppression = suppression or FixedPoint()

    @property
    def kept(self) -> int:
        """D."""
        rules, columns = self.settings.box, self.columns
        return min(rules.detections, sum(min(rules.top_k, count * columns) for count in self.level_sizes))

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        rules = self.settings.box
        parts = [self._level(*self.read(level, maps)) for level in range(len(self.grids))]
        boxes, scores, labels = (torch.cat([part[place] for part in parts], 1) for place in range(3))
        room = min(rules.candidates, scores.shape[1])
        crowded = (scores >= 0).to(scores.dtype).sum(1) > room
        scores, places = leading(scores, room)
        boxes, labels = taken(boxes, places), labels.gather(1, places)
        valid = ((scores >= 0) & self.large(boxes)).to(boxes.dtype)
        keep, settled = self.suppression(boxes, valid, labels, rules.nms)
        given = given_out(boxes, torch.where(keep > 0, scores, -1.0), labels, self.kept)
        return {**given, "settled": settled & ~(crowded & (given["count"] < self.kept))}

    def _level(self, logits: Tensor, codes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best candidates of a level: boxes [B, k, 4], scores [B, k], -1 of those below the threshold, labels [B, k]."""
        rules, every = self.settings.box, logits.shape[1] * self.columns
        logits, places = leading(logits.reshape(-1, every), min(rules.top_k, every))
        owners = torch.div(places, self.columns, rounding_mode="trunc")
        labels = places - owners * self.columns + 1
        scores = torch.sigmoid(logits)
        return (
            self.decoded(taken(codes, owners), anchors[owners]),
            torch.where(scores > rules.score, scores, -1.0),
            labels,
        )


class SsdDetections(SingleStage):
    """-> as `RetinaDetections`, of SSDLite. What torchvision's SSD gives, where NMS is `settled`: every class has its own
    candidates, and NMS is within each. Of equal scores the first count as the larger."""

    def __init__(self, settings: DetectorSettings, image_size: ImageSize, suppression: Suppression | None = None) -> None:
        super().__init__(settings, image_size)
        self.suppression = suppression or FixedPoint()

    @property
    def room(self) -> int:
        """Candidates of a class."""
        return min(self.settings.box.top_k, sum(self.level_sizes))

    @property
    def kept(self) -> int:
        """D."""
        return min(self.settings.box.detections, self.settings.classes * self.room)

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        rules, classes, room = self.settings.box, self.settings.classes, self.room
        parts = [self.read(level, maps) for level in range(len(self.grids))]
        logits, codes = (torch.cat([part[place] for part in parts], 1) for place in range(2))
        every = self.decoded(codes, torch.cat([anchors for _, _, anchors in parts]))
        scores, places = leading(F.softmax(logits, -1)[..., 1:].transpose(1, 2), room)  # [B, C, k]
        boxes = taken(every, places.reshape(-1, classes * room))
        above = ((scores > rules.score).reshape(-1, classes * room) & self.large(boxes)).to(boxes.dtype)
        # a class of an image is an image to NMS
        keep, settled = self.suppression(boxes.reshape(-1, room, 4), above.reshape(-1, room), None, rules.nms)
        kept = torch.where(keep.reshape(-1, classes * room) > 0, scores.reshape(-1, classes * room), -1.0)
        numbers = torch.arange(1, classes + 1, device=places.device)[:, None].expand(-1, room).reshape(1, -1)
        given = given_out(boxes, kept, numbers.expand(len(boxes), -1), self.kept)
        return {**given, "settled": settled.reshape(-1, classes).all(1)}


def of_single_stage(
    settings: DetectorSettings, image_size: ImageSize, suppression: Suppression | None = None
) -> RetinaDetections | SsdDetections:
    """What makes detections of a single-stage detector's outputs."""
    return (RetinaDetections if settings.kind == RETINA else SsdDetections)(settings, image_size, suppression)


class RawSingleStage(SingleStage):
    """-> `boxes` [B, N, 4] of all anchors within the image and `scores` [B, N, C]: for a consumer's own NMS."""

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        parts = [self.read(level, maps) for level in range(len(self.grids))]
        logits, codes = (torch.cat([part[place] for part in parts], 1) for place in range(2))
        boxes = self.decoded(codes, torch.cat([anchors for _, _, anchors in parts]))
        retina = self.settings.kind == RETINA
        return {"boxes": boxes, "scores": torch.sigmoid(logits) if retina else F.softmax(logits, -1)[..., 1:]}
