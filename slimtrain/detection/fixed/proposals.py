"""Proposals: of every position's boxes those that may hold an object, as many for each image (arXiv 1506.01497, sec. 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.anchors import grids, level_anchors
from slimtrain.detection.fixed.coding import clipped, decoded, flat_level, leading, rows_of, taken
from slimtrain.detection.fixed.suppression import FixedPoint, Suppression
from slimtrain.models.detector import DetectorSettings

PLAIN = (1.0, 1.0, 1.0, 1.0)  # weights of the codes


class Proposals(nn.Module):
    """Objectness [B, A, h, w] (logits) of every level, then codes [B, 4 A, h, w] of every level -> `rois` [B, P, 4] in
    descending order of probability, `valid` [B, P] (0 or 1; what is not is a box of zeros), `settled` [B], and `rows`
    [B P, 5], the RoIs as RoIAlign reads them.

    P is the number kept, or of all candidates where there are fewer. What torchvision's RegionProposalNetwork gives, where
    `settled`; of equal logits the first count as the larger.
    """

    def __init__(self, settings: DetectorSettings, image_size: ImageSize, suppression: Suppression | None = None) -> None:
        super().__init__()
        self.settings, self.image_size = settings, image_size
        self.suppression = suppression or FixedPoint()
        self.grids = grids(settings.anchors, image_size)
        for level, anchors in enumerate(level_anchors(settings, image_size)):
            self.register_buffer(f"anchors{level}", anchors, persistent=False)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """What it takes of an image, by the names of the dense graph's outputs."""
        counts = self.settings.anchors.counts
        shapes: dict[str, tuple[int, ...]] = {}
        for output, numbers in (("objectness", 1), ("deltas", 4)):
            for level, (count, grid) in enumerate(zip(counts, self.grids, strict=True)):
                shapes[f"{output}{level}"] = (numbers * count, *grid)
        return shapes

    @property
    def kept(self) -> int:
        """P."""
        rules = self.settings.proposals
        anchors = (height * width * n for (height, width), n in zip(self.grids, self.settings.anchors.counts, strict=True))
        return min(rules.kept, sum(min(rules.top_k, count) for count in anchors))

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        levels = len(self.grids)
        parts = [self._level(level, maps[level], maps[levels + level]) for level in range(levels)]
        boxes, scores = (torch.cat([part[place] for part in parts], 1) for place in range(2))
        settled = torch.stack([part[2] for part in parts], 1).all(1)
        scores, places = leading(scores, self.kept)
        valid = (scores >= 0).to(boxes.dtype)
        rois = taken(boxes, places) * valid.unsqueeze(-1)
        return {"rois": rois, "valid": valid, "settled": settled, "rows": rows_of(rois)}

    def _level(self, level: int, objectness: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [B, k, 4], probabilities [B, k], -1 of those that go, and whether NMS is settled."""
        rules, convention = self.settings.proposals, self.settings.convention
        anchors = self.get_buffer(f"anchors{level}")
        codes = flat_level(codes, 4)
        logits, places = leading(objectness.permute(0, 2, 3, 1).reshape(-1, len(anchors)), min(rules.top_k, len(anchors)))
        box = clipped(decoded(taken(codes, places), anchors[places], PLAIN, convention), self.image_size, convention)
        left, top, right, bottom = box
        boxes, scores = torch.stack(box, -1), torch.sigmoid(logits)
        large = (right - left >= rules.least_size) & (bottom - top >= rules.least_size)
        valid = (large & (scores >= rules.score)).to(boxes.dtype)
        keep, settled = self.suppression(boxes, valid, None, rules.nms)
        return boxes, torch.where(keep > 0, scores, -1.0), settled
