"""One file of an image, six ways into a network: training, testing, calibration, accuracy, int8 and verification prepare it
alike, by what the checkpoint says of the run that trained it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from slimexport import exporter
from slimexport.accuracy import images_for, labeled_images
from slimexport.onnx_files.calibration import Calibration
from slimexport.probes.sources import probe_images
from slimexport.request import CalibrationImages
from slimtrain.base.image_size import sides
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config, plain
from slimtrain.data import transforms
from slimtrain.data.images import Preprocessing, preprocessing_of
from slimtrain.training.inputs import RunImages, data_of
from tests.support.run_helpers import ALONE, US1, config, network_of

CLASSES = ("ant", "bee", *(f"c{i}" for i in range(8)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image in every class of both parts: 90 x 61 pixels, to be turned, of 16 bits of gray in half of them."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(1).integers(0, 256, (61, 90)).astype(np.uint8)
    for part in ("train", "val"):
        for i, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            image = Image.fromarray(pixels.astype(np.uint16) * 256 if i % 2 else pixels)
            image.save(folder / part / name / "a.png", exif=exif)
    return folder


def ways(settings: Config, photos: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Every image [N, 3, S, S] as a network gets it, by the way."""
    network = network_of(US1)
    size, mean, std = settings.image_size, settings.mean, settings.std
    save(own_content(network, size, mean, std, CLASSES, settings=plain(settings)), path)
    checkpoint = open_checkpoint(path)
    preprocessing = preprocessing_of(checkpoint)
    run = RunImages(settings, data_of(settings), ALONE)
    seen: dict[str, list[Any]] = {}

    def calibrate(_: Any, plans: Any, batches: Iterable[torch.Tensor]) -> None:
        seen["calibration"] = [batch.numpy() for batch in batches]

    monkeypatch.setattr(exporter, "calibrate", calibrate)
    source = CalibrationImages(photos / "train", 4)
    plans = [US1.plan(0.2)]
    exporter._calibrate(checkpoint, plans, source, preprocessing, exporter._files(["fp32"], source), False)
    chosen = exporter._calibrate(checkpoint, plans, source, preprocessing, exporter._files(["int8"], source), False)
    assert isinstance(chosen, Calibration)
    seen["training"] = [batch.images.numpy() for batch in run.training()]
    seen["testing"] = [batch.images.numpy() for batch in run.testing()]
    seen["accuracy"] = [b.images.numpy() for b in labeled_images(photos / "val", checkpoint, preprocessing, 0).batches()]
    seen["int8"] = [*chosen.fit, *chosen.held]
    seen["verification"] = [probe_images(checkpoint, preprocessing, 10, photos / "val")[0]]
    return {way: np.concatenate(batches) for way, batches in seen.items()}


@pytest.mark.parametrize("exif_orientation", [False, True])
@pytest.mark.parametrize("augmentation", ["none", "cifar", "digits"])
def test_all_ways_prepare_an_image_alike(
    augmentation: str, exif_orientation: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of training what is not drawn: with a shift of 0 and an angle of 0, up to the mirror."""
    monkeypatch.setattr(transforms, "PADDING", 0.0)
    monkeypatch.setattr(transforms, "AFFINE", {"degrees": 0})
    keys = {"data": "folder", "data_dir": str(photos), "augmentation": augmentation, "exif_orientation": exif_orientation}
    settings = config(tmp_path / "run", **keys, batch_size=5, epochs=1, workers=0)
    images = ways(settings, photos, tmp_path / "own.pt", monkeypatch)
    with Image.open(photos / "val" / "ant" / "a.png") as stored:
        picture = stored.transpose(Image.Transpose.ROTATE_270) if exif_orientation else stored.copy()
    size, _ = sides(settings.image_size)
    if augmentation == "none":
        shorter = round(size / 0.875)
        width, height = (int(shorter * side / 61) for side in picture.size)
        large = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((large.width - size) / 2), round((large.height - size) / 2)
        picture = large.crop((left, top, left + size, top + size))
    else:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    values = np.asarray(picture, np.float32)[None] / 255
    expected = (values - np.array(settings.mean)[:, None, None]) / np.array(settings.std)[:, None, None]
    assert set(images) == {"training", "testing", "calibration", "accuracy", "int8", "verification"}
    for way, batch in images.items():
        assert len(batch) == 10, way
        for image in batch:
            mirrored = way == "training" and augmentation == "cifar" and abs(image - expected).max() > 1e-5
            np.testing.assert_allclose(image[:, :, ::-1] if mirrored else image, expected, rtol=0, atol=1e-5, err_msg=way)


def test_the_option_counts_above_what_the_checkpoint_says(photos: Path, tmp_path: Path) -> None:
    settings = config(tmp_path / "run", data="folder", exif_orientation=True)
    save(own_content(network_of(US1), 32, (0.5,) * 3, (0.5,) * 3, settings=plain(settings)), tmp_path / "own.pt")
    checkpoint = open_checkpoint(tmp_path / "own.pt")
    assert preprocessing_of(checkpoint) == Preprocessing(32, (0.5,) * 3, (0.5,) * 3, False, True)
    assert preprocessing_of(checkpoint, 64, False) == Preprocessing(64, (0.5,) * 3, (0.5,) * 3, False, False)


def test_packaged_images_are_prepared_as_the_run_did_though_the_files_are_not(tmp_path: Path) -> None:
    """Digits in a folder are for a network trained on `digits` what the digits are."""
    from slimtrain.data.digits import digits_split

    split = digits_split()
    for label in range(10):
        (tmp_path / "digits8" / str(label)).mkdir(parents=True)
        first = split.test_images[split.test_labels == label][0]
        Image.fromarray(first.transpose(1, 2, 0)).save(tmp_path / "digits8" / str(label) / "a.png")
    how = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, whole=True)
    (files,) = images_for(tmp_path / "digits8", 10, how, "own.pt", workers=0).batches()
    package: dict[int, torch.Tensor] = {}
    for batch in images_for("digits", 10, how, "own.pt").batches():
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            package.setdefault(label, image)
    for image, label in zip(files.images, files.labels.tolist(), strict=True):
        assert torch.equal(image, package[label])
