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


def _edited(bundle: Path, **verification: object) -> None:
    """Other values in all verifications of a manifest, None for nothing."""
    content = json.loads((bundle / "manifest.json").read_text())
    for artifact in content["artifacts"]:
        for key, value in verification.items():
            artifact["verification"].pop(key, None)
            artifact["verification"] |= {} if value is None else {key: value}
    (bundle / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize("defect", ["a weight's sign", "weights times 1.05", "bias times 1.05", "biases swapped"])
@pytest.mark.parametrize("precision", ["fp16", "int8-cpu", "int8"])
def test_a_small_defect_is_caught_where_the_file_was_proven(precision: str, defect: str, bundle: Path, tmp_path: Path) -> None:
    copy = _changed(bundle, precision, defect, tmp_path)
    if "own_runtime" not in json.loads((copy / "manifest.json").read_text())["artifacts"][0]["verification"]:
        pytest.skip("this system does not tell its processor")
    (artifact,) = slimexport.verify_bundle(copy)
    assert artifact.verification.status == "failed", artifact.verification


def test_what_is_off_on_average_is_caught_elsewhere_within_the_tolerance(bundle: Path, tmp_path: Path) -> None:
    copy = _changed(bundle, "int8-cpu", "scale doubled", tmp_path)
    _edited(copy, own_runtime=None)
    (artifact,) = slimexport.verify_bundle(copy)
    check = artifact.verification
    assert check.status == "failed" and check.reason is not None and "what roundings move them" in check.reason, check
    assert check.own_error is not None and check.own_tolerance is not None and check.own_error < check.own_tolerance


def test_a_bundle_of_an_earlier_version_is_verified_as_it_was(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    _edited(copy, own_runtime=None, inside=None)
    with np.load(copy / "reference.npz") as archive:
        kept = [name for name in archive.files if name != "more_images" and not name.startswith(("moved_", "inside_"))]
        arrays = {name: archive[name] for name in kept}
    count = len(arrays["images"])
    np.savez(copy / "reference.npz", **{name: values[:count] for name, values in arrays.items()})
    statuses = {artifact.precision: artifact.verification.status for artifact in slimexport.verify_bundle(copy)}
    assert [statuses[precision] for precision in PRECISIONS] == ["passed"] * len(PRECISIONS)
    wrong = _changed(copy, "int8-cpu", "red and blue exchanged", tmp_path / "wrong")
    assert slimexport.verify_bundle(wrong)[0].verification.status == "failed"


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


@pytest.mark.parametrize("values", [None, np.full(3, 0.1), np.full(1000, 0.1), np.array(["a"])], ids=str)
def test_how_far_roundings_move_images_is_told_of_each(values: object, bundle: Path, tmp_path: Path) -> None:
    copy = _changed(bundle, "int8-cpu", "red and blue exchanged", tmp_path)
    with np.load(copy / "reference.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if not name.startswith("moved_")}
    if values is not None:
        arrays["moved_x0_125.int8-cpu"] = values
    np.savez(copy / "reference.npz", **arrays)
    with pytest.raises(BundleError, match=r"reference\.npz"):
        slimexport.verify_bundle(copy)


def test_fp32_files_are_held_against_the_network_on_more_images(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    with np.load(copy / "reference.npz") as archive:
        arrays = dict(archive)
    of_more = arrays["more_x0_125"]
    assert 0 < len(of_more) <= len(arrays["more_images"])
    arrays["more_x0_125"] = of_more + 1e-2 * np.abs(of_more).max() * (np.arange(len(of_more)) == 1)[:, None]
    np.savez(copy / "reference.npz", **arrays)
    checks = {artifact.precision: artifact.verification for artifact in slimexport.verify_bundle(copy)}
    assert checks["fp32"].status == "failed" and "that are no probe images" in str(checks["fp32"].reason)
    assert checks["fp16"].status == "passed"
