"""The images that a configuration names, and what is done to them: its keys as arguments of slimtrain.data."""

from __future__ import annotations

from slimtrain.config.config import Config
from slimtrain.data.catalog import AUGMENTATIONS, CATALOG
from slimtrain.data.datasets import Data, open_data
from slimtrain.data.transforms import Transform, test_transform, train_transform


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
    )


def train_transform_of(config: Config) -> Transform:
    """What is done to training images, a new draw with every call."""
    return train_transform(config.augmentation, config.image_size, config.mean, config.std, _whole(config))


def test_transform_of(config: Config) -> Transform:
    """What is done to test images."""
    return test_transform(config.image_size, config.mean, config.std, _whole(config))


test_transform_of.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


def _whole(config: Config) -> bool:
    """Whether test images are resized whole, as small ones are."""
    return CATALOG[config.data].whole or AUGMENTATIONS[config.augmentation].whole
