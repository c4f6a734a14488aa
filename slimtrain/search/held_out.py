"""The held-out images that a search measures candidates on, in chunks that are the same on every process and in every step."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import UserError
from slimtrain.data.loader import test_batches
from slimtrain.data.samples import PartSamples, Samples, labels_of
from slimtrain.data.sampling import draw
from slimtrain.search.evaluator import NO_IMAGES, Chunk

log = logging.getLogger(__name__)


def draw_images(samples: Samples, count: int, seed: int, say: Callable[[str], None] = log.debug) -> PartSamples:
    """`count` of `samples`, as many of each class as can be, or all where it is 0, in an order drawn from `seed` alone:
    classes mix in every chunk. How many of how many is told to `say`. UserError where there are none or too few."""
    if not len(samples):
        raise UserError(NO_IMAGES)
    if count > len(samples):
        raise UserError(f"{count} images to search with, but only {len(samples)} are held out. Lower it, or hold out more.")
    drawn = draw(labels_of(samples), count or len(samples), f"search:{seed}")
    if count:
        say(f"searching on {drawn.describe()}")
    return PartSamples(samples, drawn.indices)


def chunk_size(images: int, most: int) -> int:
    """The largest size up to `most` that leaves a last chunk of at least half of it: statistics of a handful of images would
    be noise."""
    return next(size for size in range(min(most, images), 0, -1) if images % size == 0 or 2 * (images % size) >= size)


class HeldOut:
    """`samples` in chunks of up to `batch` images. What fits into `kept_bytes` is opened once, the rest in every step. `seen`
    tells, as plain values, how `transform` makes the network see them."""

    def __init__(
        self,
        samples: Any,
        transform: Any,
        batch: int,
        *,
        workers: int = 0,
        kept_bytes: int = 0,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        if batch < 1:
            raise UserError(f"chunks of {batch} images, expected at least 1.")
        if not len(samples):
            raise UserError(NO_IMAGES)
        self.samples, self.transform, self.workers = samples, transform, workers
        self.size = chunk_size(len(samples), batch)
        self.room = kept_bytes
        self.seen = dict(seen or {})
        self.kept: dict[int, Any] = {}
        self.unreadable: set[str] = set()

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.size)

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """The chunks of ascending `numbers`. Unreadable images are left out and named once, and a chunk of nothing else."""
        for kept, run in groupby(list(numbers), key=self.kept.__contains__):
            wanted = list(run)
            yield from ((number, self.kept[number]) for number in wanted) if kept else self._open(wanted)

    def _open(self, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
        count, size = len(self.samples), self.size
        indices = [i for number in numbers for i in range(number * size, min((number + 1) * size, count))]
        for batch in self._batches(np.asarray(indices, np.int64)):
            for name in set(batch.unreadable) - self.unreadable:
                self.unreadable.add(name)
                log.warning("%s: cannot be read, left out of the search", name)
            chunk, needed = self._chunk(batch)
            if needed <= self.room:
                self.room -= needed
                self.kept[numbers[batch.step]] = chunk
            yield numbers[batch.step], chunk

    # What of it is of labeled images.

    def _batches(self, indices: NDArray[np.int64]) -> Iterator[Any]:
        """Those images in batches of a chunk's size, none of which is empty."""
        part = PartSamples(self.samples, indices)
        return test_batches(part, self.transform, batch_size=self.size, workers=self.workers)

    def _chunk(self, batch: Any) -> tuple[Any, int]:
        """A batch as a chunk, and the bytes that it takes."""
        chunk: Chunk = batch.images, batch.labels
        return chunk, sum(tensor.nbytes for tensor in chunk)

    def _known(self, index: int) -> bytes:
        """What is known of an image."""
        return f"{self.samples.label(index)}\n".encode()

    def identity(self) -> dict[str, Any]:
        """Number of images, size of chunks, how they are seen, and a digest of the images' names and labels in their order. Of
        a path the last two parts count: a moved folder holds the same images."""
        digest = hashlib.sha256()
        for i in range(len(self.samples)):
            name = "/".join(self.samples.name(i).replace("\\", "/").split("/")[-2:])
            digest.update(f"{name}\0".encode(errors="surrogateescape") + self._known(i))
        return {"images": len(self.samples), "chunk": self.size, "images_sha256": digest.hexdigest(), **self.seen}
