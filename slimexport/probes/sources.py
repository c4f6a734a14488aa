"""Where probe images come from: photographs that were given, images that the checkpoint carries, or noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import sides
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.images import Images, Preprocessing, open_source
from slimtrain.data.noise import noise_images

SEED = 1  # of noise; untrained networks take their statistics from seed 0
POOL = 64  # images to choose from
CONTRAST = 3


def probe_images(
    checkpoint: Checkpoint,
    preprocessing: Preprocessing,
    count: int,
    given: str | Path | None = None,
    calibrated: str | Path | None = None,
) -> tuple[Images, More]:
    """So many images, and what gives others to choose from: of `given` ones, of those that the
    checkpoint carries, of those that integers are `calibrated` on, or noise. Noise comes to the checkpoint's own only where
    nothing is calibrated: integers are for images of one kind.

    UserError where fewer than two of the given ones can be read.
    """
    if given is not None:
        return _given(given, preprocessing, count)
    if checkpoint.probe_images is not None:
        own = carried_images(checkpoint, preprocessing)
        first = own[:count]
        if len(first) < count:
            first = np.concatenate([first, _noise(preprocessing, count - len(first))])
        return first, lambda: own if calibrated is not None else np.concatenate([own, _contrasts(preprocessing)])
    if calibrated is not None:
        return _given(calibrated, preprocessing, count)
    return _noise(preprocessing, count), lambda: _contrasts(preprocessing)


More = Callable[[], Images]


def other_images(
    checkpoint: Checkpoint,
    preprocessing: Preprocessing,
    count: int,
    given: str | Path | None = None,
    calibrated: str | Path | None = None,
) -> Images:
    """About so many images, of the kinds that `probe_images` gives and, where those are few, of what integers are `calibrated`
    on; some of them may be the same."""
    source = calibrated if given is None else given
    if source is not None:
        images = np.stack(open_source(source, preprocessing).some(count, "steadiness"))
    else:
        images = _contrasts(preprocessing, count)
    if given is not None or checkpoint.probe_images is None:
        return images
    return np.concatenate([carried_images(checkpoint, preprocessing), images])


def _given(path: str | Path, preprocessing: Preprocessing, count: int) -> tuple[Images, More]:
    source = open_source(path, preprocessing)
    images = source.some(count, "verification")
    if len(images) < 2:
        raise UserError(f"{path}: at least 2 readable images are needed for verification, found {len(images)}.")
    return np.stack(images), lambda: np.stack(source.some(POOL, "verification"))


def _contrasts(preprocessing: Preprocessing, count: int = POOL) -> Images:
    """Noise, half of it of so much contrast that it opens channels which ordinary images hardly ever do."""
    images = _noise(preprocessing, count)
    images[count // 2 :] *= CONTRAST
    return images


def _noise(preprocessing: Preprocessing, count: int) -> Images:
    images = noise_images(count, preprocessing.image_size, SEED, preprocessing.channels)
    return images.reshape(count, *preprocessing.input_shape)


def carried_images(checkpoint: Checkpoint, preprocessing: Preprocessing) -> Images:
    """The images that a checkpoint carries, float32 [N, channels, height, width], of the size that is exported."""
    assert checkpoint.probe_images is not None
    pixels = checkpoint.probe_images.float()
    size = sides(preprocessing.image_size)
    if pixels.shape[2:] != size:
        pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels / 255 - mean) / std).contiguous().numpy()
