"""Outputs of a detector's heads with more candidates than there is room for, which overlap so much that few are given out.

Then others might have been, and a file must not say that it is settled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from slimexport.target.arrays import Array
from slimtrain.models.detector import DetectorSettings

GROWN = 10.0  # a code of a side that grows as far as it may: boxes reach beyond the image, and are cut at its edges
LIKELY, LEAST_SCORE = 2.0, 1e-3
SPREAD = 1e-2


def crowd(settings: DetectorSettings, values: Mapping[str, Array]) -> dict[str, Array]:
    """`values` (of `drawn_values` or `drawn_anchors`) with as good as equal scores of some classes everywhere, and boxes that
    grow: of each class about one is given out."""
    draw, result = np.random.default_rng(11), dict(values)
    score = min(max(settings.box.score, LEAST_SCORE), 0.5)
    for name, array in values.items():
        if name.startswith("box_deltas"):
            sides = np.zeros((4,) if array.ndim == 2 else (4, 1, 1))
            sides[2:] = GROWN * np.array(settings.box.weights[2:]).reshape(2, *sides.shape[1:])
            result[name] = np.broadcast_to(np.tile(sides, (array.shape[1] // 4, *sides.shape[1:])), array.shape)
        elif name.startswith("class_logits") and array.ndim == 2:  # next to a background of 0
            likely = max(1, min(settings.classes, int(0.8 / score), settings.box.detections - 1))
            logits = np.full(array.shape, -LIKELY / SPREAD)
            logits[:, 0], logits[:, 1 : 1 + likely] = 0.0, LIKELY
            result[name] = logits + SPREAD * draw.standard_normal(array.shape)
        elif name.startswith("class_logits"):
            centre = math.log(score / (1 - score)) + LIKELY
            result[name] = centre + SPREAD * draw.standard_normal(array.shape)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in result.items()}
