"""What files tell of a network beside its weights: normalization and the names of its classes, from wherever they come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from slimexport.target.manifest import read_manifest
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from tests.support.export_helpers import opened, refused, run, write_checkpoint

NAMES = ("zero", "eins", "zwölf", "3", "4", "5", "6", "7", "8", "9")
SIZE = ("--image-size", "32", "--widths", "0.25")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("job") / "small.pt")


@pytest.fixture(scope="module")
def own(published: Path) -> Path:
    path = published.with_name("own.pt")
    save(own_content(opened(published).network, 32, (0.25, 0.5, 0.75), (1, 2, 4), NAMES), path)
    return path


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_what_a_run_knows_of_its_images_travels_into_manifest_and_files(own: Path, tmp_path: Path) -> None:
    assert run("--ckpt", own, *SIZE, "--precision", "fp32,fp16", "--no-verify", "--output-dir", tmp_path / "b").code == 0
    manifest = read_manifest(tmp_path / "b")
    assert manifest.output.class_names == NAMES
    assert (manifest.input.mean, manifest.input.std) == ((0.25, 0.5, 0.75), (1, 2, 4))
    assert len(manifest.artifacts) == 2
    for artifact in manifest.artifacts:
        entries = metadata(tmp_path / "b" / artifact.file)
        assert json.loads(entries["class_names"]) == list(NAMES)
        assert (entries["mean"], entries["std"]) == ("0.25,0.5,0.75", "1.0,2.0,4.0")
    assert run("--bundle", tmp_path / "b", "--triton", tmp_path / "models").code == 0
    for model in (tmp_path / "models").iterdir():
        assert (model / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES)


def test_a_published_checkpoint_gets_names_from_a_file(published: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES[::-1]), encoding="utf-8")
    for path in (published, own):  # which come before the checkpoint's own
        outcome = run("--ckpt", path, *SIZE, "--class-names", tmp_path / "names.txt", "--dry-run", "--json")
        assert tuple(outcome.manifest["output"]["class_names"]) == NAMES[::-1]
    assert "class_names" not in run("--ckpt", published, *SIZE, "--dry-run", "--json").manifest["output"]


def test_imagenet_names_are_known() -> None:
    outcome = run("--ckpt", "random:us_mobilenet_v1", *SIZE, "--class-names", "imagenet", "--dry-run", "--json")
    assert outcome.manifest["output"]["class_names"][0] == "tench"


def test_names_that_do_not_fit_are_refused(published: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    for given, words in (("names.txt", "holds 2 names, small.pt has 10"), ("none.txt", "cannot be read")):
        outcome = run("--ckpt", published, *SIZE, "--class-names", tmp_path / given, "--output-dir", tmp_path / "b")
        refused(outcome, 2, words, "Give one name")
    refused(run("--ckpt", published, *SIZE, "--class-names", "imagenet", "--dry-run"), 2, "holds 1000 names")


def test_names_that_are_given_do_not_stand_for_folders(published: Path, tmp_path: Path) -> None:
    """ImageNet's folders are called n01440764 and so on: images are labeled by their folders' order."""
    for number in range(10):
        (tmp_path / "val" / f"n{number}").mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 25 * number, np.uint8)).save(tmp_path / "val" / f"n{number}" / "a.png")
    (tmp_path / "names.txt").write_text("\n".join(NAMES), encoding="utf-8")
    options = ("--class-names", tmp_path / "names.txt", "--accuracy-data", tmp_path / "val", "--output-dir", tmp_path / "b")
    assert run("--ckpt", published, *SIZE, *options).code == 0
    accuracy = read_manifest(tmp_path / "b").artifacts[0].accuracy
    assert accuracy is not None and accuracy.images == 10
