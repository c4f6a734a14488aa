"""Outputs of a detector's learned parts, drawn so that every rule of choosing among boxes decides something."""

from __future__ import annotations

import numpy as np

from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.detections import detections_of
from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.models.detector import DetectorSettings

SEED = 5
WIDE = 0.1  # share of codes that are far from 0
SMALL = 0.03  # share of boxes that are about as small as a box may be


def drawn_values(settings: DetectorSettings, image_size: ImageSize, images: int, masks: bool) -> dict[str, Array]:
    """`objectness0`, ..., `deltas0`, ..., `class_logits`, `box_deltas` and, with `masks`, `mask_logits`, float32: overlaps of
    every size, boxes beyond the image, others next to nothing, sides that grow more than they may, scores on both sides of
    every threshold."""
    draw = np.random.default_rng(SEED)
    proposals, classes = Proposals(settings, image_size), settings.classes + 1
    values: dict[str, Array] = {}
    for name, (channels, *grid) in proposals.input_shapes.items():
        if name.startswith("objectness"):
            values[name] = 3 * draw.standard_normal((images, channels, *grid))
        else:
            codes = _codes(draw, (images, channels // 4, *grid), settings.proposals.least_size / 32)
            values[name] = np.moveaxis(codes, -1, 2).reshape(images, channels, *grid)
    rows = images * proposals.kept
    # Few of many classes are likely at all: else there are more candidates than room for them.
    likely = min(1.0, settings.box.candidates / (3 * proposals.kept * settings.classes))
    logits = 2 * draw.standard_normal((rows, classes)) - 9.0 * (draw.random((rows, classes)) > likely)
    logits[:, 0] = 2 * draw.standard_normal(rows)
    values["class_logits"] = logits
    codes = _codes(draw, (rows, classes), settings.box.least_size / 32) * np.array(settings.box.weights)
    values["box_deltas"] = codes.reshape(rows, -1)
    if masks:
        assert settings.mask is not None
        size = settings.mask.size
        shape = images * detections_of(settings, proposals.kept), classes, size, size
        values["mask_logits"] = 3 * draw.standard_normal(shape)
    return {name: array.astype(np.float32) for name, array in values.items()}


def _codes(draw: np.random.Generator, shape: tuple[int, ...], small: float) -> Array:
    """Of boxes [..., 4]: mostly near the box that they are relative to, some far, some shrunk to about `small`."""
    codes = 0.3 * draw.standard_normal((*shape, 4))
    wide = draw.random(shape) < WIDE
    codes[wide] *= 8
    shrunk = draw.random(shape) < SMALL
    codes[shrunk, 2:] = np.log(small) + draw.standard_normal((int(shrunk.sum()), 2))
    return np.asarray(codes)
