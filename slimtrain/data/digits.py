"""scikit-learn's 1,797 handwritten digits of 8 by 8 pixels, split once and for all.

Training, export and verification are to see the same 360 test images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slimtrain.base.errors import ResourceError
from slimtrain.data.catalog import DataRequest
from slimtrain.data.samples import ArraySamples

TEST_IMAGES = 360
BRIGHTEST = 16  # of the stored values


class DigitsSplit(NamedTuple):
    """Images are uint8 [N, 3, 8, 8] (gray, 0 to 255), labels int64 [N]."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def open_digits(request: DataRequest) -> tuple[ArraySamples, ArraySamples, tuple[str, ...]]:
    """The split as samples, and the digits' names. ResourceError without scikit-learn."""
    split, name = digits_split(), request.dataset.name
    train = ArraySamples(split.train_images, split.train_labels, f"{name} train")
    test = ArraySamples(split.test_images, split.test_labels, f"{name} test")
    return train, test, tuple(str(digit) for digit in range(request.dataset.classes))


def digits_split() -> DigitsSplit:
    """1,437 digits to train and 360 to test, each class in the same share. ResourceError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ResourceError(
            f"data: digits needs scikit-learn, which cannot be imported ({error}). Install it: "
            "pip install 'slimmable-deploy[digits]' (or pip install scikit-learn)."
        ) from error
    values, labels = load_digits(return_X_y=True)
    gray = np.rint(values.reshape(-1, 1, 8, 8) * (255 / BRIGHTEST)).astype(np.uint8)
    images = np.repeat(gray, 3, axis=1)
    train, test, train_labels, test_labels = train_test_split(
        images, labels.astype(np.int64), test_size=TEST_IMAGES, stratify=labels, random_state=0
    )
    return DigitsSplit(train, train_labels, test, test_labels)
