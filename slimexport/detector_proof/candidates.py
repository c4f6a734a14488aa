"""What a detector chooses its proposals and its detections from, in float64, and how far float32 may have it off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimexport.detector_proof.choices import LEEWAY, ROUNDING, Candidates, Limits
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.fixed.coding import clipped, decoded, leading
from slimtrain.detection.fixed.detections import detections_of
from slimtrain.detection.fixed.proposals import PLAIN, Proposals
from slimtrain.models.detector import DetectorSettings

NEAR_THRESHOLD = 1e-3  # below a detection's least score: what may be one by roundings is among these


def proposal_limits(settings: DetectorSettings, image_size: ImageSize) -> Limits:
    rules = settings.proposals
    every = 2**31
    return Limits(rules.score, rules.least_size, rules.nms, Proposals(settings, image_size).kept, every, inclusive=True)


def proposal_candidates(settings: DetectorSettings, image_size: ImageSize, maps: Mapping[str, Tensor]) -> list[Candidates]:
    """Of every image, by the `objectness0`, ... and `deltas0`, ... of all levels [B, ...] in float64. Groups are levels; the
    best of each are found by numbers that both sides have alike, so that their order is exact."""
    parts = []
    for level, anchors in enumerate(level_anchors(settings, image_size)):
        objectness, deltas = maps[f"objectness{level}"], maps[f"deltas{level}"]
        images, count, *grid = objectness.shape
        logits = objectness.permute(0, 2, 3, 1).reshape(images, -1)
        codes = deltas.reshape(images, count, 4, *grid).permute(0, 3, 4, 1, 2).reshape(images, -1, 4)
        best, places = leading(logits, min(settings.proposals.top_k, logits.shape[1]))
        chosen = codes.gather(1, places.unsqueeze(-1).expand(-1, -1, 4))
        boxes, margins = boxes_of(settings, image_size, chosen, anchors.double()[places], PLAIN)
        rank = torch.arange(best.shape[1]).expand(images, -1)
        parts.append((boxes, margins, torch.sigmoid(best), torch.full_like(rank, level), rank))
    columns = [torch.cat(column, 1).numpy() for column in zip(*parts, strict=True)]
    return [Candidates(*(column[image] for column in columns)) for image in range(len(columns[0]))]


def detection_limits(settings: DetectorSettings, image_size: ImageSize) -> Limits:
    rules, proposals = settings.box, Proposals(settings, image_size).kept
    return Limits(rules.score, rules.least_size, rules.nms, detections_of(settings, proposals), rules.candidates)


def detection_candidates(
    settings: DetectorSettings, image_size: ImageSize, rois: Tensor, class_logits: Tensor, box_deltas: Tensor
) -> list[Candidates]:
    """Of every image, by RoIs [B, P, 4] in float64 (those that do not count are without a size), class logits [B P, C + 1] and
    codes [B P, 4 (C + 1)]. Groups are classes."""
    images, proposals = rois.shape[:2]
    classes = settings.classes
    scores = F.softmax(class_logits, -1).reshape(images, proposals, classes + 1)[..., 1:]
    codes = box_deltas.reshape(images, proposals, classes + 1, 4)[:, :, 1:]
    valid = rois[..., 2] > rois[..., 0]
    result = []
    for image in range(images):
        near = (scores[image] > settings.box.score - NEAR_THRESHOLD) & valid[image, :, None]
        owners, numbers = near.nonzero(as_tuple=True)
        boxes, margins = boxes_of(settings, image_size, codes[image][near], rois[image][owners], settings.box.weights)
        result.append(Candidates(boxes.numpy(), margins.numpy(), scores[image][near].numpy(), (numbers + 1).numpy()))
    return result


def crowded(settings: DetectorSettings, candidates: Candidates) -> bool:
    """Whether more candidates have scores above the least than there is room for."""
    return int(np.sum(candidates.scores > settings.box.score)) > settings.box.candidates


def boxes_of(
    settings: DetectorSettings, image_size: ImageSize, codes: Tensor, boxes: Tensor, weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Boxes [..., 4] of codes relative to `boxes`, within the image, and the margin of each [...]: roundings are as large as
    the largest number that was added up."""
    corners = decoded(codes, boxes, weights, settings.convention)
    largest = torch.stack([corner.abs() for corner in corners], -1).amax(-1)
    added = largest + boxes.abs().amax(-1) + float(max(sides(image_size)))
    exact = torch.stack(clipped(corners, image_size, settings.convention), -1)
    return exact, LEEWAY * ROUNDING * added
