"""Parts of sample sets: the held-out split, against the published code's rule."""

from __future__ import annotations

import random

import numpy as np

from slimtrain.data.samples import ArraySamples, hold_out
from tests.support.data_samples import labels


def test_the_held_out_images_are_those_of_the_published_code() -> None:
    """`random.seed(seed); random.shuffle(samples)`; the first are held out."""
    samples = ArraySamples(np.zeros((100, 3, 1, 1), np.uint8), np.arange(100), "x")
    state = random.getstate()
    train, test = hold_out(samples, 30, 1995)
    assert random.getstate() == state
    listed = list(range(100))
    random.seed(1995)
    random.shuffle(listed)
    random.setstate(state)
    assert labels(test) == listed[:30] and labels(train) == listed[30:]
    assert sorted(labels(train) + labels(test)) == list(range(100))
    assert [test.name(i) for i in range(3)] == [f"x {i}" for i in listed[:3]]
    assert labels(hold_out(samples, 30, 1995)[1]) == labels(test) != labels(hold_out(samples, 30, 0)[1])
