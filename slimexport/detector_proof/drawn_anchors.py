"""Outputs of a single-stage detector's heads, drawn so that every rule of choosing among boxes decides something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimexport.detector_proof.drawn import BLOCK, SEED, UNLIKELY
from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.single_stage import SingleStage
from slimtrain.models.detector import SSDLITE, DetectorSettings

LEAST_SCORE, LEAST_SIDE = 1e-3, 1e-3
FEW, MANY, MORE = 3, 2, 1.5  # next to what is given out, or looked at


@dataclass(frozen=True)
class _Kind:
    """How many entries of an image are above the threshold, of which level, and of which class, by their numbers: None of
    all. `spread`: of their logits. `usual`, `odd`: how far boxes are from their anchors, and the share of those that are far
    from them, or small."""

    above: int
    spread: float
    usual: float
    odd: float = 0.1
    level: int | None = None
    label: int | None = None

    @property
    def hill(self) -> bool:
        """Whether all that is likely is near one place."""
        return not self.odd


def anchor_sets(settings: DetectorSettings) -> int:
    """How many kinds of sets there are."""
    return len(_kinds(settings))


def _kinds(settings: DetectorSettings) -> list[_Kind]:
    """More than may be given out of all levels; fewer, of each level alone; more than are looked at of a class at one level,
    which overlap so much that few are given out."""
    rules, ssd = settings.box, settings.kind == SSDLITE
    looked_at = rules.top_k if ssd else min(rules.top_k, rules.candidates)
    plenty = MANY * rules.detections if ssd else min(MANY * rules.detections, rules.candidates)
    crowd = int(MORE * looked_at) if ssd else min(int(MORE * looked_at), rules.candidates)
    few = [_Kind(max(1, rules.detections // FEW), 0.7, 0.3, level=level) for level in range(settings.anchors.levels)]
    return [_Kind(plenty, 2.0, 0.1), *few, _Kind(crowd, 2.0, 0.02, 0.0, level=0, label=0)]


def drawn_anchors(settings: DetectorSettings, image_size: ImageSize, images: int, number: int) -> dict[str, Array]:
    """`class_logits0`, ..., `box_deltas0`, ..., float32: overlaps of every size, boxes beyond the image, others next to
    nothing, sides that grow more than they may, scores on both sides of the threshold. Of `anchor_sets` kinds that is the one
    of this `number`."""
    draw, kind = np.random.default_rng((SEED, number)), _kinds(settings)[number]
    form = SingleStage(settings, image_size)
    counts, grids = settings.anchors.counts, form.grids
    drawn = [
        _patches(draw, (images, count, settings.classes, *grid), kind.hill) for count, grid in zip(counts, grids, strict=True)
    ]
    for level, logits in enumerate(drawn):
        if kind.level not in (None, level):
            logits[:] = -np.inf
        if kind.label is not None:
            logits[:, :, np.arange(settings.classes) != kind.label] = -np.inf
    _place(drawn, kind, settings.box.score)
    if settings.kind == SSDLITE:  # next to a background of 0
        drawn = [np.concatenate([np.zeros_like(logits[:, :, :1]), logits], 2) for logits in drawn]
    values = {f"class_logits{level}": _as_map(logits) for level, logits in enumerate(drawn)}
    weights = np.array(settings.box.weights).reshape(4, 1, 1)
    small = max(settings.box.least_size / 4, LEAST_SIDE)
    for level, (count, (height, width), stride) in enumerate(zip(counts, grids, settings.anchors.strides, strict=True)):
        codes = _codes(draw, (images, count, height, width), small / stride, kind)
        values[f"box_deltas{level}"] = _as_map(codes * weights)
    return {name: array.astype(np.float32) for name, array in values.items()}


def _place(drawn: Sequence[Array], kind: _Kind, score: float) -> None:
    """Move the logits of all levels, image by image, so that as many are above the threshold as there should be."""
    score = min(max(score, LEAST_SCORE), 1 - LEAST_SCORE)
    centre = math.log(score / (1 - score))
    for image in range(len(drawn[0])):
        every = np.concatenate([logits[image].ravel() for logits in drawn])
        counted = np.sort(every[np.isfinite(every)])
        last = len(counted) - min(kind.above, max(1, len(counted) // 2))
        between = counted[max(last - 1, 0) : last + 1].mean()
        for logits in drawn:
            placed = centre + kind.spread * (logits[image] - between)
            logits[image] = np.where(np.isfinite(placed), placed, UNLIKELY)


def _patches(draw: np.random.Generator, shape: tuple[int, ...], hill: bool) -> Array:
    """Numbers [B, A, C, h, w] that are much alike within blocks of places, or fall from a place on."""
    images, _, classes, height, width = shape
    if hill:
        down, along = np.indices((height, width), np.float32)
        return np.asarray(-np.hypot(down - height // 2, along - width // 2) + 0.5 * draw.standard_normal(shape, np.float32))
    coarse = draw.standard_normal((images, 1, classes, -(-height // BLOCK), -(-width // BLOCK)), np.float32)
    blocks = coarse.repeat(BLOCK, -2).repeat(BLOCK, -1)[..., :height, :width]
    return np.asarray(blocks + 0.5 * draw.standard_normal(shape, np.float32))


def _codes(draw: np.random.Generator, shape: tuple[int, ...], small: float, kind: _Kind) -> Array:
    """Of boxes [B, A, 4, h, w]: mostly near their anchors, some far, some shrunk to about `small` of them."""
    codes = kind.usual * draw.standard_normal((*shape, 4))
    codes[draw.random(shape) < kind.odd] *= 3 / kind.usual
    shrunk = draw.random(shape) < kind.odd
    codes[shrunk, 2:] = np.log(small) + draw.standard_normal((int(shrunk.sum()), 2))
    return np.moveaxis(codes, -1, 2)


def _as_map(values: Array) -> Array:
    """[B, A, n, h, w] as heads give it: [B, A n, h, w]."""
    return values.reshape(len(values), -1, *values.shape[-2:])
