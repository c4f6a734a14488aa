"""Views of labels against numpy's own reshaping."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from slimtrain.graph.labels.views import blocks


def random_shape(draw: random.Random, factors: list[int]) -> list[int]:
    """Factors, neighbours multiplied at random, ones put in between."""
    shape = [1]
    for factor in factors:
        if draw.random() < 0.5:
            shape[-1] *= factor
        else:
            shape.append(factor)
        if draw.random() < 0.2:
            shape.append(1)
    return shape


@pytest.mark.parametrize("seed", range(60))
def test_blocks_hold_the_same_elements(seed: int) -> None:
    """Indices of an element within a block of the old shape and of the new one agree, whatever stands around."""
    draw = random.Random(seed)
    factors = [draw.choice((2, 3, 5)) for _ in range(4)]
    old, new = random_shape(draw, factors), random_shape(draw, factors)
    parts = list(blocks(old, new))
    assert [d for left, _ in parts for d in left] == list(range(len(old)))
    assert [d for _, right in parts for d in right] == list(range(len(new)))
    for left, right in parts:
        a, b = [old[d] for d in left], [new[d] for d in right]
        assert math.prod(a) == math.prod(b)
        position = np.arange(math.prod(a)).reshape(a)
        before = np.broadcast_to(position.reshape([old[d] if d in left else 1 for d in range(len(old))]), old)
        after = np.broadcast_to(position.reshape(b).reshape([new[d] if d in right else 1 for d in range(len(new))]), new)
        assert (before.reshape(new) == after).all()


def test_blocks_are_the_smallest_ones() -> None:
    assert list(blocks([2, 6, 5], [2, 2, 3, 5])) == [([0], [0]), ([1], [1, 2]), ([2], [3])]
