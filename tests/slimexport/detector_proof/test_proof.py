"""The proof of a detector's file in parts: the right one passes, at whatever seed, trained or not."""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.detector_proof.choices import Judged
from slimexport.detector_proof.inside import Inside
from slimexport.detector_proof.proof import Proving
from slimexport.target.arrays import Array
from slimexport.target.proof.running import partitions
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


def test_what_a_file_gave_in_batches_of_one_size_is_gone_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = detector_file(FASTER)
    sizes = [number for number, batches in enumerate(partitions(len(file.images))) for _ in batches]
    given: list[tuple[int, weakref.ref[Any]]] = []
    left = []
    run = Inside.run

    def watched(inside: Inside, images: Array) -> dict[str, Array]:
        now = sizes[len(given)]
        left.append(sum(before != now and array() is not None for before, array in given))
        values = run(inside, images)
        values["map0"] = values["map0"] + np.float32(1e-7) * len(images) * np.abs(values["map0"]).max()  # never the same
        given.append((now, weakref.ref(values["map0"])))
        return values

    monkeypatch.setattr(Inside, "run", watched)
    parts = file.prove(file.copy(), tmp_path)
    assert parts.right, parts.fault
    assert left == [0] * len(sizes)


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
