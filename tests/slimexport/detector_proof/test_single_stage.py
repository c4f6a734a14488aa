"""The proof of a single-stage detector's file: the right one passes, what is wrong with any part is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from slimexport.detector_proof.drawn_anchors import anchor_sets, drawn_anchors
from slimexport.detector_proof.inside import Inside
from slimtrain.detection.fixed import single_stage
from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.detection.fixed.single_stage import of_single_stage
from slimtrain.models.detector import RETINA, SSDLITE, Anchors, DetectorSettings
from tests.support.detector_defects import after, always, caught
from tests.support.detector_files import SIZE, written
from tests.support.export_helpers import edit_weight
from tests.support.single_stage_files import SingleStageFile, file_settings, single_stage_file

KINDS = [RETINA, SSDLITE]
WEIGHTS = {
    RETINA: {
        "stem": "backbone.body.conv1",
        "backbone": "backbone.body.layer2.0.conv2",
        "lateral": "backbone.fpn.inner_blocks.0.0",
        "pyramid": "backbone.fpn.layer_blocks.1.0",
        "further level": "backbone.fpn.extra_blocks.p6",
        "class head": "head.classification_head.conv.1.0",
        "classes": "head.classification_head.cls_logits",
        "box head": "head.regression_head.conv.2.0",
        "boxes": "head.regression_head.bbox_reg",
    },
    SSDLITE: {
        "stem": "backbone.body.conv1",
        "backbone": "backbone.body.layer2.0.conv2",
        "further level": "backbone.extra.1.2.0",
        "depthwise": "head.classification_head.module_list.0.0.0",
        "classes": "head.classification_head.module_list.1.1",
        "boxes": "head.regression_head.module_list.2.1",
    },
}
PARTS = [(kind, part) for kind in KINDS for part in WEIGHTS[kind]]
Change = Callable[[onnx.ModelProto], object]


@pytest.mark.parametrize("nms", ["fixed", "onnx", "none"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_right_file_passes(kind: str, trained: bool, nms: str, tmp_path: Path) -> None:
    for seed in range(2):
        file = single_stage_file(kind, seed, nms=nms, trained=trained)
        parts = file.prove(file.copy(), tmp_path)
        assert parts.right, parts.fault
        assert parts.error < 1e-4 and (nms == "none" or parts.rows > 100) and parts.ties <= 0.02 * parts.rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_file_at_full_width_passes(kind: str, tmp_path: Path) -> None:
    file = single_stage_file(kind, width=1.0)
    parts = file.prove(file.copy(), tmp_path)
    assert parts.right, parts.fault


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_values_are_settled_and_decide(kind: str) -> None:
    """Where they are not, nothing is judged. More than may be given out, fewer, and those of every level by themselves."""
    settings = file_settings(kind)
    form = of_single_stage(settings, SIZE).double()
    counts = []
    for number in range(anchor_sets(settings)):
        values = drawn_anchors(settings, SIZE, 2, number)
        given = form(*(torch.from_numpy(values[name]).double() for name in form.input_shapes))
        assert given["settled"].all(), number
        counts.append(given["count"].tolist())
    assert counts[0] == [settings.box.detections] * 2
    assert all(0 < count < settings.box.detections for pair in counts[1:] for count in pair)


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_flipped_weight_is_caught_in_every_part(kind: str, part: str, tmp_path: Path) -> None:
    """The largest that changes anything: what reads a channel that is zero everywhere does not."""
    file = single_stage_file(kind)
    right = Inside(file.model).run(file.images)
    for rank in range(30):

        def flip(array: NDArray[np.float32], rank: int = rank) -> None:
            array.ravel()[np.abs(array).ravel().argsort()[-1 - rank]] *= -1

        model = file.copy()
        edit_weight(model, f"{WEIGHTS[kind][part]}.weight", flip)
        wrong = Inside(model).run(file.images)
        if any(not np.array_equal(wrong[name], values) for name, values in right.items()):
            parts = file.prove(model, tmp_path)
            assert not parts.right and ("class_logits" in parts.fault or "box_deltas" in parts.fault), parts.fault
            return
    pytest.fail(f"no weight of {part} changes anything")


@pytest.mark.parametrize("kind", KINDS)
def test_exchanged_classes_are_caught(kind: str, tmp_path: Path) -> None:
    def exchange(array: NDArray[np.float32]) -> None:
        array[[1, 3]] = array[[3, 1]]

    name = f"{WEIGHTS[kind]['classes']}.weight"
    caught(single_stage_file(kind), tmp_path, lambda model: edit_weight(model, name, exchange), "class_logits")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_count_from_0_are_caught(kind: str, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        one = numpy_helper.from_array(np.array(1, np.int64), "one too many")
        model.graph.initializer.append(one)
        (node,) = (node for node in model.graph.node if "labels" in node.output)
        node.output[:] = ["labels.before" if name == "labels" else name for name in node.output]
        model.graph.node.append(helper.make_node("Sub", ["labels.before", "one too many"], ["labels.lower"]))
        model.graph.node.append(helper.make_node("Abs", ["labels.lower"], ["labels"]))

    caught(single_stage_file(kind), tmp_path, change, "detections")


def with_anchors(file: SingleStageFile, change: Callable[[int, Tensor], Tensor], nms: str = "fixed") -> onnx.ModelProto:
    """The file as if its writer had taken other anchors, level by level."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_stage, "level_anchors", lambda *given: [change(*one) for one in enumerate(level_anchors(*given))])
        return written(file.network, file.settings, file.width, nms)


def larger(boxes: Tensor) -> Tensor:
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([middle + 1.01 * (boxes[:, :2] - middle), middle + 1.01 * (boxes[:, 2:] - middle)], 1)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_anchors_elsewhere_are_caught_at_every_level(kind: str, level: int, tmp_path: Path) -> None:
    file = single_stage_file(kind)
    half = file.settings.anchors.strides[level] / 2
    model = with_anchors(file, lambda number, boxes: boxes + half if number == level else boxes)
    parts = file.prove(model, tmp_path)
    assert not parts.right and "detections" in parts.fault, parts.fault


@pytest.mark.parametrize("change", [larger, lambda boxes: boxes.flip(0)], ids=["larger", "exchanged"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_anchors_are_caught(kind: str, change: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    file = single_stage_file(kind)
    parts = file.prove(with_anchors(file, lambda number, boxes: change(boxes) if number == 1 else boxes), tmp_path)
    assert not parts.right and "detections" in parts.fault, parts.fault


@pytest.mark.parametrize("kind", KINDS)
def test_a_convolution_that_begins_a_pixel_later_is_caught(kind: str, tmp_path: Path) -> None:
    """Of the same shape, as its padding is on the other side."""

    def change(model: onnx.ModelProto) -> None:
        strided = [node for node in model.graph.node if node.op_type == "Conv" and _ints(node, "strides") == [2, 2]]
        node = next(node for node in strided if _ints(node, "pads") == [1, 1, 1, 1])
        (pads,) = (one for one in node.attribute if one.name == "pads")
        pads.ints[:] = [0, 0, 2, 2]

    caught(single_stage_file(kind), tmp_path, change, "class_logits", "box_deltas")


def _ints(node: onnx.NodeProto, name: str) -> list[int]:
    return [number for one in node.attribute if one.name == name for number in one.ints]


def strides_of(settings: DetectorSettings, scale: float) -> DetectorSettings:
    """Anchors that lie as if an image were larger."""
    anchors = settings.anchors
    if anchors.scales:
        return replace(settings, anchors=replace(anchors, scales=tuple(scale * one for one in anchors.scales)))
    sizes = tuple(tuple(round(scale * size) for size in level) for level in anchors.sizes)
    return replace(settings, anchors=Anchors(sizes, anchors.ratios, anchors.strides))


CHANGED: dict[str, Callable[[DetectorSettings], DetectorSettings]] = {
    "NMS": lambda s: replace(s, box=replace(s.box, nms=s.box.nms - 0.03)),
    "a higher least score": lambda s: replace(s, box=replace(s.box, score=0.06)),
    "a lower least score": lambda s: replace(s, box=replace(s.box, score=0.04)),
    "candidates of a level or class": lambda s: replace(s, box=replace(s.box, top_k=50)),
    "more candidates of a level or class": lambda s: replace(s, box=replace(s.box, top_k=75)),
    "weights of boxes": lambda s: replace(s, box=replace(s.box, weights=(*s.box.weights[:3], s.box.weights[3] + 0.1))),
    "sizes of anchors": lambda s: strides_of(s, 1.1),
}


@pytest.mark.parametrize("what", CHANGED)
@pytest.mark.parametrize("kind", KINDS)
def test_other_rules_are_caught(kind: str, what: str, tmp_path: Path) -> None:
    """As if its writer had taken other settings."""
    file = single_stage_file(kind)
    network, settings = file.network, CHANGED[what](file.settings)
    spec = network.spec
    network.spec = network.body.spec = replace(spec, detector=settings)  # type: ignore[type-var]
    try:
        model = written(network, settings, file.width)
    finally:
        network.spec = network.body.spec = spec
    parts = file.prove(model, tmp_path)
    assert not parts.right and ("detections" in parts.fault or "settled" in parts.fault), parts.fault


@pytest.mark.parametrize("kind", KINDS)
def test_detections_that_are_never_settled_are_caught(kind: str, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        (node,) = (node for node in model.graph.node if "settled" in node.output)
        node.output[:] = ["settled.before"]
        model.graph.node.append(helper.make_node("Xor", ["settled.before"] * 2, ["settled"]))

    caught(single_stage_file(kind), tmp_path, change, "not settled")


@pytest.mark.parametrize("kind", KINDS)
def test_raw_boxes_that_are_off_by_a_hundredth_of_a_pixel_are_caught(kind: str, tmp_path: Path) -> None:
    file = single_stage_file(kind, nms="none")
    parts = file.prove(with_anchors(file, lambda number, boxes: boxes + 0.01 if number == 1 else boxes, "none"), tmp_path)
    assert not parts.right and "boxes" in parts.fault, parts.fault


def test_settled_where_candidates_are_more_than_there_is_room_for_is_caught(tmp_path: Path) -> None:
    caught(single_stage_file(RETINA), tmp_path, after("settled", always), "more candidates than room", "settled")
