"""What is wrong with a detector's file of fewer bits is caught, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from slimexport.detector_proof import fewer_bits
from slimtrain.models.detector import MASK
from tests.support.low_detectors import LOW, edit_stored, low_file, stored_of

LAYERS = {
    "stem": "backbone.body.conv1",
    "backbone": "backbone.body.layer2.0.conv2",
    "lateral": "backbone.fpn.inner_blocks.0.0",
    "pyramid": "backbone.fpn.layer_blocks.1.0",
    "rpn": "rpn.head.conv.0.0",
    "fc6": "roi_heads.box_head.fc6",
    "fc7": "roi_heads.box_head.fc7",
}
LAST = {
    "objectness": "rpn.head.cls_logits",
    "codes": "rpn.head.bbox_pred",
    "classes": "roi_heads.box_predictor.cls_score",
    "boxes": "roi_heads.box_predictor.bbox_pred",
}
INTEGERS = tuple(name for name in LOW if name.startswith("int8"))


@pytest.mark.parametrize("precision", LOW)
def test_a_right_file_is_right(precision: str, tmp_path: Path) -> None:
    file = low_file(precision)
    proof = file.layers(file.model, tmp_path)
    assert not proof.fault and proof.layers is not None and proof.layers.right and proof.layers.count > 20
    parts = file.parts(file.model, tmp_path)
    assert parts.right, parts.fault
    assert parts.rows > 0


def exchanged(array: NDArray[Any]) -> None:
    """The two first outputs, if they differ."""
    assert not np.array_equal(array[0], array[1])
    array[[0, 1]] = array[[1, 0]]


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("part", LAYERS)
def test_exchanged_channels_are_caught_in_every_part(precision: str, part: str, tmp_path: Path) -> None:
    file = low_file(precision)
    wrong = file.changed(lambda model: edit_stored(stored_of(model, LAYERS[part]), exchanged))
    proof = file.layers(wrong, tmp_path)
    assert proof.fault, proof


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
@pytest.mark.parametrize("part", ["backbone", "fc7"])
def test_a_weight_is_compared_where_no_layer_is_run(
    precision: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def negated(array: NDArray[Any]) -> None:
        array.reshape(-1)[np.abs(array.astype(np.float32)).argmax()] *= -1

    monkeypatch.setattr(fewer_bits, "computes_exactly", lambda recorded: False)
    file = low_file(precision)
    wrong = file.changed(lambda model: edit_stored(stored_of(model, LAYERS[part]), negated))
    assert not file.layers(file.model, tmp_path).fault
    assert LAYERS[part] in file.layers(wrong, tmp_path).fault


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
@pytest.mark.parametrize("part", LAST)
def test_exchanged_rows_of_the_last_layers_are_caught(precision: str, part: str, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        def rolled(array: NDArray[Any]) -> None:
            array[:] = np.roll(array, 1, 0)

        edit_stored(stored_of(model, LAST[part]), rolled)

    file = low_file(precision)
    proof = file.layers(file.changed(change), tmp_path)
    assert "of its scale" in proof.fault, proof


@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_any_scale_that_is_twice_or_half_as_large_is_caught(precision: str, factor: float, tmp_path: Path) -> None:
    """The scale of activations that the most values are read in, the first and the last one."""
    file = low_file(precision)
    names = list(dict.fromkeys(node.input[1] for node in file.model.graph.node if node.op_type == "QuantizeLinear"))
    for name in (names[0], names[len(names) // 2], names[-1]):

        def change(model: onnx.ModelProto, name: str = name) -> None:
            tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.array(factor, "f"), name))
            if tensor.data_type != next(t for t in file.model.graph.initializer if t.name == name).data_type:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name))

        assert file.layers(file.changed(change), tmp_path).fault, name


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
@pytest.mark.parametrize("attribute", ["spatial_scale", "sampling_ratio"])
def test_another_stride_or_sampling_is_caught_at_every_level(precision: str, attribute: str, tmp_path: Path) -> None:
    file = low_file(precision)
    levels = [node.name for node in file.model.graph.node if node.op_type == "RoiAlign"]
    assert len(levels) == 2
    for level in levels:

        def change(model: onnx.ModelProto, level: str = level) -> None:
            (node,) = [node for node in model.graph.node if node.name == level]
            for own in node.attribute:
                if own.name == attribute == "spatial_scale":
                    own.f /= 2
                elif own.name == attribute:
                    own.i += 1

        assert "of its scale" in file.layers(file.changed(change), tmp_path).fault, level


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
def test_what_chooses_is_judged_as_in_fp32(precision: str, tmp_path: Path) -> None:
    """Anchors that lie elsewhere: no layer has them."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if "anchors" in tensor.name:
                edit_stored(tensor, lambda array: array.__iadd__(2))

    file = low_file(precision)
    wrong = file.changed(change)
    assert not file.layers(wrong, tmp_path).fault
    parts = file.parts(wrong, tmp_path)
    assert not parts.right and "are chosen wrongly" in parts.fault


@pytest.mark.parametrize("precision", ["fp16", "int8-cpu"])
def test_masks_are_a_part_too(precision: str, tmp_path: Path) -> None:
    file = low_file(precision, MASK)
    assert len(file.recorded.parts) == 3
    assert not file.layers(file.model, tmp_path).fault
    wrong = file.changed(lambda model: edit_stored(stored_of(model, "roi_heads.mask_head.0.0"), exchanged))
    assert file.layers(wrong, tmp_path).fault
