"""Which detections on images hang on roundings, by the slimmable network in float64.

Numbers of a right file are within a tolerance of float64's. So whatever it proposes is among what float64 proposes or might,
and whatever it detects among what that leads to: here all of it is followed from the maps to the detections, and what is
certain is told from what is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from slimexport.detector_proof.candidates import detection_limits, proposal_limits
from slimexport.detector_proof.choices import SCORE_MARGIN, Limits
from slimexport.detector_proof.exact import Exact
from slimexport.detector_proof.near.certainty import Certain, Uncertain, certain, leading_for_certain
from slimexport.target.arrays import Array
from slimexport.target.near_equals import COLUMNS, MOST_NUMBERS, NearEquals
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.fixed.coding import clipped, decoded
from slimtrain.detection.fixed.proposals import PLAIN
from slimtrain.detection.regions import CANONICAL_SIZE, CANONICAL_STRIDE
from slimtrain.models.detector import DetectorSettings

NEAR_SHARE = 0.2  # of what a file's numbers may be off by: right ones of float32 are off by a hundredth
SAME = 1e-6  # of the longer side, and of scores: one row of the same numbers
POINT_LEEWAY = 2.0 / NEAR_SHARE  # times the tolerance: what is highest, and what stands elsewhere, may both be off


@dataclass(frozen=True)
class Proposed:
    """Regions [n, 4] that an image may have, and which it has for certain [n]."""

    regions: Array
    there: Array


def near_equals(
    exact: Exact, settings: DetectorSettings, image_size: ImageSize, expected: dict[str, Array], tolerance: float
) -> NearEquals:
    """Of the images of `exact`, whose detections are `expected` (`boxes` [P, D, 4], ...). `tolerance`: of maps relative to
    their scale, of scores, and of boxes as a share of the images' longer side; within NEAR_SHARE of it two are near-equal."""
    return _RegionsFollowed(exact, settings, image_size, tolerance).near_equals(expected)


class Following(ABC):
    """What leads to detections, followed from the maps on. `tolerance`: as of `near_equals`."""

    def __init__(self, exact: Exact, settings: DetectorSettings, image_size: ImageSize, tolerance: float) -> None:
        self.exact, self.settings, self.image_size, self.tolerance = exact, settings, image_size, NEAR_SHARE * tolerance
        self.pixels = self.tolerance * max(sides(image_size))

    @abstractmethod
    def limits(self) -> Limits:
        """What detections are chosen by."""

    @abstractmethod
    def candidates(self) -> Iterator[tuple[Uncertain, Array, Array]]:
        """What each image's detections are chosen from; boxes and scores as float64 has them."""

    def near_equals(self, expected: dict[str, Array]) -> NearEquals:
        """Of all images, whose detections are `expected`."""
        open_, others = np.zeros(expected["scores"].shape, bool), []
        for image, (given, boxes, scores) in enumerate(self.candidates()):
            chosen = certain(given, self.limits())
            rows = self._rows(image, expected, given, boxes, scores)
            for place, row in enumerate(rows):
                open_[image, place] = row < 0 or not chosen.stay[row]
            rest = ~chosen.go
            rest[rows[rows >= 0]] = False
            if rest.any():
                numbers = [np.full(rest.sum(), image), given.groups[rest], scores[rest], *boxes[rest].T]
                others.append(np.stack(numbers, 1).astype(np.float64))
        joined = np.concatenate([np.zeros((0, COLUMNS)), *others])
        best = np.sort(np.argsort(-joined[:, 2], kind="stable")[: MOST_NUMBERS // COLUMNS])
        low, high = self.places(expected) if "keypoints" in expected else (None, None)
        return NearEquals(open_, joined[best], low, high)

    def boxes_of(self, codes: torch.Tensor, boxes: torch.Tensor, weights: tuple[float, ...]) -> Array:
        """The boxes [n, 4] that codes [n, 4] say, within the image."""
        corners = decoded(codes, boxes, weights, self.settings.convention)
        return np.asarray(torch.stack(clipped(corners, self.image_size, self.settings.convention), -1).numpy())

    def _rows(self, image: int, expected: dict[str, Array], given: Uncertain, boxes: Array, scores: Array) -> Array:
        """Which candidate each row of the reference is, -1 where it is none."""
        rows = []
        for row in range(int(expected["count"][image])):
            alike = given.groups == expected["labels"][image, row]
            off = np.abs(boxes - expected["boxes"][image, row]).max(1, initial=0.0) / max(sides(self.image_size))
            off = np.where(alike, np.maximum(off, np.abs(scores - expected["scores"][image, row])), np.inf)
            best = int(off.argmin()) if len(off) else -1
            rows.append(best if best >= 0 and off[best] <= SAME else -1)
        return np.array(rows, np.int64)

    def places(self, expected: dict[str, Array]) -> tuple[Array, Array]:
        """The corners of what is as good as highest of every keypoint, [P, D, K, 2] each."""
        points, boxes = expected["keypoints"], expected["boxes"]
        low, high = points[..., :2].copy(), points[..., :2].copy()
        margin = POINT_LEEWAY * self.tolerance * float(np.abs(expected["keypoint_scores"]).max())
        for image, count in enumerate(expected["count"]):
            own = boxes[image, :count]
            for row, maps in enumerate(self.exact.points_of(np.pad(own, ((0, 0), (1, 0)), constant_values=image))):
                corners = _highest(maps, own[row], margin)
                low[image, row] = np.minimum(low[image, row], corners[0])
                high[image, row] = np.maximum(high[image, row], corners[1])
        return low, high


class _RegionsFollowed(Following):
    """Through the proposals of a two-stage detector."""

    # -- proposals

    def proposed(self) -> list[Proposed]:
        """What each image may have for proposals."""
        levels = [self._level(level) for level in range(len(self.settings.anchors.strides))]
        limits = proposal_limits(self.settings, self.image_size)
        result = []
        for of_image in zip(*levels, strict=True):
            boxes, low, high, stay = (np.concatenate(parts) for parts in zip(*of_image, strict=True))
            best = leading_for_certain(low, high, stay, np.ones(len(low), bool), limits.count)
            result.append(Proposed(boxes[~best.go], (stay & best.stay)[~best.go]))
        return result

    def _level(self, level: int) -> list[tuple[Array, Array, Array, Array]]:
        """Of every image what may stay: boxes, the least and the most that their probabilities are, which stay for certain."""
        objectness, deltas = self.exact.first[f"objectness{level}"], self.exact.first[f"deltas{level}"]
        images, count, *grid = objectness.shape
        logits = objectness.permute(0, 2, 3, 1).reshape(images, -1).numpy()
        codes = deltas.reshape(images, count, 4, *grid).permute(0, 3, 4, 1, 2).reshape(images, -1, 4)
        anchors = level_anchors(self.settings, self.image_size)[level].double()
        margin = self.tolerance * float(np.abs(logits).max())
        limits = proposal_limits(self.settings, self.image_size)
        every = replace(limits, score=-np.inf, count=2**31, room=2**31)
        result = []
        for own, own_codes in zip(logits, codes, strict=True):
            all_of = np.ones(len(own), bool)
            best = leading_for_certain(own - margin, own + margin, all_of, all_of, self.settings.proposals.top_k)
            (chosen,) = (~best.go).nonzero()
            boxes = self.boxes_of(own_codes[chosen], anchors[chosen], PLAIN)
            low, high = own[chosen] - margin, own[chosen] + margin
            likely = [sigmoid_of(edge) + off for edge, off in ((low, -SCORE_MARGIN), (high, SCORE_MARGIN))]
            groups = np.zeros(len(chosen), np.int64)
            kept = certain(Uncertain(boxes, self.pixels, low, high, groups, best.stay[chosen]), every)
            kept = Certain(kept.stay & (likely[0] >= limits.score), kept.go | (likely[1] < limits.score))
            left = ~kept.go
            result.append((boxes[left], likely[0][left], likely[1][left], kept.stay[left]))
        return result

    # -- detections

    def limits(self) -> Limits:
        return detection_limits(self.settings, self.image_size)

    def candidates(self) -> Iterator[tuple[Uncertain, Array, Array]]:
        for image, proposed in enumerate(self.proposed()):
            yield self._detections(image, proposed)

    def _detections(self, image: int, proposed: Proposed) -> tuple[Uncertain, Array, Array]:
        regions, there = self._on_both_levels(proposed)
        logits, codes = self._heads(image, regions)
        rows = self.settings.classes + 1
        scores = F.softmax(logits, -1)[:, 1:].numpy()
        owners, numbers = (scores > self.settings.box.score - self.tolerance).nonzero()
        own = codes.reshape(-1, rows, 4)[owners, numbers + 1]
        boxes = self.boxes_of(own, torch.from_numpy(regions[owners]), self.settings.box.weights)
        picked = scores[owners, numbers]
        low, high = picked - self.tolerance, picked + self.tolerance
        return Uncertain(boxes, self.pixels, low, high, numbers + 1, there[owners]), boxes, picked

    def _on_both_levels(self, proposed: Proposed) -> tuple[Array, Array]:
        """Regions that roundings may pool from another level of the pyramid, as they are and as those of that level."""
        regions, there = proposed.regions, proposed.there.copy()
        lengths = regions[:, 2:] - regions[:, :2]
        strides = self.settings.anchors.strides
        levels = len(strides) - self.settings.extra_levels
        with np.errstate(divide="ignore", invalid="ignore"):
            share = 2 * self.pixels / lengths.min(1)  # that a side may be off by
            level = np.log2(np.sqrt(lengths.prod(1)) / CANONICAL_SIZE * CANONICAL_STRIDE / strides[0])
            nearest = np.rint(level)
            edges = (np.abs(level - nearest) < 1.5 * share) & (nearest > 0) & (nearest < levels)
        there &= ~edges
        more = []
        for factor in (-1, 1):
            grown = lengths[edges] * (factor * share[edges])[:, None]
            more.append(np.concatenate([regions[edges, :2] - grown / 2, regions[edges, 2:] + grown / 2], 1))
        return np.concatenate([regions, *more]), np.concatenate([there, np.zeros(2 * int(edges.sum()), bool)])

    def _heads(self, image: int, regions: Array) -> tuple[torch.Tensor, torch.Tensor]:
        numbered = np.pad(regions, ((0, 0), (1, 0)), constant_values=image)
        outputs = self.exact.second(numbered)
        return outputs["class_logits"], outputs["box_deltas"]


def _highest(maps: torch.Tensor, box: Array, margin: float) -> tuple[Array, Array]:
    """The corners [K, 2] of the pixels of a box whose maps [K, s, s] are within a margin of the highest."""
    lengths = np.maximum(box[2:] - box[:2], 1)
    width, height = (int(count) for count in np.ceil(lengths))
    enlarged = F.interpolate(maps[None], size=(height, width), mode="bicubic", align_corners=False)[0]
    near = enlarged >= enlarged.amax((1, 2), keepdim=True) - margin
    edges = []
    for length, count, begin, lines in (
        (lengths[0], width, box[0], near.any(1).numpy()),
        (lengths[1], height, box[1], near.any(2).numpy()),
    ):
        first, last = lines.argmax(1), count - 1 - lines[:, ::-1].argmax(1)
        edges.append([begin + (place + 0.5) * length / count for place in (first, last)])
    return np.stack([edges[0][0], edges[1][0]], 1), np.stack([edges[0][1], edges[1][1]], 1)


def sigmoid_of(x: Array) -> Array:
    return np.asarray(torch.sigmoid(torch.from_numpy(x)).numpy())
