"""ImageNet's mean and deviation, for images of any number of channels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slimtrain.models.normalization import IMAGENET_MEAN, IMAGENET_STD, imagenet_normalization


def test_color_is_as_published() -> None:
    assert imagenet_normalization(3) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) == (IMAGENET_MEAN, IMAGENET_STD)


def test_gray_has_the_mean_of_images_that_pillow_made_gray() -> None:
    """Of random colors with ImageNet's mean and deviation, all channels rising and falling together."""
    mean, std = imagenet_normalization(1)
    light = np.random.default_rng(0).uniform(-np.sqrt(3), np.sqrt(3), (200, 200, 1))  # of variance 1
    colors = np.clip(np.array(IMAGENET_MEAN) + np.array(IMAGENET_STD) * light, 0, 1)
    gray = np.asarray(Image.fromarray(np.rint(colors * 255).astype(np.uint8)).convert("L")) / 255
    assert mean == pytest.approx((gray.mean(),), abs=0.004)
    assert std == pytest.approx((gray.std(),), abs=0.004)


@pytest.mark.parametrize(("channels", "mean"), [(2, (0.5, 0.5)), (4, (*IMAGENET_MEAN, 0.5)), (5, (*IMAGENET_MEAN, 0.5, 0.5))])
def test_channels_that_are_no_colors_go_from_minus_one_to_one(channels: int, mean: tuple[float, ...]) -> None:
    means, deviations = imagenet_normalization(channels)
    assert means == mean
    assert len(deviations) == channels
    for m, s in list(zip(means, deviations, strict=True))[3 if channels > 3 else 0 :]:
        assert ((0 - m) / s, (1 - m) / s) == (-1, 1)
