"""What is wrong with the keypoints of a detector's file is caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from slimtrain.detection.fixed import keypoints
from slimtrain.models.detector import KEYPOINT
from tests.support.detector_defects import after, caught, flipped
from tests.support.detector_files import detector_file, written
from tests.support.export_helpers import edit_weight

WEIGHTS = {
    "head": "roi_heads.keypoint_head.0",
    "last of the head": "roi_heads.keypoint_head.14",
    "predictor": "roi_heads.keypoint_predictor.kps_score_lowres",
}


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_flipped_weight_of_the_head_is_caught(part: str, tmp_path: Path) -> None:
    flipped(detector_file(KEYPOINT), tmp_path, WEIGHTS[part], "keypoint_logits")


def test_exchanged_keypoints_are_caught(tmp_path: Path) -> None:
    def swap(array: NDArray[np.float32]) -> None:
        array[:, [0, 2]] = array[:, [2, 0]]

    file = detector_file(KEYPOINT)
    caught(file, tmp_path, lambda model: edit_weight(model, f"{WEIGHTS['predictor']}.weight", swap), "keypoint_logits")


def with_constant(kind: str, number: float) -> Callable[[str, str], list[onnx.NodeProto]]:
    """An operation of a value and a number."""

    def nodes(before: str, name: str) -> list[onnx.NodeProto]:
        constant = helper.make_node(
            "Constant", [], [f"{name}.number"], value=numpy_helper.from_array(np.array(number, np.float32))
        )
        return [constant, helper.make_node(kind, [before, f"{name}.number"], [name])]

    return nodes


@pytest.mark.parametrize(
    ("output", "kind", "number"),
    [
        ("keypoints", "Add", 0.5),
        ("keypoints", "Mul", 1.01),
        ("keypoint_scores", "Mul", 1.001),
        ("keypoint_scores", "Add", 0.01),
    ],
)
def test_points_and_scores_that_are_elsewhere_are_caught(output: str, kind: str, number: float, tmp_path: Path) -> None:
    caught(detector_file(KEYPOINT), tmp_path, after(output, with_constant(kind, number)), "keypoint")


def test_x_and_y_exchanged_are_caught(tmp_path: Path) -> None:
    def exchanged(before: str, name: str) -> list[onnx.NodeProto]:
        order = helper.make_node("Constant", [], [f"{name}.order"], value=numpy_helper.from_array(np.array([1, 0, 2])))
        return [order, helper.make_node("Gather", [before, f"{name}.order"], [name], axis=3)]

    caught(detector_file(KEYPOINT), tmp_path, after("keypoints", exchanged), "keypoint")


@pytest.mark.parametrize(("name", "value"), [("SHARP", -0.5), ("CELLS", 1)])
def test_maps_that_are_enlarged_otherwise_are_caught(
    name: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another interpolation; so few cells looked into that it is never sure."""
    file = detector_file(KEYPOINT)
    if name == "CELLS":
        original = keypoints.Keypoints
        monkeypatch.setattr(
            "slimtrain.detection.fixed.whole.Keypoints", lambda settings, size: original(settings, size, int(value))
        )
    else:
        monkeypatch.setattr(keypoints, name, value)
    model = written(file.network, file.settings, file.width)
    monkeypatch.undo()
    parts = file.prove(model, tmp_path)
    assert not parts.right and ("keypoint" in parts.fault or "settled" in parts.fault), parts.fault


def test_regions_of_keypoints_that_are_pooled_otherwise_are_caught(tmp_path: Path) -> None:
    file = detector_file(KEYPOINT)

    def coarser(model: onnx.ModelProto) -> None:
        node = [node for node in model.graph.node if node.op_type == "RoiAlign"][-1]
        kept = [own for own in node.attribute if own.name != "sampling_ratio"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("sampling_ratio", 1)])

    caught(file, tmp_path, coarser, "keypoint_logits")
