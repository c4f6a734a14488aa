"""Whether keypoints stand where a file's own maps are highest, as far as numbers of float32 can tell.

A keypoint is a pixel of its detection: the one where the map, enlarged to the detection's size, is highest (torchvision's
heatmaps_to_keypoints). Here the whole map is enlarged, in float64; of two pixels that float32 cannot tell apart either is
right, and a *tie*.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from slimexport.detector_proof.choices import LEEWAY, ROUNDING, Judged
from slimexport.target.arrays import Array

ON_GRID = 1e-2  # of a pixel: coordinates are roundings away from one


def judge_points(boxes: Array, logits: Array, points: Array, scores: Array, settled: bool) -> Judged:
    """Of detections of an image: float32 boxes [k, 4], what the file computed of them, logits [k, K, s, s], and what it made
    of these, points [k, K, 3] and scores [k, K]. Not `settled`: the highest place may be another, as the file says."""
    judged = Judged(points.shape[0] * points.shape[1])
    for row, box in enumerate(boxes):
        _judge_row(row, box, logits[row], points[row], scores[row], settled, judged)
    return judged


def _judge_row(row: int, box: Array, maps: Array, points: Array, scores: Array, settled: bool, judged: Judged) -> None:
    lengths = [np.maximum(box[axis + 2] - box[axis], np.float32(1)) for axis in range(2)]  # exact of float32 on every runtime
    width, height = (int(np.ceil(length)) for length in lengths)
    enlarged = F.interpolate(
        torch.from_numpy(maps.astype(np.float64))[None], size=(height, width), mode="bicubic", align_corners=False
    )[0].numpy()
    places = [
        (points[:, axis].astype(np.float64) - float(box[axis])) * count / float(lengths[axis]) - 0.5
        for axis, count in enumerate((width, height))
    ]
    column, line = (np.rint(place).astype(np.int64) for place in places)
    for number, (x, y) in enumerate(zip(column, line, strict=True)):
        off = max(abs(places[0][number] - x), abs(places[1][number] - y))
        where = f"keypoint {number} of row {row}, at [{points[number, 0]:.2f}, {points[number, 1]:.2f}],"
        if not (off <= ON_GRID and 0 <= x < width and 0 <= y < height and points[number, 2] == 1):
            judged.faults.append(f"{where} is no pixel of its detection")
            continue
        own = enlarged[number]
        margin = LEEWAY * ROUNDING * maps.shape[-1] * float(np.abs(maps[number]).max())
        there, highest = float(own[y, x]), float(own.max())
        if not abs(float(scores[number]) - there) <= margin:
            judged.faults.append(f"{where} has score {scores[number]:.5f}, its map is {there:.5f} there")
        elif settled and there < highest - margin:
            judged.faults.append(f"{where} is where its map is {there:.5f}, elsewhere that is {highest:.5f}")
        judged.ties += int(settled and highest - margin <= there < highest)
