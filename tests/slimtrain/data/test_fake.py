"""Made-up images."""

from __future__ import annotations

import torch

from slimtrain.data.datasets import open_data
from tests.support.data_samples import labels, pixels


def test_fake_images_are_the_same_every_time() -> None:
    first, second = (open_data("fake", classes=7, batch_size=5, image_size=32) for _ in range(2))
    assert len(first.classes) == 7 and len(first.train) == 20 and len(first.test) == 10
    assert labels(first.train) == [i % 7 for i in range(20)]
    assert pixels(first.train, 3).shape == (3, 32, 32) and torch.equal(pixels(first.train, 3), pixels(second.train, 3))
    seen = {pixels(part, i).numpy().tobytes() for part in (first.train, first.test) for i in range(len(part))}
    assert len(seen) == 30
    assert len(open_data("fake", image_size=32).classes) == 10


def test_fake_images_have_the_shape_and_channels_of_the_configuration() -> None:
    data = open_data("fake", image_size=(24, 40), channels=1, batch_size=2)
    assert {tuple(pixels(part, 0).shape) for part in (data.train, data.test)} == {(1, 24, 40)}
