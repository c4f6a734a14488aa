"""From a data set's name to labeled images: what to train on, what to test on, and the classes' names."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Protocol

from slimtrain.base.errors import UserError
from slimtrain.base.image_size import ImageSize
from slimtrain.data.catalog import CATALOG, DataRequest
from slimtrain.data.samples import Pictures, Samples, hold_out


class ImageSets(Protocol):
    """What a run trains and tests on, whatever is known of its images, and the names of their classes."""

    @property
    def train(self) -> Pictures: ...

    @property
    def test(self) -> Pictures: ...

    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Data:
    """`classes` names what the labels count: folders by name, or as the data has them."""

    train: Samples
    test: Samples
    classes: tuple[str, ...]


def open_data(
    kind: str,
    folder: str = "",
    holdout: float = 0,
    seed: int = 0,
    *,
    classes: int = 0,
    image_size: ImageSize = 224,
    batch_size: int = 256,
    exif_orientation: bool = False,
    channels: int = 3,
) -> Data:
    """The images of `kind`, a row of the catalog, in `folder` where they come from one; with `holdout`, the test images are
    so many training images kept aside, or, below 1, that share of each class's, drawn by `seed`.

    `classes` is the number that is expected, 0 for any. Of noise there are a few batches of `batch_size` images of
    `image_size`; files are opened with so many `channels`. Raises UserError where images are missing, laid out in another way,
    or of another number of classes, and ResourceError where a package is missing.
    """
    row = CATALOG[kind]
    read = pkgutil.resolve_name(row.reader)
    test: Samples | None
    request = DataRequest(row, folder, not holdout, classes, image_size, batch_size, exif_orientation, channels)
    train, test, names = read(request)
    if len(names) < 2:
        raise UserError(f"data: {kind} has {len(names)} class, expected at least 2. Set classes to 2 or more.")
    if classes and classes != len(names):
        raise UserError(
            f"classes is {classes}, but the data has {len(names)}. Leave classes out: the network gets as many "
            "as the data has."
        )
    if holdout:
        train, test = hold_out(train, holdout, seed)
    assert test is not None
    return Data(train, test, names)
