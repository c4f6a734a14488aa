"""Detectors through an export: files from image to boxes, what manifest and metadata tell, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import Proof, Writing
from slimexport.target.manifest import Manifest, dump_manifest, read_manifest
from slimtrain.base.errors import UserError
from slimtrain.models.detector import MASK
from tests.support.exported_detectors import detector_checkpoint
from tests.support.trained_detectors import SIZE

NAMES = ("one", "two", "three")
QUICK = Proof(probes=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("detector")
    path = detector_checkpoint(folder, class_names=NAMES)
    detecting = Detecting(score=0.3, detections=4)
    manifest = slimexport.export(path, output_dir=folder / "bundle", proof=QUICK, detecting=detecting)
    return folder / "bundle", manifest


def test_every_width_is_proven(bundle: tuple[Path, Manifest]) -> None:
    _, manifest = bundle
    assert [artifact.width for artifact in manifest.artifacts] == [0.5, 1.0]
    for artifact in manifest.artifacts:
        check = artifact.verification
        assert check.status == "passed" and check.detections and check.ties == 0
        assert check.box_error is not None and check.box_error < 1e-2


def test_the_manifest_tells_what_the_detector_is(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    assert dump_manifest(read_manifest(folder)) == dump_manifest(manifest)
    detector = json.loads((folder / "manifest.json").read_text())["detector"]
    assert (detector["kind"], detector["classes"], detector["nms"], detector["slim"]) == ("faster_rcnn", 3, "fixed", "all")
    assert (
        detector["box"]["score"] == 0.3
        and detector["box"]["detections"] == 4
        and detector["anchors"]["strides"] == [8, 16, 32]
    )
    assert {result.name: (result.shape, result.dtype) for result in manifest.outputs} == {
        "boxes": (("batch", 4, 4), "float32"),
        "scores": (("batch", 4), "float32"),
        "labels": (("batch", 4), "int64"),
        "count": (("batch",), "int64"),
        "settled": (("batch",), "bool"),
    }
    assert manifest.input.padded and manifest.output.class_names == NAMES


def test_files_tell_it_too(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    stored = {entry.key: entry.value for entry in onnx.load(folder / manifest.artifacts[0].file).metadata_props}
    assert stored["class_names"] == json.dumps(NAMES) and stored["image_size"] == str(SIZE)
    expected = {"detector": "faster_rcnn", "nms": "fixed", "score_threshold": "0.3", "detections": "4", "classes": "3"}
    assert {key: stored[key] for key in expected} == expected


def test_one_file_takes_batches_of_1_2_and_8(bundle: tuple[Path, Manifest]) -> None:
    folder, _ = bundle
    images = np.random.default_rng(3).standard_normal((8, 3, SIZE, SIZE)).astype(np.float32)
    with slimexport.open_network(folder, 0.5) as network:
        whole = network(images)
        assert whole["boxes"].shape == (8, 4, 4) and whole["count"].sum() > 0
        for batch in (1, 2):
            parts = network(images[:batch])
            assert np.array_equal(parts["labels"], whole["labels"][:batch])
            assert np.allclose(parts["boxes"], whole["boxes"][:batch], atol=1e-3)


@pytest.mark.parametrize("nms", ["onnx", "none"])
def test_other_ends_are_proven_too(nms: str, tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path)
    manifest = slimexport.export(path, widths=[0.5], output_dir=tmp_path / "b", proof=QUICK, detecting=Detecting(nms))
    assert manifest.artifacts[0].verification.status == "passed"
    shapes = {result.name: result.shape for result in manifest.outputs}
    assert shapes["boxes"] == (("batch", 20, 3, 4) if nms == "none" else ("batch", 5, 4))


def test_masks_are_part_of_it(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path, MASK)
    manifest = slimexport.export(path, widths=[0.5], output_dir=tmp_path / "b", proof=QUICK)
    assert manifest.results[-1].name == "masks" and manifest.artifacts[0].verification.status == "passed"


def test_a_dry_run_counts_all_regions(tmp_path: Path, bundle: tuple[Path, Manifest]) -> None:
    path = detector_checkpoint(tmp_path)
    described = slimexport.export(path, detecting=Detecting(score=0.3, detections=4), writing=Writing(dry_run=True))
    assert [artifact.macs for artifact in described.artifacts] == [artifact.macs for artifact in bundle[1].artifacts]
    for artifact, there in zip(described.artifacts, bundle[1].artifacts, strict=True):
        assert artifact.size_bytes == pytest.approx(there.size_bytes, rel=0.03)
    budget = described.artifacts[0].macs
    chosen = slimexport.export(
        path, macs=[budget], detecting=Detecting(score=0.3, detections=4), writing=Writing(dry_run=True)
    )
    assert [artifact.width for artifact in chosen.artifacts] == [0.5]


def test_another_network_does_not_end_as_a_detector(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="us_mobilenet_v1 is no detector"):
        slimexport.export(
            "random:us_mobilenet_v1", widths=[0.25], output_dir=tmp_path / "b", detecting=Detecting(detections=5)
        )


def test_a_size_that_strides_do_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        slimexport.export(detector_checkpoint(tmp_path), image_size=60, output_dir=tmp_path / "b")
