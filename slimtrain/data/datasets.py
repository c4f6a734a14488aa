"""From a configuration to labeled images: what to train on, what to test on, and the classes' names."""

from __future__ import annotations

from dataclasses import dataclass

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.data.cifar import open_cifar
from slimtrain.data.digits import DigitsSplit, digits_split
from slimtrain.data.folders import open_folders
from slimtrain.data.samples import ArraySamples, FakeSamples, Samples, hold_out

__all__ = ["Data", "DigitsSplit", "Samples", "digits_split", "open_data"]

FAKE_CLASSES = 10
FAKE_TRAIN_BATCHES, FAKE_TEST_BATCHES = 4, 2


@dataclass(frozen=True)
class Data:
    """`classes` names what the labels count: folders by name, or as the data has them."""

    train: Samples
    test: Samples
    classes: tuple[str, ...]


def open_data(config: Config) -> Data:
    """The images that `config.data` and `data_dir` name; with `holdout`, the test images are training images kept aside.

    Raises UserError where they are missing, laid out in another way, or of another number of classes, and ResourceError
    where a package is missing.
    """
    train, test, classes = _open(config)
    if len(classes) < 2:
        raise UserError(f"data: {config.data} has {len(classes)} class, expected at least 2. Set classes to 2 or more.")
    if config.data == "imagenet" and len(classes) != 1000:
        raise UserError(
            f"{config.data_dir}: train/ has {len(classes)} class folders, ImageNet has 1000. Complete them, or use "
            "data: folder for other images."
        )
    if config.classes and config.classes != len(classes):
        raise UserError(
            f"classes is {config.classes}, but the data has {len(classes)}. Leave classes out: the network gets as many "
            "as the data has."
        )
    if config.holdout:
        train, test = hold_out(train, config.holdout, config.seed)
    assert test is not None
    return Data(train, test, classes)


def _open(config: Config) -> tuple[Samples, Samples | None, tuple[str, ...]]:
    """Training images, test images and classes, before any is held out; no test images are looked for if some will be."""
    if config.data in ("imagenet", "folder"):
        return open_folders(config.data_dir, with_test=not config.holdout)
    if config.data in ("cifar10", "cifar100"):
        return open_cifar(config.data, config.data_dir)
    if config.data == "digits":
        split = digits_split()
        train = ArraySamples(split.train_images, split.train_labels, "digits train")
        test = ArraySamples(split.test_images, split.test_labels, "digits test")
        return train, test, tuple(str(digit) for digit in range(10))
    assert config.data == "fake"
    count = config.classes or FAKE_CLASSES
    fakes = [
        FakeSamples(batches * config.batch_size, count, config.image_size, part)
        for part, batches in (("train", FAKE_TRAIN_BATCHES), ("test", FAKE_TEST_BATCHES))
    ]
    return fakes[0], fakes[1], tuple(f"class {i}" for i in range(count))
