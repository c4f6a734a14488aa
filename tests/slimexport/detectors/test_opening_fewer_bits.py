"""Detectors of fewer bits through an export, and verified again where there is only the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import CalibrationImages, Proof
from slimexport.target.manifest import Manifest, dump_manifest, read_manifest
from slimtrain.base.errors import UserError
from slimtrain.base.files import file_sha256
from slimtrain.models.detector import RETINA, SSDLITE
from tests.support.detector_files import SIZE as SINGLE_STAGE_SIZE
from tests.support.exported_detectors import detector_checkpoint
from tests.support.low_detectors import LOW, edit_stored, stored_of
from tests.support.single_stage_files import single_stage_checkpoint
from tests.support.trained_detectors import SIZE

FILES = ("fp32", *LOW)
RUN_HERE = ("fp16", "int8-cpu", "int8")
Change = Callable[[onnx.ModelProto], Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("low")
    draw = np.random.default_rng(3)
    np.save(folder / "noise.npy", draw.standard_normal((15, 3, SIZE, SIZE)).astype(np.float32))
    manifest = slimexport.export(
        detector_checkpoint(folder),
        widths=[1.0],
        precisions=("fp32", "fp16", "bf16", "int8"),
        calibration=CalibrationImages(folder / "noise.npy"),
        output_dir=folder / "bundle",
        proof=Proof(probes=4),
    )
    return folder / "bundle", manifest


def test_every_precision_is_proven_layer_by_layer(bundle: tuple[Path, Manifest]) -> None:
    _, manifest = bundle
    assert [artifact.precision for artifact in manifest.artifacts] == [*FILES]
    exact, *others = manifest.artifacts
    assert exact.verification.layers is None and exact.verification.alike is None
    for artifact in others:
        check = artifact.verification
        assert check.status == "passed" and check.layers and check.layer_error is not None and check.layer_error <= 1
        assert check.alike is not None and check.least_alike is not None and check.alike >= check.least_alike
        assert check.own_tolerance is not None and artifact.size_bytes < exact.size_bytes
        assert (check.cosine is None) == (artifact.precision in ("fp16", "bf16"))


def test_the_manifest_is_read_again(bundle: tuple[Path, Manifest]) -> None:
    assert dump_manifest(read_manifest(bundle[0])) == dump_manifest(bundle[1])


def test_files_pass_again_and_what_cannot_run_here_says_so(bundle: tuple[Path, Manifest]) -> None:
    checks = {artifact.precision: artifact.verification for artifact in slimexport.verify_bundle(bundle[0])}
    for precision in RUN_HERE:
        assert checks[precision].status == "passed" and checks[precision].own_error == 0, precision
    assert all(checks[precision].status == "skipped" and checks[precision].reason for precision in ("bf16", "int8-fp16"))


def doubled(model: onnx.ModelProto) -> None:
    """The scale of what the box head reads first, or, without integers, its weights."""
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    if not pairs:
        return edit_stored(stored_of(model, "roi_heads.box_head.fc6"), lambda array: array.__imul__(2))
    scales = [tensor for tensor in model.graph.initializer if tensor.name == pairs[-1].input[1]]
    scales[0].CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scales[0]), scales[0].name))
    return None


def rolled(name: str) -> Change:
    return lambda model: edit_stored(stored_of(model, name), lambda array: array.__setitem__(..., np.roll(array, 1, 0)))


def halved_stride(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "spatial_scale":
                attribute.f /= 2


DEFECTS: dict[str, Change] = {
    "a scale twice as large": doubled,
    "channels of the backbone": rolled("backbone.body.conv1"),
    "channels of the pyramid": rolled("backbone.fpn.layer_blocks.0.0"),
    "classes": rolled("roi_heads.box_predictor.cls_score"),
    "codes": rolled("roi_heads.box_predictor.bbox_pred"),
    "another stride": halved_stride,
}


@pytest.mark.parametrize("precision", RUN_HERE)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_file_that_was_changed_is_caught_without_a_checkpoint(
    precision: str, defect: str, bundle: tuple[Path, Manifest], tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle[0], copy)
    content = json.loads((copy / "manifest.json").read_text())
    (entry,) = (artifact for artifact in content["artifacts"] if artifact["precision"] == precision)
    model = onnx.load(copy / entry["file"])
    DEFECTS[defect](model)
    onnx.save(model, copy / entry["file"])
    entry["sha256"] = file_sha256(copy / entry["file"])
    content["artifacts"] = [entry]
    (copy / "manifest.json").write_text(json.dumps(content))
    (artifact,) = slimexport.verify_bundle(copy)
    assert artifact.verification.status == "failed", artifact.verification


def test_any_width_of_a_universally_slimmable_detector_has_fewer_bits(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    np.save(tmp_path / "noise.npy", draw.standard_normal((10, 3, SIZE, SIZE)).astype(np.float32))
    manifest = slimexport.export(
        detector_checkpoint(tmp_path, family="us"),
        widths=[0.7],
        precisions=("fp16", "int8"),
        calibration=CalibrationImages(tmp_path / "noise.npy", int8_target="cpu"),
        output_dir=tmp_path / "bundle",
        proof=Proof(probes=2),
    )
    assert [(artifact.width, artifact.precision) for artifact in manifest.artifacts] == [(0.7, "fp16"), (0.7, "int8-cpu")]
    assert all(artifact.verification.status == "passed" for artifact in manifest.artifacts)


@pytest.mark.parametrize("nms", ["none", "trt"])
def test_files_that_nothing_here_lets_choose_have_no_fewer_bits(tmp_path: Path, nms: str) -> None:
    path = detector_checkpoint(tmp_path)
    with pytest.raises(UserError, match=rf"--precision fp16: with --nms {nms} .* Expected --nms fixed or onnx, or fp32"):
        slimexport.export(path, precisions=["fp16"], output_dir=tmp_path / "b", detecting=Detecting(nms))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", [RETINA, SSDLITE])
def test_single_stage_detectors_have_fewer_bits_too(tmp_path: Path, kind: str) -> None:
    path = single_stage_checkpoint(tmp_path, kind)
    images = np.random.default_rng(0).standard_normal((8, 3, *SINGLE_STAGE_SIZE)).astype(np.float32)
    np.save(tmp_path / "noise.npy", images)
    manifest = slimexport.export(
        path,
        widths=[0.5],
        precisions=["fp16", "int8"],
        calibration=CalibrationImages(tmp_path / "noise.npy", int8_target="cpu"),
        output_dir=tmp_path / "bundle",
        proof=Proof(probes=2),
    )
    for artifact in manifest.artifacts:
        check = artifact.verification
        assert check.passed and check.layers is not None and check.layers > 10 and check.detections
        assert check.alike is not None and check.least_alike is not None and check.alike >= check.least_alike
