"""A detector's files on a target: verified by what they detect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import Proof
from slimexport.target.manifest import read_manifest
from slimexport.target.proof.detector_verdict import held_to_detections
from slimexport.target.reference import probes_of, read_reference
from slimexport.target.runners import Given
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


def test_raw_boxes_are_held_to_their_numbers(tmp_path: Path) -> None:
    path = detector_checkpoint(tmp_path)
    slimexport.export(path, widths=[0.5], output_dir=tmp_path / "b", proof=Proof(probes=2), detecting=Detecting("none"))
    (artifact,) = slimexport.verify_bundle(tmp_path / "b")
    assert artifact.verification.status == "passed" and artifact.verification.detections is None
