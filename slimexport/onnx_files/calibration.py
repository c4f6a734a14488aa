"""Int8 calibration: images in, scales of a network's activations out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from slimexport.accuracy import DIGITS
from slimexport.onnx_files.quantize import METHODS, Choice, choose_method
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.images import Preprocessing, image_batches

MOST_IMAGES = 512
HELD_BACK = 5  # every fifth image judges the methods
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Images [N, 3, S, S] that scales are measured on and those that choose between methods; `method` auto, max or
    percentile."""

    fit: list[Images]
    held: list[Images]
    method: str

    @staticmethod
    def of(batches: Iterable[Images], method: str) -> Calibration:
        """Of at most 512 images. UserError for fewer than two."""
        taken: list[Images] = []
        for batch in batches:
            taken += list(batch[: MOST_IMAGES - len(taken)])
            if len(taken) == MOST_IMAGES:
                break
        if len(taken) < 2:
            raise UserError(f"int8 calibration: {len(taken)} image is too few, expected 2 at the very least, better hundreds.")
        held = taken[::HELD_BACK]
        fit = [image for i, image in enumerate(taken) if i % HELD_BACK]
        return Calibration(_batched(fit), _batched(held), method)

    def choose(self, model: onnx.ModelProto) -> Choice:
        """The scales of `model` (fp32), by the method asked for, or by the better one."""
        return choose_method(model, self.fit, self.held, METHODS if self.method == "auto" else (self.method,))


def _batched(images: list[Images], size: int = 64) -> list[Images]:
    return [np.stack(images[i : i + size]) for i in range(0, len(images), size)]


def calibration_batches(
    source: str | Path, checkpoint: Checkpoint, preprocessing: Preprocessing, batch_size: int
) -> Iterator[Images]:
    """Batches of `source`: a folder of images, an array file, or `digits`, scikit-learn's training digits."""
    if str(source) != DIGITS:
        return image_batches(source, preprocessing, batch_size)
    from slimtrain.config.config import Config
    from slimtrain.data.datasets import open_data
    from slimtrain.data.loader import test_batches
    from slimtrain.data.transforms import test_transform

    config = Config(
        network=checkpoint.spec.name,
        data=DIGITS,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    found = test_batches(open_data(config).train, test_transform(config), batch_size=batch_size)
    return (batch.images.numpy() for batch in found)
