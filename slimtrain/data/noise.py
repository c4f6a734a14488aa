"""Random images with structure at every scale. numpy only.

White noise says little about a classifier: after global pooling all white-noise images look alike. Sums of random
fields of different coarseness, each octave as strong as the others, differ in their averages too, as photographs do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise_images(count: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    """float32 [count, 3, size, size], mean about 0 and variance about 1 over many images; the same for the same
    arguments, and the first images do not depend on `count`."""
    images = np.empty((count, 3, size, size), np.float32)
    cells = [1]
    while cells[-1] < size:
        cells.append(min(cells[-1] * 2, size))
    for i in range(count):
        draw = np.random.Generator(np.random.PCG64([seed, i]))
        image = np.zeros((3, size, size), np.float32)
        for number in cells:
            field = draw.standard_normal((3, number, number), np.float32)
            index = np.arange(size) * number // size
            image += field[:, index][:, :, index]
        images[i] = image / np.sqrt(len(cells))
    return images
