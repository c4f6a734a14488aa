"""scikit-learn's digits: split in equal shares, none lost."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from slimtrain.base.errors import ResourceError
from slimtrain.data.datasets import open_data
from slimtrain.data.digits import digits_split
from tests.support.data_samples import labels, pixels


def test_digits_are_split_in_equal_shares_and_none_is_lost() -> None:
    from sklearn.datasets import load_digits

    split = digits_split()
    assert split.train_images.shape == (1437, 3, 8, 8) and split.test_images.shape == (360, 3, 8, 8)
    assert split.train_images.dtype == split.test_images.dtype == np.uint8 and split.test_images.max() == 255
    values, known = load_digits(return_X_y=True)
    together = np.concatenate([split.train_images, split.test_images])
    assert (together[:, :1] == together).all()
    samples = zip(together[:, 0].reshape(-1, 64), np.concatenate([split.train_labels, split.test_labels]), strict=True)
    expected = sorted((tuple(np.round(v / 16 * 255)), label) for v, label in zip(values, known, strict=True))
    assert sorted((tuple(gray), label) for gray, label in samples) == expected
    shares = np.bincount(split.test_labels) / np.bincount(known)
    assert abs(shares - 0.2).max() < 0.01
    assert pickle.dumps(split) == pickle.dumps(digits_split())


def test_digits_data_is_the_split() -> None:
    data, split = open_data("digits"), digits_split()
    assert data.classes == tuple("0123456789") and labels(data.test) == split.test_labels.tolist()
    assert (pixels(data.train, 17).numpy() == split.train_images[17]).all() and data.test.name(17) == "digits test 17"


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ResourceError, match=r"pip install 'slimmable-deploy\[digits\]' \(or pip install scikit-learn\)"):
        open_data("digits")
