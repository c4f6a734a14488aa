"""What NMS keeps and drops for certain: true of whatever is within the margins, and of nothing less than there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from slimexport.detector_proof.choices import Limits
from slimexport.detector_proof.near.certainty import Certain, Uncertain, certain

Floats = NDArray[np.float64]
LIMITS = Limits(score=0.2, side=2.0, overlap=0.5, count=6, room=14)
PIXELS, SCORE = 0.3, 0.02


def drawn(seed: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Boxes, scores and groups of a set in which much overlaps."""
    draw = np.random.default_rng(seed)
    corner = draw.integers(0, 4, (18, 2)) * 4.0 + draw.uniform(-1, 1, (18, 2))
    boxes = np.concatenate([corner, corner + draw.uniform(1.5, 12, (18, 2))], 1)
    return boxes, draw.uniform(0.1, 0.6, 18), draw.integers(1, 3, 18)


def chosen(boxes: Floats, scores: Floats, groups: NDArray[np.int64]) -> set[int]:
    """By torchvision's NMS."""
    sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    (order,) = ((scores > LIMITS.score) & (sides >= LIMITS.side)).nonzero()
    order = order[np.argsort(-scores[order], kind="stable")][: LIMITS.room]
    kept = batched_nms(*(torch.from_numpy(array[order]) for array in (boxes, scores, groups)), LIMITS.overlap)
    return set(order[kept.numpy()[: LIMITS.count]].tolist())


def judged(seed: int, pixels: float, score: float) -> Certain:
    boxes, scores, groups = drawn(seed)
    return certain(Uncertain(boxes, pixels, scores - score, scores + score, groups, np.ones(18, bool)), LIMITS)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_certain_is_so_of_whatever_is_within_the_margins(seed: int) -> None:
    boxes, scores, groups = drawn(seed)
    result, draw = judged(seed, PIXELS, SCORE), np.random.default_rng((seed, 1))
    seen: set[int] = set()
    for _ in range(200):
        moved = boxes + PIXELS * draw.uniform(-1, 1, boxes.shape), scores + SCORE * draw.uniform(-1, 1, scores.shape)
        one = chosen(*moved, groups)
        assert set(result.stay.nonzero()[0].tolist()) <= one and not one & set(result.go.nonzero()[0].tolist())
        seen |= one
    assert not (result.stay & result.go).any() and len(seen) > 3


@pytest.mark.parametrize("seed", range(8))
def test_without_margins_all_is_certain(seed: int) -> None:
    result = judged(seed, 0.0, 0.0)
    assert set(result.stay.nonzero()[0].tolist()) == chosen(*drawn(seed)) and (result.stay ^ result.go).all()


def test_what_may_not_be_there_stays_for_certain_nowhere_and_puts_nothing_out() -> None:
    boxes, scores, groups = drawn(0)
    sure = certain(Uncertain(boxes, 0.0, scores, scores, groups, np.ones(18, bool)), LIMITS)
    first = int(np.where(sure.stay, scores, 0).argmax())
    there = np.arange(18) != first
    result = certain(Uncertain(boxes, 0.0, scores, scores, groups, there), LIMITS)
    assert not result.stay[first] and not result.go[first]
    others = chosen(boxes[there], scores[there], groups[there])
    assert not {place + (place >= first) for place in others} & set(result.go.nonzero()[0].tolist())
