"""Proposals in fixed shapes against torchvision's region proposal network, bit for bit in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slimtrain.detection.fixed.proposals import Proposals
from slimtrain.detection.fixed.suppression import FixedPoint
from slimtrain.models.detector import PUBLISHED, DetectorSettings
from tests.support.detectors import IMAGE, drawn_maps, settings, torchvision_proposals


def check(given: DetectorSettings, maps: list[Tensor], image: tuple[int, int] = IMAGE) -> dict[str, Tensor]:
    result: dict[str, Tensor] = Proposals(given, image).double()(*maps)
    assert result["settled"].all()
    for rois, valid, expected in zip(result["rois"], result["valid"], torchvision_proposals(given, image, maps), strict=True):
        count = len(expected)
        assert valid.tolist() == [1.0] * count + [0.0] * (len(valid) - count)
        assert torch.equal(rois[:count], expected) and not rois[count:].any()
    return result


@pytest.mark.parametrize(("top_k", "kept"), [(100, 60), (2000, 500), (40, 100)])
def test_they_are_torchvision_s(top_k: int, kept: int) -> None:
    given = settings(top_k=top_k, kept=kept)
    result = check(given, drawn_maps(Proposals(given, IMAGE), 3))
    count = min(kept, 2 * top_k)
    assert result["rois"].shape == (3, count, 4) and result["rows"].shape == (3 * count, 5)
    assert torch.equal(result["rows"][:, 1:], result["rois"].reshape(-1, 4))


def test_of_equal_scores_the_first_count_more() -> None:
    given = settings(top_k=150, kept=80)
    maps = drawn_maps(Proposals(given, IMAGE), 3)
    check(given, [*(level.round() for level in maps[:2]), *maps[2:]])
    check(given, [*(torch.zeros_like(level) for level in maps[:2]), *maps[2:]])


def test_probabilities_that_are_1_for_all_keep_the_order_of_logits() -> None:
    given = settings(top_k=150, kept=80)
    maps = drawn_maps(Proposals(given, IMAGE), 2)
    check(given, [*(level + 60 for level in maps[:2]), *maps[2:]])


def test_where_the_score_or_the_size_lets_nothing_through_all_rows_are_zeros() -> None:
    given = settings()
    given = replace(given, proposals=replace(given.proposals, score=0.9))
    maps = drawn_maps(Proposals(given, IMAGE), 2)
    maps[0][1] = maps[1][1] = -10
    result = check(given, maps)
    assert result["valid"].sum(1).tolist()[1] == 0 and not result["rois"][1].any()
    large = replace(given, proposals=replace(given.proposals, least_size=12.0, score=0.0))
    assert check(large, maps)["valid"].any()


def test_thousands_that_overlap_are_settled() -> None:
    given = settings(top_k=1000, kept=300)
    image = 128, 128
    check(given, drawn_maps(Proposals(given, image), 1, seed=5), image)


def test_sides_that_the_strides_do_not_divide_make_room_for_a_row_more() -> None:
    given = settings()
    check(given, drawn_maps(Proposals(given, (60, 92)), 2), (60, 92))


def test_too_few_rounds_are_not_settled() -> None:
    given = settings()
    maps = drawn_maps(Proposals(given, IMAGE), 1)
    assert not Proposals(given, IMAGE, FixedPoint(1)).double()(*maps)["settled"].any()


def test_published_ones_stay_on_pixels_of_the_image() -> None:
    given = replace(settings(), convention=PUBLISHED)
    rois = Proposals(given, IMAGE).double()(*drawn_maps(Proposals(given, IMAGE), 2))["rois"]
    height, width = IMAGE
    assert rois[..., :2].min() >= 0 and rois[..., 2:].min() >= 1
    assert rois[..., 0].max() <= width - 1 and rois[..., 1].max() <= height - 1
    assert rois[..., 2].max() <= width and rois[..., 3].max() <= height
