"""Detections of single-stage detectors in fixed shapes against torchvision's, bit for bit in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slimtrain.detection.fixed.coding import flat_level
from slimtrain.detection.fixed.single_stage import RawSingleStage, RetinaDetections, SingleStage, SsdDetections
from slimtrain.detection.fixed.suppression import FixedPoint, Standard
from slimtrain.models.detector import RETINA, SSDLITE, DetectorSettings
from tests.support.single_stage import IMAGE, single_settings, torchvision_single

FORMS: dict[str, type[RetinaDetections | SsdDetections]] = {RETINA: RetinaDetections, SSDLITE: SsdDetections}


def drawn_maps(part: SingleStage, images: int = 3, spread: float = 2.0, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    scales = {"class_logits": spread, "box_deltas": 0.5}
    return [
        torch.randn(images, *shape, generator=draw, dtype=torch.float64) * scales[name.rstrip("0123456789")]
        for name, shape in part.input_shapes.items()
    ]


def check(given: DetectorSettings, maps: list[Tensor], suppression: Standard | None = None) -> dict[str, Tensor]:
    result: dict[str, Tensor] = FORMS[given.kind](given, IMAGE, suppression).double()(*maps)
    for image, (boxes, scores, labels) in enumerate(torchvision_single(given, IMAGE, maps)):
        count = len(boxes)
        assert result["count"][image] == count
        for name, what in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            assert torch.equal(result[name][image, :count], what), name
            assert not result[name][image, count:].any()
    return result


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_torchvision_s(kind: str, seed: int) -> None:
    given = single_settings(kind)
    part = FORMS[kind](given, IMAGE)
    result = check(given, drawn_maps(part, seed=seed))
    assert result["settled"].all() and result["boxes"].shape == (3, 40, 4) and part.kept == 40
    assert result["count"].tolist() == [40] * 3 and set(result["labels"].flatten().tolist()) == {1, 2, 3, 4}


@pytest.mark.parametrize("kind", FORMS)
def test_onnx_s_own_nms_chooses_the_same(kind: str) -> None:
    given = single_settings(kind)
    check(given, drawn_maps(FORMS[kind](given, IMAGE)), Standard(given.classes))


@pytest.mark.parametrize("kind", FORMS)
def test_few_above_the_threshold_and_none(kind: str) -> None:
    given = single_settings(kind, score=0.98)
    maps = drawn_maps(FORMS[kind](given, IMAGE), spread=1.8)
    levels = len(maps) // 2
    for level in maps[:levels]:
        level[2] = 0
    result = check(given, maps)
    assert 0 < result["count"][0] < 40 and result["count"][2] == 0 and result["settled"].all()


@pytest.mark.parametrize("kind", FORMS)
def test_too_few_rounds_are_not_settled(kind: str) -> None:
    given = single_settings(kind)
    maps = drawn_maps(FORMS[kind](given, IMAGE))
    assert not FORMS[kind](given, IMAGE, FixedPoint(1)).double()(*maps)["settled"].any()


def test_more_candidates_than_room_are_settled_where_enough_are_detected() -> None:
    given = single_settings(RETINA)
    crowded = replace(given, box=replace(given.box, candidates=60))
    maps = drawn_maps(RetinaDetections(given, IMAGE))
    assert check(crowded, maps)["settled"].all()
    lonely = replace(crowded, box=replace(crowded.box, nms=0.01))
    assert not RetinaDetections(lonely, IMAGE).double()(*maps)["settled"].any()
    check(replace(given, box=replace(given.box, nms=0.01)), maps)


@pytest.mark.parametrize("kind", FORMS)
def test_sides_too_small_do_not_count(kind: str) -> None:
    given = single_settings(kind)
    given = replace(given, box=replace(given.box, least_size=20.0))
    result = FORMS[kind](given, IMAGE).double()(*drawn_maps(FORMS[kind](given, IMAGE)))
    sides = (result["boxes"][..., 2:] - result["boxes"][..., :2])[result["labels"] > 0]
    assert len(sides) and sides.min() >= 20


@pytest.mark.parametrize("kind", FORMS)
def test_raw_ones_are_all_boxes_and_scores(kind: str) -> None:
    given = single_settings(kind)
    part = RawSingleStage(given, IMAGE)
    maps = drawn_maps(part, 2)
    result = part.double()(*maps)
    count = sum(part.level_sizes)
    assert result["boxes"].shape == (2, count, 4) and result["scores"].shape == (2, count, given.classes)
    for image, (boxes, scores, labels) in enumerate(torchvision_single(given, IMAGE, maps)):
        for box, score, label in zip(boxes[:5], scores, labels, strict=False):
            (place,) = (result["scores"][image, :, label - 1] == score).nonzero()
            assert torch.equal(result["boxes"][image, place[0]], box)


def test_a_level_s_map_is_in_the_order_of_its_anchors() -> None:
    """Position by position, row by row, and of each its anchors."""
    level = torch.arange(2 * 6 * 2 * 3).reshape(2, 6, 2, 3)
    rows = flat_level(level, 3)
    assert rows.shape == (2, 12, 3)
    assert rows[1, 2 * (1 * 3 + 2) + 1].tolist() == level[1, 3:, 1, 2].tolist()
