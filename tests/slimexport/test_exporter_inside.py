"""What a file's layers gave is kept in a bundle, and `--verify-only` finds by it what outputs do not show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slimexport.bundle import verify_bundle
from slimexport.exporter import export
from slimexport.request import CalibrationImages
from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.inside.recorded import inside_key
from slimexport.target.verification import Verification
from slimtrain.base.files import file_sha256
from slimtrain.data.noise import noise_images
from tests.support.bundle_helpers import edit_manifest, edit_reference
from tests.support.export_helpers import edit_weight
from tests.support.small_checkpoint import SIZE, small_checkpoint

WIDTH = 0.125
KEY = inside_key("x0_125", "fp16")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inside")
    np.save(folder / "noise.npy", noise_images(20, SIZE, 7))
    images = CalibrationImages(folder / "noise.npy")
    precisions = ["fp32", "fp16", "bf16", "int8"]
    export(small_checkpoint(), widths=[WIDTH], precisions=precisions, calibration=images, output_dir=folder / "b")
    return folder / "b"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """One that a test may damage, of fp32 and fp16, as another machine has it: no runtime gives the same to the last bit."""
    copy = tmp_path / "b"
    shutil.copytree(exported, copy)
    edit_manifest(copy, _elsewhere)
    return copy


def _elsewhere(manifest: dict[str, Any]) -> None:
    manifest["artifacts"] = [entry for entry in manifest["artifacts"] if entry["precision"] in ("fp32", "fp16")]
    for entry in manifest["artifacts"]:
        entry["verification"].pop("own_runtime", None)


def forget(bundle: Path) -> None:
    """As a bundle of an earlier version is."""
    edit_reference(bundle, lambda arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("inside_")])
    edit_manifest(bundle, lambda it: [entry["verification"].pop("inside", None) for entry in it["artifacts"]])


def put_in(bundle: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """A change of the fp16 file, its hash mended."""

    def mend(manifest: dict[str, Any]) -> None:
        (entry,) = (entry for entry in manifest["artifacts"] if entry["precision"] == "fp16")
        path = bundle / entry["file"]
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)
        entry |= {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}

    edit_manifest(bundle, mend)


def verified(bundle: Path) -> Verification:
    """The fp16 file's verification."""
    (check,) = (artifact.verification for artifact in verify_bundle(bundle) if artifact.precision == "fp16")
    return check


def test_files_of_fewer_bits_keep_what_their_layers_gave(exported: Path) -> None:
    entries = json.loads((exported / "manifest.json").read_text())["artifacts"]
    counts = {entry["precision"]: entry["verification"].get("inside") for entry in entries}
    assert counts.pop("fp32") is None
    assert set(counts) == {"fp16", "bf16", "int8-cpu", "int8", "int8-fp16"}
    assert all(53 <= count <= 55 for count in counts.values()), "53 convolutions, the classifier, and its cast"
    with np.load(exported / "reference.npz") as archive:
        sizes = {name: archive[name].nbytes for name in archive.files if name.startswith("inside_")}
    assert len(sizes) == 4 * len(counts) and sum(sizes.values()) < 60_000 * len(counts)


def test_right_files_pass_and_say_how_near_they_are(exported: Path) -> None:
    for artifact in verify_bundle(exported):
        check = artifact.verification
        assert check.status in ("passed", "skipped"), check
        if artifact.precision in ("fp16", "int8-cpu", "int8"):
            assert check.inside_error is not None and check.inside_error < 0.1


def test_what_outputs_do_not_show_is_told_with_its_layer(bundle: Path) -> None:
    def change(weights: Array) -> None:
        weights[3] *= 1.04

    name = "features.9.body.3"
    put_in(bundle, lambda model: edit_weight(model, f"{name}.weight", change))
    check = verified(bundle)
    assert check.status == "failed" and check.reason is not None and f"of drawn numbers, {name} is another one" in check.reason
    assert check.inside_error is not None and check.inside_error > 1
    forget(bundle)
    assert verified(bundle).status == "passed", "else this test says nothing of layers"


def test_a_value_that_was_renamed_away_is_named(bundle: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["other" if name == "features.0.0" else name for name in node.input]
            node.output[:] = ["other" if name == "features.0.0" else name for name in node.output]

    put_in(bundle, rename)
    check = verified(bundle)
    assert check.status == "failed" and check.reason is not None and "it has no value 'features.0.0'" in check.reason


def test_bundles_of_earlier_versions_pass(bundle: Path) -> None:
    forget(bundle)
    check = verified(bundle)
    assert (check.status, check.inside, check.inside_error) == ("passed", None, None)


@pytest.mark.parametrize("part", ["values", "sketches", "scales", "moved"])
def test_what_is_lacking_or_damaged_is_refused_in_one_line(part: str, bundle: Path) -> None:
    for put in (None, np.zeros(3), np.full((2, 2), np.nan, np.float32)):

        def damage(arrays: dict[str, Array], put: Array | None = put) -> None:
            arrays.pop(f"{KEY}.{part}", None)
            if put is not None:
                arrays[f"{KEY}.{part}"] = put

        edit_reference(bundle, damage)
        with pytest.raises(BundleError, match=r"^[^\n]*reference\.npz: [^\n]*(export again|Export again)\.$"):
            verify_bundle(bundle)


def test_a_manifest_that_tells_of_another_number_of_values_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda it: [entry["verification"].update(inside=3) for entry in it["artifacts"]])
    with pytest.raises(BundleError, match=r"tells of 0 values inside 'us_resnet50_x0_125.onnx', manifest.json of 3"):
        verify_bundle(bundle)


def test_a_list_that_is_larger_than_any_is_not_read(bundle: Path) -> None:
    edit_reference(bundle, lambda arrays: arrays.update({f"{KEY}.values": np.zeros(1 << 20, np.uint8)}))
    with pytest.raises(BundleError, match=r"no output of \d+ images is as large"):
        verify_bundle(bundle)
