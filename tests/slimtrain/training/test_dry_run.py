"""A dry run: the data is looked at, the batch is judged, a few images make a step, nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimtrain.base.errors import UserError
from slimtrain.config.config import Config
from slimtrain.config.reading import config_names, read_config
from slimtrain.training.dry_run import OPENED, dry_run
from slimtrain.training.report import spread_indices
from slimtrain.training.run import Run
from tests.support.run_helpers import ALONE, config


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part, number in (("train", 6), ("val", 2)):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "my photos" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "my photos"


def settings(photos: Path, **changes: Any) -> Config:
    return config(photos.parent / "run", data="folder", data_dir=str(photos), augmentation="mobile", **changes)


def test_the_data_is_counted_and_opened(photos: Path) -> None:
    lines = dry_run(settings(photos), ALONE)
    assert lines[0] == "# data: 3 classes (cat, dog, owl), 18 images to train, 6 to test"
    assert lines[-1].startswith("# dry run: one step of 4 fake images on the CPU") and len(lines) == 2
    assert os.listdir(photos.parent) == [photos.name]


def test_an_image_that_cannot_be_read_is_named(photos: Path) -> None:
    bad = photos / "train" / "cat" / "0.png"
    bad.write_bytes(b"no image")
    lines = dry_run(settings(photos), ALONE)
    assert f"# warning: {bad}: cannot be read (UnidentifiedImageError)" in lines


def test_what_a_run_would_refuse_is_refused(photos: Path) -> None:
    (photos / "val" / "owl").rename(photos / "val" / "eagle")
    with pytest.raises(UserError, match="different classes"):
        dry_run(settings(photos), ALONE)
    with pytest.raises(UserError, match="no such folder"):
        dry_run(settings(photos / "nowhere"), ALONE)


def test_never_the_full_batch(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = Run.train_step

    def step(self: Run, batch: Any) -> Any:
        steps.append(tuple(batch.images.shape))
        return real(self, batch)

    monkeypatch.setattr(Run, "train_step", step)
    lines = dry_run(settings(photos, batch_size=100), ALONE)
    assert "# batch_size is 18 in place of 100, there are 18 training images. Set batch_size to choose another." in lines
    dry_run(settings(photos, batch_size=16, accumulate=4), ALONE)  # parts keep several images
    dry_run(config(photos.parent / "run", data="fake", batch_size=3), ALONE)
    assert steps == [(4, 3, 16, 16), (16, 3, 16, 16), (3, 3, 16, 16)]


@pytest.mark.parametrize("name", [name for name in config_names() if name.startswith("us_mobilenet") or name == "finetune"])
def test_packaged_configurations_without_data(name: str) -> None:
    """As they stand, at their size; the larger networks take seconds each."""
    lines = dry_run(read_config(name, device="cpu"), ALONE)
    assert lines[0].startswith("# data_dir is not set: ") and "# dry run: one step of 4 fake images" in lines[-1]


@pytest.mark.parametrize("count", [1, 5, OPENED, 100, 1000])
def test_a_few_images_from_all_over_a_set(count: int) -> None:
    """Sets lie class by class."""
    few = list(spread_indices(count, OPENED))
    assert len(few) == min(count, OPENED) and few[0] == 0 and few == sorted(set(few))
    assert few[-1] >= count * (OPENED - 1) // OPENED - OPENED and few[-1] < count
