"""Accuracy is measured on the files: what plain onnxruntime says of every image, counted by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.transforms.v2.functional import resize

from slimexport.cli import main
from slimexport.exporter import export
from slimexport.request import Proof, Writing
from slimexport.target.manifest import Accuracy, Artifact, Manifest
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.data.digits import digits_split
from slimtrain.data.images import Preprocessing
from slimtrain.data.samples import FileSamples
from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.data_samples import kill_loading_processes

SIZE = 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def network(classes: int) -> SlimmableNetwork:
    """A small network whose answers depend on the image."""
    from slimtrain.checkpoints.untrained import take_statistics

    torch.manual_seed(3)
    slimmable = SlimmableNetwork(NetworkSpec("mobilenet_v1", "us", (0.25, 0.4), classes, width_range=(0.25, 0.4)))
    torch.nn.init.normal_(slimmable.get_parameter("classifier.0.weight"), 0, 0.3)
    take_statistics(slimmable.eval(), torch.randn(4, 3, SIZE, SIZE))
    return slimmable


def saved(folder: Path, names: tuple[str, ...], classes: int = 0) -> Path:
    path = folder / "own.pt"
    save(own_content(network(classes or len(names)), SIZE, MEAN, STD, names), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 5, 4 and 3 images of various shapes."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for count, name in zip((5, 4, 3), ("ant", "bee", "cat"), strict=True):
        (folder / name).mkdir()
        for i in range(count):
            shape = (int(draw.integers(40, 90)), int(draw.integers(40, 90)), 3)
            coarse = draw.integers(0, 256, (4, 4, 3), np.uint8)
            image = Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{i}.png")
    return folder


def by_hand(bundle: Path, artifact: Artifact, images: list[Any], labels: list[int]) -> float:
    session = onnxruntime.InferenceSession(str(bundle / artifact.file), providers=["CPUExecutionProvider"])
    classes = [int(session.run(None, {"input": image[None].astype(np.float32)})[0].argmax()) for image in images]
    return sum(a == b for a, b in zip(classes, labels, strict=True)) / len(labels)


def images_of(manifest: Manifest) -> int:
    accuracy = manifest.artifacts[0].accuracy
    assert accuracy is not None
    return accuracy.images


def test_a_labeled_folder(photos: Path, tmp_path: Path) -> None:
    manifest = export(saved(tmp_path, ("ant", "bee", "cat")), output_dir=tmp_path / "b", proof=Proof(accuracy_data=photos))
    preprocessing = Preprocessing(SIZE, MEAN, STD)
    files = sorted(photos.rglob("*.png"))
    images, labels = [preprocessing(path) for path in files], [["ant", "bee", "cat"].index(p.parent.name) for p in files]
    assert [a.name for a in manifest.artifacts] == ["us_mobilenet_v1_x0_25", "us_mobilenet_v1_x0_4"]
    for artifact in manifest.artifacts:
        expected = by_hand(tmp_path / "b", artifact, images, labels)
        assert artifact.accuracy == Accuracy(top1=expected, images=12, data=photos.name, sha256=artifact.sha256)
    assert len({by_hand(tmp_path / "b", manifest.artifacts[0], images, [c] * 12) for c in range(3)}) > 1


def test_the_digits(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, tuple(map(str, range(10))))
    manifest = export(checkpoint, widths=[0.25], output_dir=tmp_path / "b", proof=Proof(accuracy_data="digits"))
    split = digits_split()
    pixels = resize(torch.from_numpy(split.test_images), [SIZE, SIZE]) / 255
    normalized = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = by_hand(tmp_path / "b", manifest.artifacts[0], list(normalized.numpy()), split.test_labels.tolist())
    (artifact,) = manifest.artifacts
    assert artifact.accuracy == Accuracy(top1=expected, images=360, data="digits", sha256=artifact.sha256)


def test_the_table_shows_it(photos: Path, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, ("ant", "bee", "cat"))
    done = CliRunner().invoke(
        main, ["--ckpt", str(checkpoint), "--accuracy-data", str(photos), "--output-dir", str(tmp_path / "b")]
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[-1] == "accuracy"
    assert lines[1].endswith("%") and lines[2].endswith("%")
    assert f"the 12 images of {photos.name}" in lines[-2]


def test_unreadable_images_are_left_out_and_named(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import shutil

    copy = tmp_path / "photos"
    shutil.copytree(photos, copy)
    (copy / "bee" / "9.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        manifest = export(
            saved(tmp_path, ("ant", "bee", "cat")), widths=[0.25], output_dir=tmp_path / "b", proof=Proof(accuracy_data=copy)
        )
    assert images_of(manifest) == 12
    assert "9.png" in caplog.text and "1 of 13 images" in caplog.text


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (("ant", "bee"), 0, "has 3 classes, own.pt has 2"),
        (("ant", "bee", "dog"), 0, "has a class 'cat' where own.pt has 'dog'"),
        ((), 4, "has 3 classes, own.pt has 4"),
    ],
)
def test_other_classes_are_refused(photos: Path, tmp_path: Path, names: tuple[str, ...], classes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(saved(tmp_path, names, classes), output_dir=tmp_path / "b", proof=Proof(accuracy_data=photos))
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_without_class_names_is_taken_at_its_number_of_classes(photos: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint("mine", None, network(3), SIZE, MEAN, STD)
    manifest = export(checkpoint, widths=[0.25], output_dir=tmp_path / "b", proof=Proof(accuracy_data=photos))
    assert images_of(manifest) == 12


def test_no_folder_and_a_dry_run_are_refused(photos: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, ("ant", "bee", "cat")))
    with pytest.raises(UserError, match=r"no such folder.*digits"):
        export(checkpoint, output_dir=tmp_path / "b", proof=Proof(accuracy_data=tmp_path / "nowhere"))
    (tmp_path / "labeled.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"labeled\.npz: is a file\. --accuracy-data takes a folder of class folders"):
        export(checkpoint, output_dir=tmp_path / "b", proof=Proof(accuracy_data=tmp_path / "labeled.npz"))
    with pytest.raises(UserError, match="leave out --accuracy-data or --dry-run"):
        export(checkpoint, proof=Proof(accuracy_data=photos), writing=Writing(dry_run=True))


def test_killed_processes_are_told_and_the_advice_leads_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_loading_processes(monkeypatch, FileSamples)
    args = ["--ckpt", saved(tmp_path, ("ant", "bee", "cat")), "--widths", "0.25", "--accuracy-data", photos]
    failed = CliRunner().invoke(main, [*map(str, args), "--output-dir", str(tmp_path / "b")])
    assert failed.exit_code == 3 and not (tmp_path / "b").exists()
    assert "a process that loads images was killed" in failed.output and "--workers 0" in failed.output
    assert "docker run --shm-size=8g" in failed.output and "Traceback" not in failed.output
    done = CliRunner().invoke(main, [*map(str, args), "--output-dir", str(tmp_path / "b"), "--workers", "0"])
    assert done.exit_code == 0, done.output
