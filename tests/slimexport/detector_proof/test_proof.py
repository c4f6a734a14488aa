"""The proof of a detector's file in parts: the right one passes, at whatever seed, trained or not."""

from __future__ import annotations

from pathlib import Path

import pytest

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
