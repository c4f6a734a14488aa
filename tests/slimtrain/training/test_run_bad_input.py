"""What goes wrong in a run: one message that says what, where and what to do, and the last good state stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.base.errors import CheckpointError, ResourceError, UserError, WidthError
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config
from slimtrain.data.loader import Batch
from slimtrain.training.run import Run, train
from tests.support.run_helpers import ALONE, config, config_file, failure, network_of, refused, run, tree
from tests.support.run_helpers import US1 as SPEC

# ------------------------------------------------------------------------------------------------------ a disk and files


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if target.name == "last.pt" and "last.pt" in written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target.name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    message = failure(config(tmp_path / "run", checkpoint_every=2), ResourceError, "last.pt: no space left", "--resume auto")
    assert "MiB are needed" in message
    monkeypatch.undo()
    assert not list((tmp_path / "run").glob(".*"))
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["training"]["step"] == 2
    train(config(tmp_path / "run", checkpoint_every=2, resume="auto"), ALONE)


def test_a_full_disk_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    outcome = run("train", config_file(tmp_path / "tiny.yml"), "--output-dir", tmp_path / "run")
    refused(outcome, 3, "slimtrain: ", "no space left")
    assert tree(tmp_path / "run") == {}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    refused(
        run("train", config_file(tmp_path / "tiny.yml"), "--output-dir", tmp_path / "runs" / "a"),
        2,
        "cannot be written",
        "another output_dir",
    )


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    assert train(config(tmp_path / "run", epochs=1), ALONE).exists()
    assert "train.log: cannot be written" in caplog.text


# --------------------------------------------------------------------------------------------------------------- batches


def test_one_value_per_channel_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 pixels end as maps of 1 x 1: an image alone has no variance there."""
    monkeypatch.setattr(Run, "train", None)
    for changes in ({"batch_size": 1}, {"accumulate": 8}, {"accumulate": 5}):
        failure(config(tmp_path / "run", **changes), UserError, "one value per channel", "lower accumulate")
    assert not (tmp_path / "run").exists()


def test_a_last_batch_of_one_image(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    settings = config(tmp_path / "run", data="digits", holdout=1437 - 9, drop_last=False)
    failure(settings, UserError, "one value per channel", "drop_last")
    assert not (tmp_path / "run").exists()


def test_where_maps_are_larger_one_image_will_do(tmp_path: Path) -> None:
    settings = {"image_size": 32, "batch_size": 1, "epochs": 1}
    assert train(config(tmp_path / "run", **settings), ALONE).exists()


def test_one_value_that_only_training_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Run.train_step

    def step(self: Run, batch: Batch) -> torch.Tensor:
        return real(self, batch._replace(images=batch.images[:1], labels=batch.labels[:1], total=1))

    monkeypatch.setattr(Run, "train_step", step)
    failure(config(tmp_path / "run"), UserError, "one value per channel")


def test_more_parts_than_images(tmp_path: Path) -> None:
    failure(config(tmp_path / "run", accumulate=9), UserError, "accumulate 9", "parts without images")


def test_calibration_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trained weights are kept: a resumed run calibrates with what is right."""

    def refuse(*args: Any) -> NoReturn:
        raise UserError("there are no images to calibrate with.")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "calibrate", refuse)
        failure(config(tmp_path / "run", epochs=1), UserError, "no images to calibrate with")
    assert train(config(tmp_path / "run", epochs=1, resume="auto"), ALONE).exists()


# -------------------------------------------------------------------------------------------------------- data, networks


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cat", "dog", "owl"):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_missing_data(tmp_path: Path) -> None:
    for name in ("folder", "imagenet", "cifar10", "cifar100"):
        failure(config(tmp_path / "run", data=name), UserError, "data_dir is not set")
        failure(config(tmp_path / "run", data=name, data_dir=str(tmp_path / "no")), UserError, "no such folder", "data_dir")
    assert not (tmp_path / "run").exists()


def test_a_class_count_that_does_not_match(tmp_path: Path, photos: Path) -> None:
    settings = {"data": "folder", "data_dir": str(photos)}
    failure(config(tmp_path / "run", **settings, classes=5), UserError, "classes is 5, but the data has 3")
    failure(config(tmp_path / "run", **{**settings, "data": "imagenet"}), UserError, "3 class folders, ImageNet has 1000")
    assert not (tmp_path / "run").exists()


def test_folders_in_which_nothing_can_be_read(tmp_path: Path, photos: Path) -> None:
    for path in photos.glob("train/*/*.png"):
        path.write_bytes(b"no image")
    settings = config(tmp_path / "run", data="folder", data_dir=str(photos))
    failure(settings, UserError, "12 images in a row", "cannot be read")


def test_no_readable_image_to_test_with(tmp_path: Path, photos: Path) -> None:
    for path in photos.glob("val/*/*.png"):
        path.write_bytes(b"no image")
    failure(config(tmp_path / "run", data="folder", data_dir=str(photos)), UserError, "cannot be read")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save(own_content(network_of(SPEC), 16, (0.5,) * 3, (0.25,) * 3), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_pretrained_weights_of_another_network(tmp_path: Path, weights: Path) -> None:
    def settings(**changes: Any) -> Config:
        return config(tmp_path / "run", pretrained=str(weights), **changes)

    failure(settings(network="us_mobilenet_v2"), CheckpointError, "weights.pt: holds a us_mobilenet_v1", "us_mobilenet_v2")
    failure(settings(width_range=[0.125, 0.5]), CheckpointError, "weights.pt: has widths 0.125, 0.25", "width_range")
    failure(settings(stem_stride=2, image_size=32), CheckpointError, "stem stride 1, the configuration 2")
    failure(settings(classes=3), CheckpointError, "has 10 classes, the data has 3", "reset_classifier=true")
    assert not (tmp_path / "run").exists()
    assert train(settings(classes=3, reset_classifier=True, epochs=1), ALONE).exists()


def test_pretrained_weights_that_are_not_there(tmp_path: Path) -> None:
    failure(config(tmp_path / "run", pretrained=str(tmp_path / "no.pt")), CheckpointError, "no such file")
    (tmp_path / "no.pt").write_bytes(b"PK\x03\x04 nonsense")
    failure(config(tmp_path / "run", pretrained=str(tmp_path / "no.pt")), CheckpointError, "damaged")
    assert not (tmp_path / "run").exists()


def test_images_that_are_too_small_for_the_network(tmp_path: Path) -> None:
    failure(config(tmp_path / "run", image_size=8), UserError, "image size 8", "at least 16 pixels")
    failure(config(tmp_path / "run", stem_stride=2), UserError, "image size 16", "at least 32 pixels")


def test_pretrained_in_the_very_folder_of_the_run(tmp_path: Path) -> None:
    """It is read before the folder is moved aside."""
    first = train(config(tmp_path / "run", epochs=1), ALONE)
    again = train(config(tmp_path / "run", epochs=1, pretrained=str(first)), ALONE)
    assert again == first and (tmp_path / "run.1" / first.name).exists()


def test_widths_that_are_out_of_range(tmp_path: Path) -> None:
    failure(config(tmp_path / "run", test_widths=[0.5]), WidthError, "width 0.5", "0.125 to 0.25")
