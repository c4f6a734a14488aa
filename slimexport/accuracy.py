"""Accuracy of exported files: the files themselves, run on labeled images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from slimexport.target.manifest import Accuracy
from slimtrain.base.errors import UserError
from slimtrain.base.text import count
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.data.catalog import CATALOG, DIGITS, FOLDER, packaged
from slimtrain.data.datasets import open_data
from slimtrain.data.folders import scan
from slimtrain.data.images import Preprocessing
from slimtrain.data.loader import Batch, test_batches
from slimtrain.data.opening import OWN_ARRAYS, check_channels
from slimtrain.data.samples import Samples
from slimtrain.data.transforms import Prepared

log = logging.getLogger(__name__)

BATCH_SIZE = 64
MOST_WORKERS = 4


@dataclass(frozen=True)
class LabeledImages:
    """Images with the labels that a network's outputs are numbered by. `name` goes into the manifest."""

    name: str
    samples: Samples
    transform: Callable[[Any], Any]
    workers: int

    def batches(self) -> Iterator[Batch]:
        """All images once; unreadable ones are named and left out. A bar on a terminal."""
        failed, total = 0, len(self.samples)
        with tqdm(desc="accuracy", total=total, unit="image", disable=None, leave=False) as bar:
            for batch in test_batches(self.samples, self.transform, batch_size=BATCH_SIZE, workers=self.workers):
                failed += len(batch.unreadable)
                for name in batch.unreadable:
                    log.warning("%s: not a readable image, left out", name)
                yield batch
                bar.update(batch.total + len(batch.unreadable))
        if failed:
            log.warning("%d of %d images could not be read", failed, total)


def labeled_images(
    source: str | Path, checkpoint: Checkpoint, preprocessing: Preprocessing, workers: int | None = None
) -> LabeledImages:
    """The images of `source` for a checkpoint's networks; see `images_for`. UserError where these do not give classes of
    images."""
    checkpoint.spec.check_classifier(checkpoint.file, "accuracy")
    return images_for(source, checkpoint.spec.classes, preprocessing, checkpoint.file, checkpoint.class_names, workers=workers)


def images_for(
    source: str | Path,
    classes: int,
    preprocessing: Preprocessing,
    owner: str,
    class_names: Sequence[str] = (),
    workers: int | None = None,
) -> LabeledImages:
    """The images of `source`: `digits`, the 360 test digits of scikit-learn, or a folder of class folders.

    `owner` is what messages call the network's file; `workers` processes load images, by default up to 4. Raises UserError
    where the folder is none, or its classes are not the network's: by name where `class_names` are known, else by number.
    """
    check_channels(preprocessing.channels, OWN_ARRAYS)
    row = CATALOG[str(source) if packaged(source) else FOLDER]
    if packaged(source):
        data = open_data(row.name)
        samples, names = data.test, data.classes
    else:
        folder = Path(source)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such folder"
            raise UserError(f"{source}: {what}. --accuracy-data takes a folder of class folders, or `{DIGITS}`.")
        files = scan(folder, preprocessing.exif_orientation, preprocessing.channels)
        samples, names = files, files.classes
    if len(names) != classes:
        raise UserError(
            f"{source}: has {count(len(names), 'class', 'classes')}, {owner} has {classes}. Give images of its classes: "
            "a folder with one folder per class."
        )
    if class_names and tuple(class_names) != tuple(names):
        pairs = zip(class_names, names, strict=True)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"{source}: has a class {ours!r} where {owner} has {theirs!r}. Give the folders the names that it was trained "
            "with."
        )
    transform = Prepared(replace(preprocessing, whole=preprocessing.whole or row.whole))
    if workers is None:
        workers = 0 if packaged(source) else min(MOST_WORKERS, os.cpu_count() or 1)
    return LabeledImages(Path(source).name, samples, transform, workers)


def measure(runners: Sequence[Callable[[Any], Any]], images: LabeledImages) -> list[Accuracy]:
    """The accuracy of every runner; the images are read once.

    Raises UserError where no image can be read.
    """
    right = [0] * len(runners)
    total = 0
    for batch in images.batches():
        pixels, labels = batch.images.numpy(), batch.labels.numpy()
        total += len(labels)
        for i, run in enumerate(runners):
            right[i] += int((np.asarray(run(pixels)).argmax(1) == labels).sum())
    if not total:
        raise UserError(f"{images.name}: holds no readable images to measure accuracy with.")
    return [Accuracy(top1=count / total, images=total, data=images.name) for count in right]
