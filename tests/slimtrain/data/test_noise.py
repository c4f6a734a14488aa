"""Random images with structure at every scale."""

from __future__ import annotations

import numpy as np
import pytest

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data.noise import noise_images


def test_noise_images_are_reproducible_have_order_one_and_differ_in_their_averages() -> None:
    images = noise_images(16, 48, seed=3)
    assert images.shape == (16, 3, 48, 48) and images.dtype.name == "float32"
    assert (noise_images(16, 48, seed=3) == images).all() and (noise_images(5, 48, seed=3) == images[:5]).all()
    assert not (noise_images(16, 48, seed=4) == images).any(axis=(1, 2, 3)).all()
    assert abs(images.mean()) < 0.3 and 0.5 < images.var() < 1.5
    assert images.mean(axis=(2, 3)).std() > 0.2  # white noise would have 0.02
    assert noise_images(0, 32).shape == (0, 3, 32, 32) and noise_images(1, 1).shape == (1, 3, 1, 1)


def test_color_squares_are_what_they_were() -> None:
    """The sum of every octave's field, drawn one after the other, stretched to the image: as before there were others."""
    draw, sizes = np.random.Generator(np.random.PCG64([5, 0])), (1, 2, 4, 6)
    fields = [draw.standard_normal((3, size, size), np.float32) for size in sizes]
    places = [[y * size // 6 for y in range(6)] for size in sizes]
    total = sum(field[:, place][:, :, place] for field, place in zip(fields, places, strict=True))
    np.testing.assert_array_equal(noise_images(1, 6, 5)[0], total / np.sqrt(4))


@pytest.mark.parametrize("size", [(48, 32), (7, 100), (1, 8), 5])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_shapes_have_order_one_too(size: ImageSize, channels: int) -> None:
    images = noise_images(200, size, 2, channels)
    assert images.shape == (200, channels, *sides(size))
    assert abs(images.mean()) < 0.1 and images.std() == pytest.approx(1, abs=0.1)
    averages = images.mean((2, 3)).std()
    assert averages > 0.3  # white noise of 48 x 32 pixels would have 0.03
