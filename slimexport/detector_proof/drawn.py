"""Outputs of a detector's learned parts, drawn so that every rule of choosing among boxes decides something."""

from __future__ import annotations

import numpy as np

from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import detections_of
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.models.detector import DetectorSettings

SETS = 6
SEED = 5
BLOCK = 4  # places a side that are about as likely: the best of a level overlap
WIDE = 0.1  # share of codes that are far from 0
SMALL = 0.1  # share of boxes that are about as small as a box may be
UNLIKELY = -12.0
LEAST_SHARE = 1e-6  # of a side, where boxes may be of any size


def drawn_values(settings: DetectorSettings, image_size: ImageSize, images: int, number: int) -> dict[str, Array]:
    """`objectness0`, ..., `deltas0`, ..., `class_logits`, `box_deltas` and, of a detector with them, `mask_logits` or
    `keypoint_logits`, float32: overlaps of every size, boxes beyond the image, others next to nothing, sides that grow more
    than they may, scores on both sides of every threshold. Of SETS kinds of sets that is the one of this `number`: of even
    ones, more is likely than may be given out and all levels are alike; of odd ones less, and one level leads."""
    draw = np.random.default_rng((SEED, number))
    scarce = number % 2 == 1
    proposals, classes = Proposals(settings, image_size), settings.classes + 1
    values: dict[str, Array] = {}
    levels = len(settings.anchors.strides)
    for name, (channels, *grid) in proposals.input_shapes.items():
        shape = (images, channels, *grid)
        if name.startswith("objectness"):
            leads = not scarce or int(name.removeprefix("objectness")) == number // 2 % levels
            values[name] = _patches(draw, shape) - ((4.0 if scarce else 2.0) if leads else 8.0)
        else:
            codes = _codes(draw, (images, channels // 4, *grid), settings.proposals.least_size / 16, 0.1)
            values[name] = np.moveaxis(codes, -1, 2).reshape(shape)
    rows = images * proposals.kept
    likely = 2 if scarce else settings.classes
    logits = np.full((rows, classes), UNLIKELY) + draw.standard_normal((rows, classes))
    logits[:, 0] = 0
    own = (
        draw.permuted(np.tile(np.arange(1, classes), (rows, 1)), axis=1)[:, :likely]
        if not scarce
        else np.tile(draw.permutation(settings.classes)[: min(likely, settings.classes)] + 1, (rows, 1))
    )
    share = min(1.0, 2 * settings.box.candidates / (rows / images * own.shape[1]))
    there = draw.random(own.shape) < (0.6 * min(share / 2, 1.0) if scarce else share)
    centre = np.log(max(settings.box.score, 1e-3)) if scarce else 0.0
    drawn = np.where(there, centre + (0.7 if scarce else 2.0) * draw.standard_normal(own.shape), UNLIKELY)
    np.put_along_axis(logits, own, drawn, 1)
    values["class_logits"] = logits
    codes = _codes(draw, (rows, classes), settings.box.least_size / 4, 0.05 if scarce else 0.3)
    values["box_deltas"] = (codes * np.array(settings.box.weights)).reshape(rows, -1)
    kept = images * detections_of(settings, proposals.kept)
    if settings.mask is not None:
        values["mask_logits"] = 3 * draw.standard_normal((kept, classes, settings.mask.size, settings.mask.size))
    if settings.keypoints is not None:
        values["keypoint_logits"] = _peaks(draw, kept, settings.keypoints.count, settings.keypoints.size)
        if number == SETS - 1:  # too many are high to look into all: not settled
            values["keypoint_logits"][kept // 2 :] = 3 * draw.standard_normal(values["keypoint_logits"][kept // 2 :].shape)
    return {name: array.astype(np.float32) for name, array in values.items()}


def _patches(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers [..., h, w] that are much alike within blocks of places."""
    *front, height, width = shape
    coarse = 2.5 * draw.standard_normal((*front[:1], 1, -(-height // BLOCK), -(-width // BLOCK)))
    blocks = coarse.repeat(BLOCK, -2).repeat(BLOCK, -1)[..., :height, :width]
    return np.asarray(blocks + 0.5 * draw.standard_normal(shape))


def _peaks(draw: np.random.Generator, rows: int, points: int, size: int) -> Array:
    """Maps [rows, points, size, size] of a peak and a lower one, some of them at an edge, on a little noise."""
    places = np.arange(size)
    maps = 0.02 * draw.standard_normal((rows, points, size, size))
    for height in (6.0, 4.0):
        middle = (draw.uniform(-0.1, 1.1, (2, rows, points, 1)) * size).clip(0, size - 1)
        wide = size * draw.uniform(0.03, 0.1, (rows, points, 1))
        down, along = (np.exp(-0.5 * ((places - axis) / wide) ** 2) for axis in middle)
        maps += height * down[..., None] * along[..., None, :]
    return maps


def _codes(draw: np.random.Generator, shape: tuple[int, ...], small: float, usual: float) -> Array:
    """Of boxes [..., 4]: mostly near the box that they are relative to, some far, some shrunk to about `small` of it."""
    codes = usual * draw.standard_normal((*shape, 4))
    wide = draw.random(shape) < WIDE
    codes[wide] *= 3 / usual
    shrunk = draw.random(shape) < SMALL
    codes[shrunk, 2:] = np.log(max(small, LEAST_SHARE)) + draw.standard_normal((int(shrunk.sum()), 2))
    return np.asarray(codes)
