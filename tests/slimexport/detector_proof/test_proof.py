"""The proof of a detector's file in parts: the right one passes, at whatever seed, trained or not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from slimexport.detector_proof.choices import Judged
from slimexport.detector_proof.proof import Proving
from slimtrain.models.detector import FASTER, KEYPOINT, MASK
from tests.support.detector_files import detector_file


@pytest.mark.parametrize("nms", ["fixed", "onnx", "none"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
@pytest.mark.parametrize("seed", range(3))
def test_the_right_file_passes(seed: int, trained: bool, nms: str, tmp_path: Path) -> None:
    file = detector_file(FASTER, seed, nms=nms, trained=trained)
    parts = file.prove(file.copy(), tmp_path)
    assert parts.right, parts.fault
    assert parts.error < 1e-4 and parts.rows > 200 and parts.ties <= 0.02 * parts.rows


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_right_file_with_masks_passes(width: float, tmp_path: Path) -> None:
    file = detector_file(MASK, width=width)
    parts = file.prove(file.copy(), tmp_path)
    assert parts.right, parts.fault


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("nms", ["fixed", "onnx"])
def test_the_right_file_with_keypoints_passes(nms: str, seed: int, tmp_path: Path) -> None:
    file = detector_file(KEYPOINT, seed, nms=nms)
    parts = file.prove(file.copy(), tmp_path)
    assert parts.right, parts.fault
    assert parts.rows > 1000 and parts.ties <= 0.02 * parts.rows


def test_where_near_equals_decide_too_much_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As of networks that nobody trained, whose scores are nearly all alike."""
    count = Proving._count

    def tied(self: Proving, judged: Judged, what: str) -> None:
        judged.ties += judged.rows
        count(self, judged, what)

    monkeypatch.setattr(Proving, "_count", tied)
    file = detector_file(FASTER)
    fault = file.prove(file.copy(), tmp_path).fault
    assert re.match(r"of images near-equals decide \d+ of \d+ choices otherwise \(at most 5%\): these images prove", fault)
    assert "that nobody trained scores nearly all alike: train it first" in fault and "--verify-data" in fault
