"""End to end with images that are neither square nor of three channels: trained on PNG folders, exported in fp32 and int8,
verified on photographs, accuracy measured, predicted, benchmarked; each step against what plain Pillow, numpy and onnxruntime
make of the same files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from benchmarks.ceilings import measuring
from benchmarks.cells.records import read_records
from benchmarks.cli import main as benchmarks
from benchmarks.machine import environment
from slimexport.bundle import verify_bundle
from slimexport.predict import predict
from slimexport.target.manifest import read_manifest
from slimexport.target.serving.triton.repository import write_repository
from slimtrain.checkpoints.checkpoint import open_checkpoint
from tests.support.export_helpers import run as slimexport
from tests.support.run_helpers import config_file, done

HEIGHT, WIDTH = 48, 32
MODES = {1: "L", 4: "RGBA"}
SETTINGS: dict[int, dict[str, Any]] = {
    1: {"network": "us_mobilenet_v1"},
    # a rate at which four steps on four images do not make it diverge, on any processor
    4: {"network": "s_shufflenet", "width_range": None, "test_widths": None, "switches": [0.5, 1.0], "lr": 0.01},
}


@dataclass(frozen=True)
class Work:
    """What the commands left."""

    channels: int
    photos: Path
    checkpoint: Path
    bundle: Path


def photographs(folder: Path, mode: str) -> Path:
    """`train/` and `val/` with two classes, bright above and bright below: an image that is turned is another class."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label in ("above", "below"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 80, (60, 44, 4), dtype=np.uint8)
                pixels[:30] += 150
                pixels = pixels if label == "above" else pixels[::-1].copy()
                Image.fromarray(pixels).convert(mode).save(folder / part / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module", params=[1, 4], ids=["gray", "four"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Trained for an epoch, and exported, by the commands."""
    channels, folder = request.param, tmp_path_factory.mktemp("work")
    photos = photographs(folder / "photos", MODES[channels])
    keys = {**SETTINGS[channels], "data": "folder", "data_dir": str(photos), "in_channels": channels, "epochs": 1}
    keys |= {"stem_stride": 1 if channels == 1 else 2, "mean": None, "std": None, "weights": "own.pt", "batch_size": 4}
    file = config_file(folder / "a.yml", **keys, output_dir=str(folder / "run"))
    done("train", file, "--image-size", f"{HEIGHT}x{WIDTH}")
    checkpoint, bundle = folder / "run" / "own.pt", folder / "bundle"
    words = [
        "--widths",
        "0.25" if channels == 1 else "0.5",
        "--precision",
        "fp32,int8",
        "--calibration-data",
        photos / "train",
    ]
    words += ["--accuracy-data", photos / "val", "--verify-data", photos / "val", "--workers", "0", "--probes", "4"]
    outcome = slimexport("--ckpt", checkpoint, *words, "--output-dir", bundle)
    assert outcome.code == 0, outcome
    return Work(channels, photos, checkpoint, bundle)


def by_hand(work: Work, path: Path) -> np.ndarray:
    """[1, channels, 48, 32] of a photograph of 44 x 60: it covers 37 x 55 as 40 x 55, whose center is cropped; each channel by
    itself."""
    entry = read_manifest(work.bundle).input
    with Image.open(path) as image:
        planes = [plane.resize((40, 55), Image.Resampling.BILINEAR) for plane in image.split()]
    pixels = np.stack([np.asarray(plane)[4:52, 4:36] for plane in planes]).astype(np.float64) / 255
    return ((pixels - np.reshape(entry.mean, (-1, 1, 1))) / np.reshape(entry.std, (-1, 1, 1)))[None].astype(np.float32)


def logits(work: Work, file: str, path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(work.bundle / file, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": by_hand(work, path)})[0][0])


def test_the_checkpoint_and_the_manifest_say_which_images_they_take(work: Work) -> None:
    checkpoint, entry = open_checkpoint(work.checkpoint), read_manifest(work.bundle).input
    assert (checkpoint.spec.in_channels, checkpoint.image_size) == (work.channels, (HEIGHT, WIDTH))
    assert (entry.channels, entry.image_size) == (work.channels, (HEIGHT, WIDTH))
    assert entry.mean == checkpoint.mean and len(entry.mean) == work.channels
    with np.load(work.bundle / "reference.npz") as arrays:
        assert arrays["images"].shape == (4, work.channels, HEIGHT, WIDTH)


def test_every_file_was_proven_and_is_proven_again(work: Work) -> None:
    files = {artifact.precision: artifact for artifact in read_manifest(work.bundle).artifacts}
    assert files.keys() == {"fp32", "int8-cpu", "int8", "int8-fp16"}
    assert {artifact.verification.status for artifact in files.values()} == {"passed"}
    assert {check.verification.status for check in verify_bundle(work.bundle)} <= {"passed", "skipped"}
    for artifact in files.values():
        session = onnxruntime.InferenceSession(work.bundle / artifact.file, providers=["CPUExecutionProvider"])
        assert session.get_inputs()[0].shape == ["batch", work.channels, HEIGHT, WIDTH]


def test_verification_and_accuracy_saw_the_photographs_as_they_are(work: Work) -> None:
    """Probes are photographs of `val/`, prepared; accuracy is what plain onnxruntime gets on them."""
    paths = sorted((work.photos / "val").rglob("*.png"))
    prepared = [by_hand(work, path)[0] for path in paths]
    with np.load(work.bundle / "reference.npz") as arrays:
        for probe in arrays["images"]:
            assert min(np.abs(probe - image).max() for image in prepared) < 1e-5
    (exact,) = (artifact for artifact in read_manifest(work.bundle).artifacts if artifact.precision == "fp32")
    right = [int(logits(work, exact.file, path).argmax() == (path.parent.name == "below")) for path in paths]
    assert exact.accuracy is not None
    assert (exact.accuracy.images, exact.accuracy.top1) == (8, sum(right) / 8)


def test_predictions_are_those_of_the_file(work: Work) -> None:
    path = next((work.photos / "val" / "below").glob("*.png"))
    for prediction in predict(work.bundle, [path]):
        values = logits(work, prediction.artifact.file, path).astype(np.float64)
        shares = np.exp(values) / np.exp(values).sum()
        assert prediction.top[0].name == ("above", "below")[int(values.argmax())]
        assert prediction.top[0].probability == pytest.approx(shares.max(), rel=1e-3)


def test_a_checkpoint_is_tested_on_the_images_that_it_takes(
    work: Work, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a configuration for other ones: the checkpoint counts."""
    keys = {**SETTINGS[work.channels], "data": "folder", "data_dir": str(work.photos), "mean": None, "std": None}
    file = config_file(tmp_path / "a.yml", **keys, stem_stride=1 if work.channels == 1 else 2, image_size=64)
    assert "on 8 test images" in done("test", file, "--ckpt", work.checkpoint).out
    assert f"'in_channels': {work.channels}" in caplog.text and f"'image_size': ({HEIGHT}, {WIDTH})" in caplog.text


def test_it_is_measured(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOOK_S", 0.01)
    monkeypatch.setattr(measuring, "LEAST_SAMPLES", 1)
    words = ["--duration", "0.02", "--warmup", "1", "--repeats", "2", "--threads", "1", "--cache-mib", "1", "--no-plots"]
    words += ["--backends", "onnxruntime-cpu,torch-eager,slimmable", "--ckpt", str(work.checkpoint), "--batches", "2"]
    words += ["--precision", "fp32", "--output-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks", str(work.bundle), *words])
    with pytest.raises(SystemExit) as ended:
        benchmarks([str(work.bundle), *words])
    assert ended.value.code == 0
    results = read_records(tmp_path / "bundle").results if (tmp_path / "bundle").is_dir() else read_records(tmp_path).results
    assert {(result.status, result.cell.image_shape) for result in results} == {("measured", (work.channels, HEIGHT, WIDTH))}


def test_triton_is_told_height_and_width(work: Work, tmp_path: Path) -> None:
    write_repository(work.bundle, read_manifest(work.bundle), tmp_path / "models", max_batch=4)
    configs = [path.read_text() for path in (tmp_path / "models").rglob("config.pbtxt")]
    assert configs and all(text.count(f"dims: [ {work.channels}, {HEIGHT}, {WIDTH} ]") == 3 for text in configs)
