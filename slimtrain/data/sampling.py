"""Some images of a set, drawn from the whole of it: the one way in which calibration, verification and search take fewer.

By name images come class by class. A part taken so holds one class, a batch filled so has too small a variance. So what is
taken is drawn by a seed, as many of each class as can be, and its order is drawn too: every batch mixes the classes as chance
does, which is what makes the average of its unbiased variances that of the images. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 0
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Images of a set of `total`: `indices` in the order drawn, and how many are of each class of which there are any."""

    indices: Indices
    total: int
    classes: int  # of the whole set
    per_class: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def describe(self, classes: str = "classes") -> str:
        """`256 of 12,345 images, 64 of each of 4 classes`."""
        taken = f"{len(self):,} of {self.total:,} {'image' if self.total == 1 else 'images'}"
        if self.classes < 2 or not self.per_class:
            return taken
        least, most = min(self.per_class), max(self.per_class)
        shares = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        reached = "" if len(self.per_class) == self.classes else f"{len(self.per_class):,} of "
        return f"{taken}, {shares} of each of {reached}{self.classes:,} {classes}"


def draw(labels: Sequence[int] | Indices, count: int, seed: int | str = SEED) -> Draw:
    """`count` images of those whose classes are `labels`, all where there are no more: as many of each class as can be, in an
    order that mixes them, the same for the same arguments."""
    classes = np.asarray(labels, np.int64)
    generator = random.Random(seed)  # noqa: S311 (no secret)
    order = _shuffled(np.arange(len(classes), dtype=np.int64), generator)
    if count < len(order):
        order = _shuffled(order[_rounds(classes[order])[:count]], generator)
    per_class = tuple(np.unique(classes[order], return_counts=True)[1].tolist())
    return Draw(order, len(classes), len(np.unique(classes)), per_class)


def in_rounds(labels: Sequence[int] | Indices, seed: int | str = SEED) -> Indices:
    """All images, in a drawn order of which every beginning holds as many of each class as can be: for who takes images until
    there are enough that can be read."""
    classes = np.asarray(labels, np.int64)
    order = _shuffled(np.arange(len(classes), dtype=np.int64), random.Random(seed))  # noqa: S311 (no secret)
    result: Indices = order[_rounds(classes[order])]
    return result


def share_by_class(labels: Sequence[int] | Indices, share: float, seed: int | str = SEED) -> tuple[Indices, Indices]:
    """(the others, those drawn): `share` of all images, of each class too up to rounding, but at least one of each and never
    all. The only image of a class is not drawn."""
    classes = np.asarray(labels, np.int64)
    order = _shuffled(np.arange(len(classes), dtype=np.int64), random.Random(seed))  # noqa: S311 (no secret)
    sizes = np.bincount(classes)
    quotas = np.floor(sizes * share)
    rest = round(len(classes) * share - quotas.sum())
    quotas[np.argsort(quotas - sizes * share, kind="stable")[:rest]] += 1  # where rounding down took most
    quotas = np.clip(quotas, 1, np.maximum(sizes - 1, 0))
    drawn = _ranks(classes[order]) < quotas[classes[order]]
    return order[~drawn], order[drawn]


def _shuffled(indices: Indices, generator: random.Random) -> Indices:
    """With Python's generator, whose orders are the same in every version."""
    listed = indices.tolist()
    generator.shuffle(listed)
    return np.asarray(listed, np.int64)


def _rounds(classes: Indices) -> Indices:
    """Positions, the first of every class before the second of any."""
    return np.argsort(_ranks(classes), kind="stable")


def _ranks(classes: Indices) -> Indices:
    """How many of its class come before each."""
    grouped = np.argsort(classes, kind="stable")
    _, starts, sizes = np.unique(classes[grouped], return_index=True, return_counts=True)
    ranks = np.empty(len(classes), np.int64)
    ranks[grouped] = np.arange(len(classes)) - np.repeat(starts, sizes)
    return ranks
