"""What is wrong with any part of a detector's file is caught, whatever the probe images decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from slimtrain.models.detector import FASTER, MASK, DetectorSettings
from tests.support.detector_defects import Change, after, always, caught, flipped
from tests.support.detector_files import DetectorFile, detector_file, written
from tests.support.export_helpers import edit_weight

WEIGHTS = {
    "stem": "backbone.body.conv1",
    "backbone": "backbone.body.layer2.0.conv2",
    "lateral": "backbone.fpn.inner_blocks.0.0",
    "pyramid": "backbone.fpn.layer_blocks.1.0",
    "rpn": "rpn.head.conv.0.0",
    "objectness": "rpn.head.cls_logits",
    "codes": "rpn.head.bbox_pred",
    "fc6": "roi_heads.box_head.fc6",
    "fc7": "roi_heads.box_head.fc7",
    "classes": "roi_heads.box_predictor.cls_score",
    "boxes": "roi_heads.box_predictor.bbox_pred",
}
MASK_WEIGHTS = {
    "mask head": "roi_heads.mask_head.0.0",
    "mask transposed": "roi_heads.mask_predictor.conv5_mask",
    "mask predictor": "roi_heads.mask_predictor.mask_fcn_logits",
}


def caught_with(file: DetectorFile, folder: Path, settings: DetectorSettings, *words: str) -> None:
    """As if its writer had taken other settings."""
    network = file.network
    spec = network.spec
    network.spec = network.body.spec = replace(spec, detector=settings)  # type: ignore[type-var]
    try:
        model = written(network, settings, file.width)
    finally:
        network.spec = network.body.spec = spec
    parts = file.prove(model, folder)
    assert not parts.right
    assert any(word in parts.fault for word in words) or not words, parts.fault


@pytest.mark.parametrize("part", WEIGHTS)
def test_a_flipped_weight_is_caught_in_every_part(part: str, tmp_path: Path) -> None:
    flipped(detector_file(FASTER), tmp_path, WEIGHTS[part])


@pytest.mark.parametrize("part", MASK_WEIGHTS)
def test_a_flipped_weight_of_the_mask_head_is_caught(part: str, tmp_path: Path) -> None:
    flipped(detector_file(MASK), tmp_path, MASK_WEIGHTS[part], "mask_logits")


def test_swapped_classes_are_caught(tmp_path: Path) -> None:
    def swap(array: NDArray[np.float32]) -> None:
        array[[1, 3]] = array[[3, 1]]

    file = detector_file(FASTER)
    caught(
        file,
        tmp_path,
        lambda model: edit_weight(model, f"{WEIGHTS['classes']}.weight", swap),
        "class_logits",
    )


@pytest.mark.parametrize("change", ["half a stride", "another size", "levels exchanged"])
def test_anchors_elsewhere_are_caught(change: str, tmp_path: Path) -> None:
    def shift(model: onnx.ModelProto) -> None:
        anchors = [tensor for tensor in model.graph.initializer if "anchors" in tensor.name]
        assert anchors
        for tensor in anchors:
            array = numpy_helper.to_array(tensor).copy()
            if change == "half a stride":
                array += 2
            elif change == "another size":
                middle = (array[:, :2] + array[:, 2:]) / 2
                array = np.concatenate([middle + 1.1 * (array[:, :2] - middle), middle + 1.1 * (array[:, 2:] - middle)], 1)
            else:
                array = array[::-1]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor.name))

    caught(detector_file(FASTER), tmp_path, shift, "proposals")


CHANGED: dict[str, Callable[[DetectorSettings], DetectorSettings]] = {
    "NMS of proposals": lambda s: replace(s, proposals=replace(s.proposals, nms=0.72)),
    "least score of proposals": lambda s: replace(s, proposals=replace(s.proposals, score=0.02)),
    "least side of proposals": lambda s: replace(s, proposals=replace(s.proposals, least_size=1e-2)),
    "candidates of a level": lambda s: replace(s, proposals=replace(s.proposals, top_k=50)),
    "NMS": lambda s: replace(s, box=replace(s.box, nms=0.48)),
    "least score": lambda s: replace(s, box=replace(s.box, score=0.06)),
    "least side": lambda s: replace(s, box=replace(s.box, least_size=0.1)),
    "weights of boxes": lambda s: replace(s, box=replace(s.box, weights=(10.0, 10.0, 5.0, 5.5))),
    "candidates": lambda s: replace(s, box=replace(s.box, candidates=21)),
    "convention": lambda s: replace(s, convention="published"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_other_rules_are_caught(what: str, tmp_path: Path) -> None:
    file = detector_file(FASTER)
    caught_with(file, tmp_path, CHANGED[what](file.settings), "proposals", "detections", "settled")


def attribute(name: str, value: float | int | str, level: int) -> Change:
    """Another attribute of the RoIAlign of a level."""

    def change(model: onnx.ModelProto) -> None:
        node = [node for node in model.graph.node if node.op_type == "RoiAlign"][level]
        kept = [own for own in node.attribute if own.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spatial_scale", 1 / 32),
        ("spatial_scale", 0.2501),
        ("sampling_ratio", 1),
        ("coordinate_transformation_mode", "half_pixel"),
    ],
)
def test_regions_that_are_pooled_otherwise_are_caught(name: str, value: float | int | str, level: int, tmp_path: Path) -> None:
    caught(detector_file(FASTER), tmp_path, attribute(name, value, level), "class_logits", "box_deltas")


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_that_reads_another_s_map_is_caught(level: int, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        nodes = [node for node in model.graph.node if node.op_type == "RoiAlign"]
        nodes[level].input[0] = nodes[1 - level].input[0]

    def moved(model: onnx.ModelProto) -> None:
        change(model)

    caught(detector_file(FASTER), tmp_path, moved)


def coupled(before: str, name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceMean", [before], [f"{name}.mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", [before, f"{name}.mean"], [f"{name}.rest"]),
        helper.make_node("Add", [f"{name}.rest", before], [f"{name}.sum"]),
        helper.make_node("Sub", [f"{name}.sum", f"{name}.rest"], [f"{name}.same"]),
        helper.make_node("Add", [f"{name}.same", f"{name}.rest"], [name]),
    ]


@pytest.mark.parametrize("output", ["boxes", "scores"])
def test_images_that_are_coupled_are_caught(output: str, tmp_path: Path) -> None:
    caught(detector_file(FASTER), tmp_path, after(output, coupled))


def test_detections_that_are_never_settled_are_caught(tmp_path: Path) -> None:
    change = after("settled", lambda before, name: [helper.make_node("Xor", [before, before], [name])])
    caught(detector_file(FASTER), tmp_path, change, "not settled")


def test_inner_values_that_are_not_there_are_a_message(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]

    with pytest.raises(Exception, match="does not tell what its inner values are called"):
        caught(detector_file(FASTER), tmp_path, change)


def test_settled_where_candidates_are_more_than_there_is_room_for_is_caught(tmp_path: Path) -> None:
    caught(detector_file(FASTER), tmp_path, after("settled", always), "more candidates than room", "settled")
