"""Keypoint R-CNN through an export: proven, verified again, its average precision; what moves its points is caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import Proof
from slimexport.target.manifest import Manifest, read_manifest
from slimexport.target.proof.detector_verdict import held_to_detections
from slimexport.target.reference import probes_of, read_reference
from slimexport.target.runners import Given
from slimtrain.base.packages import is_installed
from slimtrain.models.detector import KEYPOINT
from tests.support.coco_pictures import coco_folder
from tests.support.exported_detectors import detector_checkpoint

NAMES = ("one", "two", "three")
needed = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="needs the extra detection")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("keypoints")
    path = detector_checkpoint(folder, KEYPOINT)
    proof = Proof(probes=2)
    manifest = slimexport.export(path, output_dir=folder / "b", proof=proof, detecting=Detecting(score=0.2))
    return folder / "b", manifest


def test_every_width_is_proven_and_verified_again(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    shapes = {result.name: result.shape for result in manifest.results}
    assert shapes["keypoints"] == ("batch", 5, 2, 3) and shapes["keypoint_scores"] == ("batch", 5, 2)
    assert manifest.detector is not None and manifest.detector.kind == KEYPOINT
    again = slimexport.verify_bundle(folder)
    for artifact in (*manifest.artifacts, *again):
        assert artifact.verification.status == "passed" and artifact.verification.detections, artifact.verification


class Moved:
    """A file that gives what the reference says, its keypoints changed."""

    backend = "made up"

    def __init__(self, bundle: Path, change: str) -> None:
        manifest = read_manifest(bundle)
        self.probes = probes_of(bundle, manifest, manifest.artifacts[0], read_reference(bundle))
        self.change = change

    def __call__(self, images: np.ndarray) -> Given:
        chosen = np.array([next(i for i, own in enumerate(self.probes.images) if (own == image).all()) for image in images])
        given = {part.name: part.of(len(self.probes.images), chosen).copy() for part in self.probes.expected}
        there = given["labels"] > 0
        if self.change == "half a pixel":
            given["keypoints"][there] += np.array([0.5, 0.5, 0])
        elif self.change == "x and y":
            given["keypoints"] = given["keypoints"][..., [1, 0, 2]]
        elif self.change == "exchanged":
            given["keypoints"] = given["keypoints"][..., ::-1, :]
        elif self.change == "scores":
            given["keypoint_scores"] *= 1.05
        elif self.change == "behind":
            given["keypoints"][~there] = 1
        return given


@pytest.mark.parametrize(
    ("change", "passes"),
    [("nothing", True), ("half a pixel", False), ("x and y", False), ("exchanged", False), ("scores", False)],
)
def test_points_that_are_elsewhere_fail_on_the_target(bundle: tuple[Path, Manifest], change: str, passes: bool) -> None:
    file = Moved(bundle[0], change)
    assert file.probes.detector is not None
    check = held_to_detections(file, file.probes, file.probes.detector, 1e-4, 0)
    assert check.passed == passes, check.reason


def keypoint_folder(folder: Path) -> Path:
    """COCO's form, with two keypoints of every object."""
    coco_folder(folder, NAMES)
    data: dict[str, Any] = json.loads((folder / "val.json").read_text())
    for own in data["annotations"]:
        x, y, width, height = own["bbox"]
        own |= {"keypoints": [x + width / 4, y + height / 4, 2, x + width / 2, y + height / 2, 2], "num_keypoints": 2}
    for category in data["categories"]:
        category |= {"keypoints": ["left", "right"], "skeleton": []}
    (folder / "val.json").write_text(json.dumps(data))
    return folder


@needed
def test_files_are_as_precise_as_the_checkpoint(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path, KEYPOINT, class_names=NAMES)
    proof = Proof(verify=False, accuracy_data=keypoint_folder(tmp_path / "data"))
    manifest = slimexport.export(path, output_dir=tmp_path / "b", proof=proof, detecting=Detecting(score=0.01))
    for artifact in manifest.artifacts:
        accuracy = artifact.accuracy
        assert accuracy is not None and accuracy.ap is not None and accuracy.checkpoint_ap is not None
        assert accuracy.ap_keypoints is not None and abs(accuracy.ap - accuracy.checkpoint_ap) <= 1e-3
