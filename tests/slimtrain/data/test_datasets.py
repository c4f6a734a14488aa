"""Opening a data set by its name: numbers of classes, held-out images, places that are to be named."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimtrain.base.errors import UserError
from slimtrain.data.catalog import CATALOG
from slimtrain.data.datasets import open_data
from tests.support.data_samples import labels


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="fake has 1 class, expected at least 2"):
        open_data("fake", classes=1, image_size=32)


@pytest.mark.parametrize("classes", [9, 11])
def test_another_number_of_classes_is_refused(classes: int) -> None:
    with pytest.raises(UserError, match=f"classes is {classes}, but the data has 10. Leave classes out"):
        open_data("digits", classes=classes)
    assert len(open_data("digits", classes=10).classes) == 10


def test_with_holdout_the_test_images_are_training_images() -> None:
    whole, data = open_data("digits"), open_data("digits", holdout=100)
    assert len(data.test) == 100 and len(data.train) == 1337
    names = [data.train.name(i) for i in range(1337)] + [data.test.name(i) for i in range(100)]
    assert sorted(names) == sorted(whole.train.name(i) for i in range(1437))


@pytest.mark.parametrize("count", [1437, 50_000])
def test_holding_everything_out_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"holdout is {count}, but there are 1437 training images"):
        open_data("digits", holdout=count)


@pytest.mark.parametrize("data", [row.name for row in CATALOG.values() if row.source == "data_dir"])
def test_no_folder_is_told_with_the_option_to_set(data: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_dir is not set, expected the folder that holds .*--set data_dir=PATH"):
        open_data(data)
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_data(data, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("data", [row.name for row in CATALOG.values() if row.source != "data_dir"])
def test_what_needs_no_folder_opens_at_once(data: str) -> None:
    opened, row = open_data(data, image_size=8, batch_size=2), CATALOG[data]
    assert len(opened.classes) == row.classes or not row.classes
    assert len(opened.train) and len(opened.test)
    assert {*labels(opened.train), *labels(opened.test)} <= set(range(len(opened.classes)))
