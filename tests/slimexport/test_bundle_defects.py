"""`--verify-only` catches defects by numbers alone: files that were changed, their checksums in the manifest mended."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import slimexport
from benchmarks.studies.defects.mutations import mutated
from slimexport.request import CalibrationImages
from slimexport.target.errors import BundleError
from slimtrain.base.files import file_sha256
from slimtrain.data.noise import noise_images
from tests.support.small_checkpoint import SIZE, small_checkpoint

PRECISIONS = ("fp32", "fp16", "int8-cpu", "int8")
DEFECTS = (
    "one answer for all",
    "logits times 1000",
    "logits plus 1000",
    "red and blue exchanged",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("right")
    np.save(folder / "noise.npy", noise_images(24, SIZE, 8))
    calibration = CalibrationImages(folder / "noise.npy")
    slimexport.export(
        small_checkpoint(),
        widths=[0.125],
        precisions=("fp32", "fp16", "int8"),
        calibration=calibration,
        output_dir=folder / "bundle",
    )
    return folder / "bundle"


def _changed(bundle: Path, precision: str, defect: str, folder: Path) -> Path:
    """The bundle with a defect in one file, and its new checksum in the manifest."""
    copy = folder / "bundle"
    shutil.copytree(bundle, copy)
    content = json.loads((copy / "manifest.json").read_text())
    (entry,) = (artifact for artifact in content["artifacts"] if artifact["precision"] == precision)
    path = copy / entry["file"]
    model, _ = mutated(onnx.load(path), defect, np.random.default_rng(5))
    onnx.save(model, path)
    entry["sha256"] = file_sha256(path)
    content["artifacts"] = [entry]
    (copy / "manifest.json").write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize("precision", PRECISIONS)
def test_right_files_pass_and_are_what_they_were(precision: str, bundle: Path) -> None:
    (artifact,) = (a for a in slimexport.verify_bundle(bundle) if a.precision == precision)
    assert artifact.verification.status == "passed"
    if precision != "fp32":
        assert artifact.verification.own_error == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_defect_is_caught_by_numbers(precision: str, defect: str, bundle: Path, tmp_path: Path) -> None:
    (artifact,) = slimexport.verify_bundle(_changed(bundle, precision, defect, tmp_path))
    assert artifact.verification.status == "failed", artifact.verification


@pytest.mark.parametrize("defect", ["images coupled", "residual dropped", "weights times 1.05"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_is_more_than_rounding_only_there_is_caught(precision: str, defect: str, bundle: Path, tmp_path: Path) -> None:
    (artifact,) = slimexport.verify_bundle(_changed(bundle, precision, defect, tmp_path))
    assert artifact.verification.status == "failed"


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu", "int8"])
def test_a_manifest_that_permits_more_does_not_help(precision: str, bundle: Path, tmp_path: Path) -> None:
    copy = _changed(bundle, precision, "red and blue exchanged", tmp_path)
    content = json.loads((copy / "manifest.json").read_text())
    content["artifacts"][0]["verification"]["own_tolerance"] = 1e6
    (copy / "manifest.json").write_text(json.dumps(content))
    (artifact,) = slimexport.verify_bundle(copy)
    assert artifact.verification.status == "failed"


def test_outputs_that_the_manifest_tells_of_must_be_there(bundle: Path, tmp_path: Path) -> None:
    copy = _changed(bundle, "int8-cpu", "red and blue exchanged", tmp_path)
    with np.load(copy / "reference.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if not name.startswith("file_")}
    np.savez(copy / "reference.npz", **arrays)
    with pytest.raises(BundleError, match=r"has no file_x0_125\.int8-cpu"):
        slimexport.verify_bundle(copy)
