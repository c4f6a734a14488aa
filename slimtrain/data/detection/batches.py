"""Batches of images with their objects, in the order and with the draws that `slimtrain.data.loader` says: of an epoch's order
from (seed, epoch), of an image's size and mirroring from (seed, epoch, image), however many processes train and load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from slimtrain.base.errors import UserError
from slimtrain.data.detection.targets import DetectionSamples, Targets
from slimtrain.data.detection.transforms import DetectionTransform, padded
from slimtrain.data.loader import (
    UNREADABLE_RUN,
    Failed,
    Job,
    batches_of,
    none_readable,
    open_or_none,
    opened_near,
    seed_of,
    test_jobs,
    training_jobs,
)
from slimtrain.data.opening import ImageRefused


class DetectionBatch(NamedTuple):
    """This process's share of one step's images. Image i fills `targets[i].height` x `targets[i].width` of its place, from the
    upper left corner; the rest is zeros."""

    step: int  # counted over all epochs
    epoch: int
    images: Tensor  # float32 [n, C, H, W]
    targets: tuple[Targets, ...]  # n, in the coordinates of `images`
    scales: Tensor  # float64 [n, 2]: height and width over the original ones
    total: int  # images of the step over all processes; in testing, n
    unreadable: tuple[str, ...]  # images that were replaced (training) or left out (testing)
    originals: tuple[Targets, ...] = ()  # in testing: n, as the data has them


@dataclass(frozen=True)
class Padding:
    """Images are padded to a multiple of `multiple`, the largest stride, or to `size`, of which files are."""

    multiple: int = 32
    size: tuple[int, int] | None = None


def detection_training_batches(
    samples: DetectionSamples,
    transform: DetectionTransform,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    padding: Padding | None = None,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[DetectionBatch]:
    """The batches of steps `start_step` to the end of all epochs, whole ones only, without crowds: the share of process `rank`
    of `world`.

    An unreadable image is replaced by the next readable one. Raises UserError, at once, where an epoch has no batch or a
    process would get no image, and later, where an image is refused or none can be read; ResourceError where a process that
    loads images dies.
    """
    count = len(samples)
    if count < batch_size or batch_size < world:
        raise UserError(
            f"batches of {batch_size} from {count} training images for {world} processes: expected at most {count}, and at "
            f"least one image for a process. Set batch_size to {world} or more, and to at most {count}."
        )
    steps = count // batch_size
    jobs = training_jobs(count, epochs * steps, steps, batch_size, seed, start_step, rank, world)
    dataset = _TrainingBatches(samples, transform, seed, padding or Padding())
    return batches_of(dataset, jobs, workers, pin_memory)


def detection_test_batches(
    samples: DetectionSamples,
    transform: DetectionTransform,
    *,
    batch_size: int,
    padding: Padding | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[DetectionBatch]:
    """Every image once, with crowds: process `rank` of `world` gets every world-th. Unreadable and refused images are left
    out, and named; a batch may hold no others, and then is empty. UserError where 100 in a row cannot be read."""
    jobs = test_jobs(len(samples), max(batch_size // world, 1), rank, world)
    return batches_of(_TestBatches(samples, transform, padding or Padding()), jobs, workers, pin_memory)


class _TrainingBatches(Dataset[DetectionBatch | Failed]):
    """Makes a job's batch."""

    def __init__(self, samples: DetectionSamples, transform: DetectionTransform, seed: int, padding: Padding) -> None:
        self.samples, self.transform, self.seed, self.padding = samples, transform, seed, padding

    def __getitem__(self, job: Job) -> DetectionBatch | Failed:
        images, targets, unreadable, originals = [], [], [], []
        for index in job.indices:
            nearest = opened_near(self.samples, index)
            if isinstance(nearest, Failed):
                return nearest
            position, picture = nearest
            if position != index:
                unreadable.append(self.samples.name(index))
            try:
                original = self.samples.targets(position).single()
            except ImageRefused as error:
                return Failed(str(error))
            draw = torch.Generator().manual_seed(seed_of(self.seed, job.epoch, index))
            image, target = self.transform(picture, original, draw)
            images.append(image)
            targets.append(target)
            originals.append(original)
        return _batch(job, images, targets, originals, self.padding, job.total, unreadable)


class _TestBatches(Dataset[DetectionBatch | Failed]):
    """Makes a job's batch of what can be read, which may be nothing."""

    def __init__(self, samples: DetectionSamples, transform: DetectionTransform, padding: Padding) -> None:
        self.samples, self.transform, self.padding = samples, transform, padding

    def __getitem__(self, job: Job) -> DetectionBatch | Failed:
        images, targets, unreadable, originals = [], [], [], []
        run = 0
        for index in job.indices:
            name = self.samples.name(index)
            try:
                picture = open_or_none(self.samples, index)
                original = self.samples.targets(index)
            except ImageRefused as error:
                picture, name = None, f"{name} ({error.reason})"
            if picture is None:
                unreadable.append(name)
                run += 1
                if run == UNREADABLE_RUN:
                    return Failed(none_readable(name, run))
                continue
            run = 0
            image, target = self.transform(picture, original)
            images.append(image)
            targets.append(target)
            originals.append(original)
        batch = _batch(job, images, targets, originals, self.padding, len(images), unreadable)
        return batch._replace(originals=tuple(originals))


def _batch(
    job: Job,
    images: list[Tensor],
    targets: list[Targets],
    originals: list[Targets],
    padding: Padding,
    total: int,
    unreadable: list[str],
) -> DetectionBatch:
    """One batch; an empty tensor where nothing could be read."""
    stacked = padded(images, padding.multiple, padding.size) if images else torch.empty(0)
    ratios = [(new.height / old.height, new.width / old.width) for new, old in zip(targets, originals, strict=True)]
    scales = torch.tensor(ratios, dtype=torch.float64).reshape(-1, 2)
    return DetectionBatch(job.step, job.epoch, stacked, tuple(targets), scales, total, tuple(unreadable))
