"""Sets of labeled images that are opened one by one: files, arrays in memory, and parts of these.

Workers hold copies of a set, so a set is a few large arrays, not a million small objects.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from slimtrain.base.errors import UserError
from slimtrain.base.text import count
from slimtrain.base.untrusted.quoting import printable
from slimtrain.data.opening import MODES, of_channels, open_image
from slimtrain.data.sampling import Indices, share_by_class

log = logging.getLogger(__name__)

Picture = Image.Image | Tensor  # RGB, L or RGBX, or uint8 [3, 1 or 4, H, W]


class Pictures(Protocol):
    """Images. Opening one raises whatever its decoder does on a damaged file."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Picture:
        """The opened image."""
        ...

    def name(self, index: int) -> str:
        """What messages call it: a path, or as in `digits test 17`."""
        ...


class Samples(Pictures, Protocol):
    """Images with a class each."""

    def label(self, index: int) -> int:
        """The class's number."""
        ...


def labels_of(samples: Samples) -> Indices:
    """The classes of all."""
    return np.fromiter((samples.label(i) for i in range(len(samples))), np.int64, len(samples))


def as_pillow(picture: Picture, channels: int = 3) -> Image.Image:
    """A picture of so many channels as Pillow has it, in which alone images are resized to be tested."""
    if isinstance(picture, Tensor):
        pixels, (own, height, width) = picture.permute(1, 2, 0).contiguous().numpy(), picture.shape
        picture = Image.frombytes(MODES[own], (width, height), pixels.tobytes())
    return of_channels(picture, channels)


class FileSamples:
    """Image files of class folders: `folder/CLASS/FILE`. Opened with so many `channels`, turned as EXIF says where
    `exif_orientation`."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        files: Sequence[Sequence[str]],
        exif_orientation: bool = False,
        channels: int = 3,
    ) -> None:
        """`files[i]` are the names of the files in the folder `classes[i]`; a class is called as its folder is, printably."""
        self.exif_orientation, self.channels = exif_orientation, channels
        encoded = [os.fsencode(name) for names in files for name in names]
        self.folder, self.folders = str(folder), tuple(classes)
        self.classes = tuple(printable(name) for name in classes)
        self.labels = np.repeat(np.arange(len(files)), [len(names) for names in files])
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.names = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def image(self, index: int) -> Picture:
        return open_image(self.name(index), self.exif_orientation, self.channels)

    def name(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        file = os.fsdecode(self.names[start : int(self.ends[index])])
        return os.path.join(self.folder, self.folders[self.label(index)], file)


class ArraySamples:
    """Images in memory: uint8 [N, C, H, W], and their N classes."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[Any], title: str) -> None:
        self.images, self.labels, self.title = torch.from_numpy(images), labels, title

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def image(self, index: int) -> Picture:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"{self.title} {index}"


class PartSamples:
    """Those of `samples` that `indices` name, in that order."""

    def __init__(self, samples: Samples, indices: NDArray[np.int64]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def label(self, index: int) -> int:
        return self.samples.label(int(self.indices[index]))

    def image(self, index: int) -> Picture:
        return self.samples.image(int(self.indices[index]))

    def name(self, index: int) -> str:
        return self.samples.name(int(self.indices[index]))


def hold_out(samples: Samples, holdout: float, seed: int) -> tuple[Samples, Samples]:
    """(the rest, the samples held out), drawn by `seed`: so many, or, of a number below 1, that share of each class.

    A number of them is the split of the published `imagenet1k_val50k`, which shuffles with Python's generator and takes the
    first. UserError where nothing would be left, or nothing held out.
    """
    if 0 < holdout < 1:
        rest, drawn = share_by_class(labels := labels_of(samples), holdout, seed)
        if not len(drawn):
            raise UserError(f"holdout is {holdout}, but no class has two images: none can be held out. Add images.")
        if alone := int((np.bincount(labels) == 1).sum()):
            log.warning("%s with one image, which is trained on: no test image is of these", count(alone, "class", "classes"))
        return PartSamples(samples, rest), PartSamples(samples, drawn)
    number = int(holdout)
    if number >= len(samples):
        raise UserError(
            f"holdout is {number}, but there are {len(samples)} training images: none would be left to train on. "
            "Hold out fewer: --set holdout=N, or a share of them: --set holdout=0.2."
        )
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)  # noqa: S311 (no secret)
    indices = np.asarray(order, np.int64)
    return PartSamples(samples, indices[number:]), PartSamples(samples, indices[:number])
