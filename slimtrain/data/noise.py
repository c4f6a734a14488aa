"""Random images with structure at every scale. numpy only.

White noise says little about a classifier: after global pooling all white-noise images look alike. Sums of random
fields of different coarseness, each octave as strong as the others, differ in their averages too, as photographs do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.image_size import ImageSize, sides


def noise_images(count: int, size: ImageSize, seed: int = 0, channels: int = 3) -> NDArray[np.float32]:
    """float32 [count, channels, height, width], mean about 0 and variance about 1 over many images; the same for the same
    arguments, and the first images do not depend on `count`."""
    height, width = sides(size)
    images = np.empty((count, channels, height, width), np.float32)
    cells = [(1, 1)]
    while cells[-1] != (height, width):
        rows, columns = cells[-1]
        cells.append((min(rows * 2, height), min(columns * 2, width)))
    for i in range(count):
        draw = np.random.Generator(np.random.PCG64([seed, i]))
        image = np.zeros((channels, height, width), np.float32)
        for rows, columns in cells:
            field = draw.standard_normal((channels, rows, columns), np.float32)
            image += field[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width]
        images[i] = image / np.sqrt(len(cells))
    return images
