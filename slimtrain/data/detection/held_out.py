"""Training images with objects that are kept aside, for a search or for tests."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.data.detection.targets import DetectionSamples, Targets
from slimtrain.data.samples import Picture


class DetectionPart:
    """Those of `samples` that `indices` name, in that order."""

    def __init__(self, samples: DetectionSamples, indices: NDArray[np.int64]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Picture:
        return self.samples.image(int(self.indices[index]))

    def targets(self, index: int) -> Targets:
        return self.samples.targets(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.samples.name(int(self.indices[index]))


def count_held_out(images: int, holdout: float) -> int:
    """How many of so many training `images` are held out: a number of them, or, of a number below 1, that share. UserError
    where none would be, or none would be left to train on."""
    number = int(holdout) if holdout >= 1 else round(images * holdout)
    if not 0 < number < images:
        raise UserError(
            f"holdout is {holdout}, but there are {images} training images: expected a number from 1 to {images - 1}, or a "
            "share of them: --set holdout=0.2."
        )
    return number


def drawn_order(images: int, seed: int | str) -> NDArray[np.int64]:
    """Numbers of so many images, in an order drawn by `seed`: the same in every version of Python."""
    order = list(range(images))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret)
    return np.asarray(order, np.int64)


def hold_out_objects(samples: DetectionSamples, holdout: float, seed: int) -> tuple[DetectionPart, DetectionPart]:
    """(the rest, the samples held out), drawn by `seed`. Errors as of `count_held_out`."""
    number = count_held_out(len(samples), holdout)
    order = drawn_order(len(samples), seed)
    return DetectionPart(samples, np.sort(order[number:])), DetectionPart(samples, order[:number])
