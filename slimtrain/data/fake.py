"""Images that are made up: to try a configuration, or the speed of a machine, without data."""

from __future__ import annotations

import torch

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.data.catalog import DataRequest
from slimtrain.data.samples import Picture

CLASSES = 10
TRAIN_BATCHES, TEST_BATCHES = 4, 2


def open_fake(request: DataRequest) -> tuple[FakeSamples, FakeSamples, tuple[str, ...]]:
    """A few batches of the size and the number of classes that are asked for, and as many names."""
    classes = request.classes or CLASSES
    train, test = (
        FakeSamples(batches * request.batch_size, classes, request.image_size, part, request.channels)
        for part, batches in (("train", TRAIN_BATCHES), ("test", TEST_BATCHES))
    )
    return train, test, tuple(f"class {i}" for i in range(classes))


class FakeSamples:
    """Noise made on demand, the same for the same `part` and index; classes take turns."""

    def __init__(self, count: int, classes: int, image_size: ImageSize, part: str, channels: int = 3) -> None:
        self.count, self.classes, self.part = count, classes, part
        self.shape = channels, *sides(image_size)

    def __len__(self) -> int:
        return self.count

    def label(self, index: int) -> int:
        return index % self.classes

    def image(self, index: int) -> Picture:
        draw = torch.Generator().manual_seed(2 * index + (self.part == "test"))
        return torch.randint(0, 256, self.shape, dtype=torch.uint8, generator=draw)

    def name(self, index: int) -> str:
        return f"fake {self.part} {index}"
