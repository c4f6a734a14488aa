"""Detections under the names that TensorRT's plugin EfficientNMS_TRT has for them, as those of other files.

It counts classes from 0, has a dimension more of the number, and leaves what it will in rows behind that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.proof.comparing import Pair
from slimexport.target.tensors import (
    BOXES,
    COUNT,
    ITS_BOXES,
    ITS_CHOSEN,
    ITS_CLASSES,
    ITS_COUNT,
    ITS_SCORES,
    LABELS,
    SCORES,
)


def as_detections(pairs: Sequence[Pair]) -> list[Pair]:
    """Outputs as `agreement_of` and `likeness` take them: those of the plugin by the names and in the form of others, any
    others as they are; so too what is of another shape than the reference, for that to be told."""
    outputs, expected = ({pair.name: getattr(pair, side) for pair in pairs} for side in ("output", "expected"))
    if not outputs.keys() >= set(ITS_CHOSEN) or any(outputs[name].shape != expected[name].shape for name in ITS_CHOSEN):
        return list(pairs)
    own, other = by_usual_names(outputs), by_usual_names(expected)
    named = [Pair(name, own[name], other[name]) for name in own]
    return [*named, *(pair for pair in pairs if pair.name not in ITS_CHOSEN)]


def by_usual_names(values: Mapping[str, Array]) -> dict[str, Array]:
    """What the plugin gives of images: zeros behind the detections, classes from 1."""
    boxes, scores, classes = (values[name] for name in (ITS_BOXES, ITS_SCORES, ITS_CLASSES))
    count = values[ITS_COUNT][:, 0]
    there = np.arange(scores.shape[1]) < count[:, None]
    return {
        BOXES: np.where(there[..., None], boxes, 0),
        SCORES: np.where(there, scores, 0),
        LABELS: np.where(there, classes.astype(np.int64) + 1, 0),
        COUNT: count,
    }
