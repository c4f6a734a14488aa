"""The images that a configuration names, changed as it says, in batches for one process of a run: its keys as arguments of
slimtrain.data."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from slimtrain.base.text import count
from slimtrain.config.config import Config
from slimtrain.data.catalog import packaged, tested_whole
from slimtrain.data.datasets import Data, open_data
from slimtrain.data.loader import Batch, test_batches, training_batches
from slimtrain.data.samples import Samples, as_pillow
from slimtrain.data.transforms import Transform, test_transform, train_transform
from slimtrain.training.distributed import Processes

log = logging.getLogger(__name__)

PROBES = 8  # test images that an export is verified with, where noise says little
CALIBRATION_EPOCH = 1_000_000  # images for calibration are drawn as those of an epoch that no run reaches


def data_of(config: Config) -> Data:
    """The images to train and test on. Errors as of `open_data`."""
    return open_data(
        config.data,
        config.data_dir,
        config.holdout,
        config.seed,
        classes=config.classes,
        image_size=config.image_size,
        batch_size=config.batch_size,
        exif_orientation=config.exif_orientation,
        channels=config.in_channels,
    )


def train_transform_of(config: Config) -> Transform:
    """What is done to training images, a new draw with every call."""
    return train_transform(config.augmentation, config.image_size, config.mean, config.std, _whole(config))


def test_transform_of(config: Config) -> Transform:
    """What is done to test images."""
    return test_transform(config.image_size, config.mean, config.std, _whole(config))


test_transform_of.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


def carried_images(config: Config, samples: Samples) -> Tensor | None:
    """Images that a finished checkpoint carries, for the proof of what is exported: PROBES from all over a test set as the
    network sees them, before they are normalized, uint8 [images, channels, height, width]. None where the configuration wants
    none: by itself it takes those that everybody has, as they come with a package, and nobody's own."""
    wanted = packaged(config.data) if config.probe_images == "auto" else config.probe_images == "yes"
    if not wanted or config.layout != "own":
        return None
    transform = test_transform_of(config)
    mean, std = _statistics(config)
    images = []
    for index in spread_indices(len(samples), PROBES):
        with contextlib.suppress(Exception):  # Pillow's decoders raise nearly anything on a damaged file
            image = transform(as_pillow(samples.image(index), config.in_channels))
            images.append(((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(images) if images else None


def normalized(images: Tensor, config: Config) -> Tensor:
    """Such images as the network takes them."""
    mean, std = _statistics(config)
    return (images / 255 - mean) / std


def _statistics(config: Config) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of images, [channels, 1, 1]."""
    return torch.tensor(config.mean).reshape(-1, 1, 1), torch.tensor(config.std).reshape(-1, 1, 1)


def spread_indices(count: int, most: int) -> range:
    """At most so many places from all over a set, which lies class by class."""
    step = max(1, count // most)
    return range(0, min(count, step * most), step)


def _whole(config: Config) -> bool:
    """Whether test images are resized whole, as small ones are."""
    return tested_whole(config.data, config.augmentation)


class Unreadable(Protocol):
    """A batch, some of whose images could not be read."""

    @property
    def unreadable(self) -> tuple[str, ...]: ...


AnyBatch = TypeVar("AnyBatch", bound=Unreadable)


@dataclass(frozen=True)
class Images(ABC):
    """The images `data` of a configuration, for one of `processes`, in batches of whatever a network of its kind takes."""

    config: Config
    data: Any  # ImageSets
    processes: Processes

    def training(self, start_step: int = 0) -> Iterator[Any]:
        """The batches of the steps from `start_step` on to the end of all epochs."""
        config = self.config
        return self._training(config.epochs, config.batch_size, config.seed, config.drop_last, start_step)

    def calibrating(self) -> Iterator[Tensor]:
        """The images of `calibration_batches` batches, augmented as in training, the same whenever they are asked for."""
        config = self.config
        batch_size = min(config.batch_size, len(self.data.train))
        batches = self._training(CALIBRATION_EPOCH, batch_size, config.seed + CALIBRATION_EPOCH)
        return (batch.images for batch in islice(batches, config.calibration_batches))

    def describe_calibration(self) -> str:
        """`22 batches of 64 of the 1,437 training images`."""
        config, images = self.config, len(self.data.train)
        batches = count(config.calibration_batches, "batch", "batches")
        return f"{batches} of {min(config.batch_size, images):,} of the {images:,} training images"

    @abstractmethod
    def testing(self) -> Iterator[Any]:
        """Every test image once, over all processes."""

    @abstractmethod
    def _training(
        self, epochs: int, batch_size: int, seed: int, drop_last: bool = True, start_step: int = 0
    ) -> Iterator[Any]: ...


@dataclass(frozen=True)
class RunImages(Images):
    """Labeled images."""

    data: Data

    def testing(self) -> Iterator[Batch]:
        """Every test image once, over all processes."""
        config, processes = self.config, self.processes
        return test_batches(
            self.data.test,
            test_transform_of(config),
            batch_size=config.test_batch_size or config.batch_size,
            rank=processes.rank,
            world=processes.world,
            workers=config.loaders,
            pin_memory=processes.device.type == "cuda",
        )

    def _training(
        self, epochs: int, batch_size: int, seed: int, drop_last: bool = True, start_step: int = 0
    ) -> Iterator[Batch]:
        processes = self.processes
        return training_batches(
            self.data.train,
            train_transform_of(self.config),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            drop_last=drop_last,
            start_step=start_step,
            rank=processes.rank,
            world=processes.world,
            workers=self.config.loaders,
            pin_memory=processes.device.type == "cuda",
        )


class UnreadableImages:
    """Names every image that cannot be read once, and counts them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def note_replaced(self, batch: Unreadable) -> None:
        """Of a training batch."""
        for name in self._new(batch):
            log.warning("%s: cannot be read, another image takes its place (%d so far)", name, len(self.names))

    def note_left_out(self, batches: Iterator[AnyBatch]) -> Iterator[AnyBatch]:
        """The same test batches."""
        for batch in batches:
            for name in self._new(batch):
                log.warning("%s: cannot be read, left out of the test", name)
            yield batch

    def _new(self, batch: Unreadable) -> Iterator[str]:
        for name in batch.unreadable:
            if name not in self.names:
                self.names.add(name)
                yield name
