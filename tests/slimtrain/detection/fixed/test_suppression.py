"""NMS in fixed shapes against torchvision's, and against the sentence that defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from slimtrain.detection.fixed.suppression import FixedPoint, Standard, Suppression


def crowd(count: int, clusters: int, spread: float, seed: int = 0) -> Tensor:
    """Boxes around a few places, in descending order of a score that nobody needs: [1, n, 4]."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.rand(clusters, 2, generator=draw, dtype=torch.float64) * 700
    middle = places[torch.randint(clusters, (count,), generator=draw)]
    middle = middle + torch.randn(count, 2, generator=draw, dtype=torch.float64) * spread
    size = torch.exp(torch.randn(count, 2, generator=draw, dtype=torch.float64) * 0.3) * 60
    return torch.cat([middle - size / 2, middle + size / 2], 1)[None]


def chain(count: int) -> Tensor:
    """Boxes of which every one overlaps the next alone: who stays is known after as many rounds as there are boxes."""
    left = torch.arange(count, dtype=torch.float64) * 4
    return torch.stack([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10)], 1)[None]


@pytest.mark.parametrize("suppression", [FixedPoint(), Standard(1)], ids=["fixed", "onnx"])
@pytest.mark.parametrize(
    ("count", "clusters", "spread", "threshold"),
    [(1000, 30, 8.0, 0.7), (1000, 30, 8.0, 0.5), (1000, 1, 60.0, 0.3), (2000, 5, 20.0, 0.5)],
)
def test_what_stays_is_what_torchvision_keeps(
    suppression: Suppression, count: int, clusters: int, spread: float, threshold: float
) -> None:
    boxes = crowd(count, clusters, spread)
    keep, settled = suppression(boxes, torch.ones(1, count, dtype=torch.float64), None, threshold)
    expected = nms(boxes[0], -torch.arange(count, dtype=torch.float64), threshold)
    assert settled.tolist() == [True] and torch.equal(keep[0].nonzero()[:, 0], expected)
    assert 0 < len(expected) < count


@pytest.mark.parametrize("suppression", [FixedPoint(), Standard(3)], ids=["fixed", "onnx"])
def test_boxes_that_do_not_count_suppress_nothing_and_labels_stand_apart(suppression: Suppression) -> None:
    boxes = torch.cat([crowd(200, 4, 10.0), crowd(200, 2, 20.0, seed=1)])
    draw = torch.Generator().manual_seed(2)
    labels = torch.randint(1, 4, (2, 200), generator=draw)
    valid = (torch.rand(2, 200, generator=draw) > 0.3).double()
    keep, settled = suppression(boxes, valid, labels, 0.5)
    assert settled.tolist() == [True, True]
    for image in range(2):
        (counted,) = valid[image].nonzero(as_tuple=True)
        ranks = -counted.double()
        expected = counted[batched_nms(boxes[image][counted], ranks, labels[image][counted], 0.5)]
        assert torch.equal(keep[image].nonzero()[:, 0], expected.sort().values)


@pytest.mark.parametrize("suppression", [FixedPoint(), Standard(1)], ids=["fixed", "onnx"])
def test_published_boxes_count_their_last_pixel(suppression: Suppression) -> None:
    """A brute-force NMS with mmdetection's areas, on boxes that end within their last pixel."""
    draw = np.random.default_rng(0)
    corner = draw.integers(0, 30, (150, 2))
    inclusive = np.concatenate([corner, corner + draw.integers(0, 20, (150, 2))], 1).astype(float)
    stays: list[int] = []
    for place, (x1, y1, x2, y2) in enumerate(inclusive):
        for other in inclusive[stays]:
            wide = max(0, min(x2, other[2]) - max(x1, other[0]) + 1)
            high = max(0, min(y2, other[3]) - max(y1, other[1]) + 1)
            areas = (x2 - x1 + 1) * (y2 - y1 + 1), (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
            if wide * high / (sum(areas) - wide * high) > 0.5:
                break
        else:
            stays.append(place)
    boxes = torch.from_numpy(inclusive + np.array([0, 0, 1, 1]))[None]
    keep, _ = suppression(boxes, torch.ones(1, 150, dtype=torch.float64), None, 0.5)
    assert keep[0].nonzero()[:, 0].tolist() == stays and len(stays) < 150


def test_a_chain_longer_than_the_rounds_is_not_settled() -> None:
    boxes, valid = chain(30), torch.ones(1, 30, dtype=torch.float64)
    keep, settled = FixedPoint(40)(boxes, valid, None, 0.3)
    assert settled.tolist() == [True] and keep[0].tolist() == [1.0, 0.0] * 15
    both = torch.cat([boxes, crowd(30, 30, 1.0)])
    keep, settled = FixedPoint(12)(both, valid.expand(2, -1), None, 0.3)
    assert settled.tolist() == [False, True]
    assert keep[0, :12].tolist() == [1.0, 0.0] * 6  # what the rounds decided is right all the same


def test_boxes_without_area_overlap_nothing() -> None:
    boxes = torch.zeros(1, 3, 4, dtype=torch.float64)
    keep, settled = FixedPoint()(boxes, torch.ones(1, 3, dtype=torch.float64), None, 0.5)
    assert keep.tolist() == [[1, 1, 1]] and settled.tolist() == [True]
