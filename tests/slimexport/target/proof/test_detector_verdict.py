"""A detector's files on a target: verified by what they detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.onnx_files.runner import onnx_runner
from slimexport.request import Proof
from slimexport.target.errors import BundleError
from slimexport.target.manifest import read_manifest
from slimexport.target.proof.detector_verdict import held_to_detections
from slimexport.target.reference import probes_of, read_reference
from slimexport.target.runners import Given
from tests.support.export_helpers import edit_weight
from tests.support.exported_detectors import detector_checkpoint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdict")
    path = detector_checkpoint(folder)
    slimexport.export(path, widths=[0.5], output_dir=folder / "b", proof=Proof(probes=2), detecting=Detecting(score=0.2))
    return folder / "b"


def test_a_bundle_is_verified_again(bundle: Path) -> None:
    (artifact,) = slimexport.verify_bundle(bundle)
    check = artifact.verification
    assert (check.status, check.ties, check.probes) == ("passed", 0, 2) and check.detections


class Changed:
    """A file that gives what the reference says, one output changed."""

    backend = "made up"

    def __init__(self, bundle: Path, output: str) -> None:
        manifest = read_manifest(bundle)
        self.probes = probes_of(bundle, manifest, manifest.artifacts[0], read_reference(bundle))
        self.output = output

    def __call__(self, images: np.ndarray) -> Given:
        chosen = np.array([next(i for i, own in enumerate(self.probes.images) if (own == image).all()) for image in images])
        given = {part.name: part.of(len(self.probes.images), chosen).copy() for part in self.probes.expected}
        if self.output == "boxes":
            given["boxes"][:, 0, 0] -= 1
        elif self.output == "labels":
            given["labels"][:, 0] = given["labels"][:, 0] % 3 + 1
        elif self.output == "count":
            given["count"] -= 1
        return given


@pytest.mark.parametrize(("output", "passes"), [("nothing", True), ("boxes", False), ("labels", False), ("count", False)])
def test_what_is_detected_otherwise_fails(bundle: Path, output: str, passes: bool) -> None:
    changed = Changed(bundle, output)
    assert changed.probes.detector is not None
    check = held_to_detections(changed, changed.probes, changed.probes.detector, 1e-4, 0)
    assert check.passed == passes and (check.reason is None) == passes


BOXES = "roi_heads.box_predictor.bbox_pred.weight"


def _scaled(array: NDArray[np.float32]) -> None:
    array *= 1.05


def _codes_exchanged(array: NDArray[np.float32]) -> None:
    """Each class has the next one's."""
    array[4:] = np.roll(array[4:], 4, 0)


def _x_and_y_exchanged(array: NDArray[np.float32]) -> None:
    array[:] = array.reshape(-1, 4, array.shape[1])[:, [1, 0, 3, 2]].reshape(array.shape)


@pytest.mark.parametrize("change", [None, _scaled, _codes_exchanged, _x_and_y_exchanged])
def test_boxes_that_are_off_a_little_are_no_ties(
    bundle: Path, change: Callable[[NDArray[np.float32]], None] | None, tmp_path: Path
) -> None:
    """Of classes with equal scores, on boxes that overlap what they should be: however many ties there were before."""
    manifest = read_manifest(bundle)
    (artifact,) = manifest.artifacts
    model = onnx.load(bundle / artifact.file)
    if change is not None:
        edit_weight(model, BOXES, change)
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    probes = probes_of(bundle, manifest, artifact, read_reference(bundle))
    assert probes.detector is not None and probes.near is not None
    check = held_to_detections(onnx_runner(path, "fp32"), probes, probes.detector, 1e-4, 100)
    assert check.passed == (change is None), check.reason


def test_a_reference_without_near_equals_is_one_of_earlier_versions(bundle: Path) -> None:
    changed = Changed(bundle, "boxes")
    probes = replace(changed.probes, near=None)
    assert probes.detector is not None
    assert not held_to_detections(changed, probes, probes.detector, 1e-4, 0).passed
    assert held_to_detections(Changed(bundle, "nothing"), probes, probes.detector, 1e-4, 0).passed


def test_near_equals_of_other_images_are_a_message(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    reference = read_reference(bundle)
    with pytest.raises(BundleError, match="its near_x0_5 are"):
        probes_of(bundle, manifest, manifest.artifacts[0], {**reference, "near_x0_5.open": np.zeros((1, 5), bool)})


def test_raw_boxes_are_held_to_their_numbers(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path)
    slimexport.export(path, widths=[0.5], output_dir=tmp_path / "b", proof=Proof(probes=2), detecting=Detecting("none"))
    (artifact,) = slimexport.verify_bundle(tmp_path / "b")
    assert artifact.verification.status == "passed" and artifact.verification.detections is None
