"""What EfficientNMS_TRT gives, in the form of other files' detections."""

from __future__ import annotations

import numpy as np

from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.plugin_detections import as_detections
from slimexport.target.tensors import ITS_CHOSEN


def plugin_pairs(rows: int = 3) -> list[Pair]:
    """Two images of one and of no detections; behind them lies what no one should read."""
    given = {
        "num_detections": np.array([[1], [0]], np.int32),
        "detection_boxes": np.full((2, rows, 4), np.nan, np.float32),
        "detection_scores": np.full((2, rows), 7, np.float32),
        "detection_classes": np.full((2, rows), -9, np.int32),
    }
    given["detection_boxes"][0, 0], given["detection_scores"][0, 0] = (1, 2, 3, 4), 0.5
    given["detection_classes"][0, 0] = 0
    return [Pair(name, values, values) for name, values in given.items()]


def test_rows_behind_the_detections_are_zeros_and_classes_count_from_one() -> None:
    settled = Pair("settled", np.ones(2, bool), np.ones(2, bool))
    *pairs, last = as_detections([*plugin_pairs(), settled])
    assert last is settled
    for side in ("output", "expected"):
        rows = {pair.name: getattr(pair, side).tolist() for pair in pairs}
        assert rows == {
            "boxes": [[[1, 2, 3, 4], [0] * 4, [0] * 4], [[0] * 4] * 3],
            "scores": [[0.5, 0, 0], [0, 0, 0]],
            "labels": [[1, 0, 0], [0, 0, 0]],
            "count": [1, 0],
        }


def test_other_outputs_and_other_shapes_stay_what_they_are() -> None:
    logits = [Pair("output", np.zeros((2, 3)), np.zeros((2, 3)))]
    assert as_detections(logits) == logits
    odd = [Pair(one.name, one.output, other.output) for one, other in zip(plugin_pairs(), plugin_pairs(2), strict=True)]
    assert [pair.name for pair in as_detections(odd)] == list(ITS_CHOSEN)
