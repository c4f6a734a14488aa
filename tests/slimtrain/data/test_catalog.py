"""Every row of the catalog is complete and works: its reader opens it, its number of classes is known to a configuration, the
exporter takes its name where it needs no folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimexport.accuracy import images_for
from slimexport.onnx_files.calibration import calibration_batches
from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import make_config
from slimtrain.data.catalog import AUGMENTATIONS, CATALOG, DataRequest, DataSet, packaged
from slimtrain.data.images import Preprocessing
from slimtrain.data.samples import ArraySamples
from slimtrain.training.inputs import data_of, test_transform_of, train_transform_of
from tests.support.data_sets import WRITERS


def config(name: str, folder: Path, **values: object) -> Config:
    keys = {"network": "us_mobilenet_v1", "data": name, "data_dir": str(folder), "image_size": 32, "batch_size": 4}
    return make_config({**keys, **values}, "test")


@pytest.mark.parametrize("name", CATALOG)
def test_a_row_opens_and_its_images_are_changed_and_tested(name: str, tmp_path: Path) -> None:
    row = CATALOG[name]
    assert row.name == name and row.title and (row.source == "data_dir") == (name in WRITERS)
    if name in WRITERS:
        WRITERS[name](tmp_path)
    settings = config(name, tmp_path)
    data = data_of(settings)
    assert len(data.classes) == (row.classes or len(data.classes)) and settings.known_classes == row.classes
    assert len(data.train) and len(data.test)
    for transform in (train_transform_of(settings), test_transform_of(settings)):
        image = transform(data.train.image(0))
        assert image.shape == (3, 32, 32) and image.dtype == torch.float32


@pytest.mark.parametrize("name", CATALOG)
def test_a_row_says_whether_images_are_tested_whole(name: str, tmp_path: Path) -> None:
    """A frame around an image is still there, or cropped off."""
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, 0] = image[:, -1] = image[:, :, 0] = image[:, :, -1] = 255
    values = {"mean": [0.0] * 3, "std": [1.0] * 3}
    corner = test_transform_of(config(name, tmp_path, **values))(image)[0, 0, 0]
    assert (corner > 0.9) == CATALOG[name].whole
    for kind, augmentation in AUGMENTATIONS.items():
        corner = test_transform_of(config(name, tmp_path, augmentation=kind, **values))(image)[0, 0, 0]
        assert (corner > 0.9) == (CATALOG[name].whole or augmentation.whole)


def test_only_images_that_are_installed_are_named_in_place_of_a_folder() -> None:
    assert [name for name in CATALOG if packaged(name)] == ["digits"]
    assert not packaged("elsewhere/digits") and packaged(Path("digits"))


def test_a_configuration_takes_the_catalogs_names_only() -> None:
    with pytest.raises(UserError, match=f"data is 'digit' .did you mean 'digits'.*Expected {', '.join(CATALOG)}"):
        Config("us_mobilenet_v1", data="digit")
    with pytest.raises(UserError, match=f"augmentation is 'mobil' .*Expected {', '.join(AUGMENTATIONS)}"):
        Config("us_mobilenet_v1", augmentation="mobil")


def open_two(request: DataRequest) -> tuple[ArraySamples, ArraySamples, tuple[str, ...]]:
    samples = ArraySamples(np.zeros((8, 3, 4, 4), np.uint8), np.arange(8) % 2, request.dataset.name)
    return samples, samples, ("left", "right")


def test_a_row_and_its_reader_are_all_that_a_new_data_set_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(CATALOG, "two", DataSet("two", f"{__name__}:open_two", "Two", "package", classes=2, whole=True))
    settings = config("two", tmp_path)
    assert settings.known_classes == 2 and data_of(settings).classes == ("left", "right")
    labeled = images_for("two", 2, Preprocessing(16, (0.5,) * 3, (0.5,) * 3), "a network")
    assert [batch.images.shape for batch in labeled.batches()] == [(8, 3, 16, 16)] and labeled.name == "two"
    (batch,) = calibration_batches("two", Preprocessing(16, (0.5,) * 3, (0.5,) * 3), 8)
    assert batch.shape == (8, 3, 16, 16)
