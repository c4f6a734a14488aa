"""Which detections of a single-stage detector hang on roundings: `regions.py` without proposals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from slimexport.detector_proof.choices import SCORE_MARGIN, Limits
from slimexport.detector_proof.exact import Exact
from slimexport.detector_proof.near.certainty import Uncertain, leading_for_certain
from slimexport.detector_proof.near.regions import Following, sigmoid_of
from slimexport.detector_proof.single_stage import anchor_limits, by_place
from slimexport.target.arrays import Array
from slimexport.target.near_equals import NearEquals
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.models.detector import RETINA, SSDLITE, DetectorSettings

EVERY = 2**31


def near_anchors(
    exact: Exact, settings: DetectorSettings, image_size: ImageSize, expected: dict[str, Array], tolerance: float
) -> NearEquals:
    """As `near_equals`."""
    return _AnchorsFollowed(exact, settings, image_size, tolerance).near_equals(expected)


class _AnchorsFollowed(Following):
    def limits(self) -> Limits:
        """Of SSDLite the best of every class are taken before, by `_of_classes`."""
        limits = anchor_limits(self.settings, self.image_size)
        return replace(limits, room=EVERY, apart=False) if limits.apart else limits

    def candidates(self) -> Iterator[tuple[Uncertain, Array, Array]]:
        every = [anchors.double() for anchors in level_anchors(self.settings, self.image_size)]
        columns = self.settings.classes + (self.settings.kind == SSDLITE)
        logits = [by_place(self.exact.first[f"class_logits{level}"], columns) for level in range(len(every))]
        codes = torch.cat([by_place(self.exact.first[f"box_deltas{level}"], 4) for level in range(len(every))], 1)
        anchors = torch.cat(every)
        of_image = self._of_levels if self.settings.kind == RETINA else self._of_classes
        for image in range(len(codes)):
            places, numbers, low, high, scores, there = of_image([level[image].numpy() for level in logits])
            boxes = self.boxes_of(codes[image, places], anchors[places], self.settings.box.weights)
            yield Uncertain(boxes, self.pixels, low, high, numbers + 1, there), boxes, scores

    def _of_levels(self, logits: list[Array]) -> tuple[Array, ...]:
        """RetinaNet's, by the logits [n, C] of every level: anchors, classes, what scores are at least and at most and in
        float64, and which are among the best of their level for certain."""
        parts, offset = [], 0
        for level in logits:
            own, margin = level.reshape(-1), self.tolerance * float(np.abs(level).max())
            all_of = np.ones(len(own), bool)
            best = leading_for_certain(own - margin, own + margin, all_of, all_of, self.settings.box.top_k)
            low, high = sigmoid_of(own - margin) - SCORE_MARGIN, sigmoid_of(own + margin) + SCORE_MARGIN
            (places,) = (~best.go & (high >= self.settings.box.score)).nonzero()
            owners, numbers = np.divmod(places, level.shape[1])
            parts.append((offset + owners, numbers, low[places], high[places], sigmoid_of(own[places]), best.stay[places]))
            offset += len(level)
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _of_classes(self, logits: list[Array]) -> tuple[Array, ...]:
        """The same of SSDLite, by class: probabilities are off by their share of twice what logits are."""
        joined = np.concatenate(logits)
        off = 2 * self.tolerance * float(np.abs(joined).max())
        scores = F.softmax(torch.from_numpy(joined), -1)[:, 1:].numpy()
        low, high = scores * np.exp(-off) - SCORE_MARGIN, scores * np.exp(off) + SCORE_MARGIN
        all_of, parts = np.ones(len(scores), bool), []
        for number in range(scores.shape[1]):
            best = leading_for_certain(low[:, number], high[:, number], all_of, all_of, self.settings.box.top_k)
            (places,) = (~best.go & (high[:, number] >= self.settings.box.score)).nonzero()
            own = (column[places, number] for column in (low, high, scores))
            parts.append((places, np.full(len(places), number), *own, best.stay[places]))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
