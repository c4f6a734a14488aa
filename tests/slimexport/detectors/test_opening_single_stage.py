"""Single-stage detectors through an export: files from image to boxes, proven, measured, verified again, chosen among."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import Proof
from slimexport.target.errors import BundleError
from slimexport.target.manifest import Manifest, dump_manifest, read_manifest
from slimexport.target.serving.triton.repository import served_file
from slimtrain.base.errors import UserError
from slimtrain.base.files import file_sha256
from slimtrain.base.packages import is_installed
from slimtrain.models.detector import FASTER, RETINA, SSDLITE
from tests.support.coco_pictures import coco_folder
from tests.support.detector_files import SIZE
from tests.support.export_helpers import edit_weight
from tests.support.exported_detectors import detector_checkpoint
from tests.support.single_stage_files import single_stage_checkpoint

NAMES = ("one", "two", "three", "four")
KINDS = [RETINA, SSDLITE]
QUICK = Proof(probes=2)
SCORE = 0.1


@pytest.fixture(scope="module", params=KINDS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("detector")
    path = single_stage_checkpoint(folder, request.param, NAMES)
    detecting = Detecting(score=SCORE, detections=12)
    data = coco_folder(folder / "data", NAMES) if is_installed("faster_coco_eval") else None
    proof = Proof(probes=2, accuracy_data=data)
    return folder / "bundle", slimexport.export(path, output_dir=folder / "bundle", proof=proof, detecting=detecting)


def test_every_width_is_proven(bundle: tuple[Path, Manifest]) -> None:
    _, manifest = bundle
    assert [artifact.width for artifact in manifest.artifacts] == [0.5, 1.0]
    for artifact in manifest.artifacts:
        check = artifact.verification
        assert check.status == "passed" and check.detections and check.ties is not None and check.ties <= 1
        assert check.box_error is not None and check.box_error < 1e-2


def test_manifest_and_files_tell_what_the_detector_is(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    assert dump_manifest(read_manifest(folder)) == dump_manifest(manifest)
    detector = json.loads((folder / "manifest.json").read_text())["detector"]
    assert detector["kind"] in KINDS and (detector["classes"], detector["nms"]) == (4, "fixed")
    assert detector["box"]["score"] == SCORE and detector["box"]["detections"] == 12
    assert {result.name: (result.shape, result.dtype) for result in manifest.outputs} == {
        "boxes": (("batch", 12, 4), "float32"),
        "scores": (("batch", 12), "float32"),
        "labels": (("batch", 12), "int64"),
        "count": (("batch",), "int64"),
        "settled": (("batch",), "bool"),
    }
    stored = {entry.key: entry.value for entry in onnx.load(folder / manifest.artifacts[0].file).metadata_props}
    expected = {"detector": detector["kind"], "nms": "fixed", "score_threshold": str(SCORE), "detections": "12"}
    assert {key: stored[key] for key in expected} == expected


@pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="needs the extra detection")
def test_files_are_as_precise_as_the_checkpoint(bundle: tuple[Path, Manifest]) -> None:
    for artifact in bundle[1].artifacts:
        accuracy = artifact.accuracy
        assert accuracy is not None and accuracy.ap is not None and accuracy.checkpoint_ap is not None
        assert abs(accuracy.ap - accuracy.checkpoint_ap) <= 1e-3


def test_one_file_takes_batches_of_1_2_and_8(bundle: tuple[Path, Manifest]) -> None:
    folder, _ = bundle
    images = np.random.default_rng(3).standard_normal((8, 3, *SIZE)).astype(np.float32)
    with slimexport.open_network(folder, 0.5) as network:
        whole = network(images)
        assert whole["boxes"].shape == (8, 12, 4) and whole["count"].sum() > 0
        for batch in (1, 2):
            parts = network(images[:batch])
            assert np.array_equal(parts["labels"], whole["labels"][:batch])
            assert np.allclose(parts["boxes"], whole["boxes"][:batch], atol=1e-3)


def test_it_is_verified_again_where_there_is_no_torch(bundle: tuple[Path, Manifest]) -> None:
    folder, _ = bundle
    assert [artifact.verification.status for artifact in slimexport.verify_bundle(folder)] == ["passed", "passed"]


def test_a_file_that_was_changed_is_not(bundle: tuple[Path, Manifest], tmp_path: Path) -> None:
    """Its class head has another sign, and the manifest its new hash."""
    folder, manifest = bundle
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    file = copy / manifest.artifacts[0].file
    model = onnx.load(file)
    heads = ("cls_logits.weight", "classification_head.module_list.1.1.weight")
    (name,) = (tensor.name for tensor in model.graph.initializer if tensor.name.endswith(heads))
    edit_weight(model, name, lambda array: array.__imul__(-1))
    onnx.save(model, file)
    stored = json.loads((copy / "manifest.json").read_text())
    stored["artifacts"][0] |= {"sha256": file_sha256(file), "size_bytes": file.stat().st_size}
    (copy / "manifest.json").write_text(json.dumps(stored))
    assert [artifact.verification.status for artifact in slimexport.verify_bundle(copy)] == ["failed", "passed"]


@pytest.mark.parametrize("nms", ["onnx", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_ends_are_proven_too(kind: str, nms: str, tmp_path: Path) -> None:
    path = single_stage_checkpoint(tmp_path, kind)
    manifest = slimexport.export(path, widths=[0.5], output_dir=tmp_path / "b", proof=QUICK, detecting=Detecting(nms))
    assert manifest.artifacts[0].verification.status == "passed"
    shapes = {result.name: result.shape for result in manifest.outputs}
    anchors = {RETINA: 2 * (384 + 96 + 24 + 6), SSDLITE: 6 * 384 + 4 * (96 + 24 + 6 + 2 + 1)}[kind]
    assert shapes["boxes"] == (("batch", anchors, 4) if nms == "none" else ("batch", 30, 4))


@pytest.mark.parametrize("kind", [FASTER, *KINDS])
def test_tensorrt_s_plugin_ends_files_that_are_proven_up_to_it(kind: str, tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path) if kind == FASTER else single_stage_checkpoint(tmp_path, kind)
    folder = tmp_path / "b"
    manifest = slimexport.export(path, widths=[0.5], output_dir=folder, proof=QUICK, detecting=Detecting("trt"))
    check = manifest.artifacts[0].verification
    assert check.status == "partly" and check.reason is not None and "nothing here has run it" in check.reason
    shapes = {result.name: (result.shape, result.dtype) for result in manifest.outputs}
    detections = manifest.detector.box.detections if manifest.detector else 0
    assert shapes["num_detections"] == (("batch", 1), "int32")
    assert shapes["detection_boxes"] == (("batch", detections, 4), "float32")
    (artifact,) = slimexport.verify_bundle(folder)
    assert artifact.verification.status == "skipped" and "TensorRT alone runs" in (artifact.verification.reason or "")
    with pytest.raises(BundleError, match="TensorRT alone runs"):
        served_file(folder, manifest, manifest.artifacts[0])
    with pytest.raises(UserError, match="--nms trt makes them in TensorRT alone"):
        slimexport.export(
            path, widths=[0.5], output_dir=tmp_path / "c", proof=Proof(accuracy_data="scenes"), detecting=Detecting("trt")
        )
