"""What files tell of a network beside its weights: normalization and the names of its classes, from wherever they come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from slimexport.job import Job
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.results import results_of
from slimexport.target.manifest import read_manifest
from slimexport.target.precision import files_of
from slimtrain.checkpoints.own_layout import own_content
from slimtrain.checkpoints.writing import save
from slimtrain.costs.cost import CostCounter
from slimtrain.data.images import preprocessing_of
from slimtrain.data.noise import noise_images
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


def test_a_file_that_is_right_of_a_wrong_model_is_wrong(published: Path, tmp_path: Path) -> None:
    """Its layers are held against the fp32 model that it was written from, so that this is held against the checkpoint."""
    checkpoint = opened(published)
    plan = checkpoint.spec.plans[0]
    count, images = CostCounter(checkpoint.spec, 32), noise_images(2, 32)
    files = files_of("fp32")
    job = Job(checkpoint, preprocessing_of(checkpoint, 32), count, images, files, results=results_of(checkpoint))
    expected = job.reference(plan)
    ((_, content, _),) = job.emit(plan)
    for share in (0.0, 1e-5, 2e-3):  # fp16 may be off by 1e-2, fp32 by 1e-4, and what is stored by nothing
        model = onnx.load_from_string(content)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == model.graph.node[-1].input[2])
        shifted = numpy_helper.to_array(bias) + np.float32(share * np.abs(expected[0].values).max())
        bias.CopyFrom(numpy_helper.from_array(shifted, bias.name))
        written = WRITERS["fp16"](Original(model))
        onnx.save(written.model, tmp_path / "a.onnx")
        check = job.verify(tmp_path / "a.onnx", "fp16", plan, expected, written.recorded)
        assert check.status == ("failed" if share else "passed"), check
        wrong = "fp16 is written from a model that is wrong: 10 of 10 biases of classifier.0 are wrong"
        assert (check.reason or "").startswith(wrong if share else "") and bool(check.reason) == bool(share)
