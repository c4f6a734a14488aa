"""What samples hold, as plain values."""

from __future__ import annotations

import torch

from slimtrain.data.samples import Samples


def labels(samples: Samples) -> list[int]:
    return [samples.label(i) for i in range(len(samples))]


def pixels(samples: Samples, index: int) -> torch.Tensor:
    image = samples.image(index)
    assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
    return image
