"""Detections in fixed shapes against torchvision's, bit for bit in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slimtrain.detection.fixed.detections import Detections, RawDetections, detections_of
from slimtrain.detection.fixed.suppression import FixedPoint
from slimtrain.models.detector import DetectorSettings
from tests.support.detectors import IMAGE, settings, torchvision_detections

HEIGHT, WIDTH = IMAGE


def drawn_heads(given: DetectorSettings, counts: list[int], room: int, seed: int = 0) -> tuple[Tensor, ...]:
    """RoIs of images, `counts` of which count, and what heads say of them."""
    draw = torch.Generator().manual_seed(seed)
    images, rows = len(counts), given.classes + 1
    corner = torch.rand(images, room, 2, generator=draw, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT]) * 0.8
    size = torch.rand(images, room, 2, generator=draw, dtype=torch.float64) * 40 + 1
    end = torch.minimum(corner + size, torch.tensor([WIDTH, HEIGHT], dtype=torch.float64))
    valid = (torch.arange(room) < torch.tensor(counts)[:, None]).double()
    rois = torch.cat([corner, end], -1) * valid[..., None]
    logits = torch.randn(images * room, rows, generator=draw, dtype=torch.float64) * 2
    return rois, valid, logits, torch.randn(images * room, 4 * rows, generator=draw, dtype=torch.float64)


def check(given: DetectorSettings, rois: Tensor, valid: Tensor, logits: Tensor, codes: Tensor) -> dict[str, Tensor]:
    result: dict[str, Tensor] = Detections(given, IMAGE, rois.shape[1]).double()(rois, valid, logits, codes)
    counted = valid.reshape(-1) > 0
    parts = [boxes[chosen > 0] for boxes, chosen in zip(rois, valid, strict=True)]
    expected = torchvision_detections(given, IMAGE, parts, logits[counted], codes[counted])
    for image, (boxes, scores, labels) in enumerate(expected):
        count = len(boxes)
        assert result["count"][image] == count
        for name, what in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            assert torch.equal(result[name][image, :count], what), name
            assert not result[name][image, count:].any()
    return result


@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_torchvision_s(seed: int) -> None:
    given = settings(candidates=300)
    result = check(given, *drawn_heads(given, [60, 37, 0], 60, seed))
    assert result["settled"].all() and result["boxes"].shape == (3, 30, 4)
    assert result["rows"].shape == (90, 5) and result["count"].tolist()[::2] == [30, 0]


def test_of_equal_scores_the_first_count_more() -> None:
    given = settings(candidates=300)
    rois, valid, logits, codes = drawn_heads(given, [60, 20], 60)
    check(given, rois, valid, logits.round(), codes)
    check(given, rois, valid, torch.zeros_like(logits), codes)


def test_boxes_too_small_go_before_the_others_are_counted() -> None:
    given = settings(candidates=300)
    rois, valid, logits, codes = drawn_heads(given, [60], 60)
    rois[:, ::3, 2:] = rois[:, ::3, :2] + 1e-3
    check(given, rois, valid, logits, codes)


def test_where_no_score_is_above_the_threshold_there_is_none() -> None:
    given = settings(candidates=300)
    rois, valid, logits, codes = drawn_heads(given, [60, 60], 60)
    logits[:60, 0] += 50
    result = check(given, rois, valid, logits, codes)
    assert result["count"].tolist() == [0, 30] and result["settled"].all()


def test_more_candidates_than_room_are_settled_where_enough_are_detected() -> None:
    given = settings(candidates=80)
    heads = drawn_heads(given, [60], 60)
    assert check(given, *heads)["settled"].all()
    rois, valid, logits, codes = heads
    alike = rois[:, :1].expand(-1, 60, -1), valid, logits, codes * 1e-3  # all the best of a class are one object
    assert Detections(given, IMAGE, 60).double()(*alike)["settled"].tolist() == [False]
    assert check(replace(given, box=replace(given.box, candidates=300)), *alike)["settled"].tolist() == [True]


def test_too_few_rounds_are_not_settled() -> None:
    given = settings(candidates=300)
    heads = drawn_heads(given, [60], 60)
    assert not Detections(given, IMAGE, 60, FixedPoint(1)).double()(*heads)["settled"].any()


def test_there_are_no_more_rows_than_candidates() -> None:
    given = settings(candidates=300, detections=30, classes=2)
    assert detections_of(given, 10) == 20 and detections_of(given, 60) == 30
    assert check(given, *drawn_heads(given, [10], 10))["boxes"].shape == (1, 20, 4)


def test_raw_ones_are_all_boxes_of_all_classes() -> None:
    given = settings(candidates=300)
    rois, valid, logits, codes = drawn_heads(given, [60, 20], 60)
    result = RawDetections(given, IMAGE, 60).double()(rois, valid, logits, codes)
    assert result["boxes"].shape == (2, 60, 5, 4)
    expected = logits.softmax(-1).reshape(2, 60, 6)[..., 1:] * valid[..., None]
    assert torch.equal(result["scores"], expected)
    chosen = check(given, rois, valid, logits, codes)
    for image in range(2):
        for box, score, label in zip(*(chosen[name][image, :5] for name in ("boxes", "scores", "labels")), strict=True):
            (place,) = (result["scores"][image, :, label - 1] == score).nonzero()
            assert torch.equal(result["boxes"][image, place[0], label - 1], box)
