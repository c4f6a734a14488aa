"""Files that end in TensorRT's plugin: what it reads is proven, what it is told is held against what it should be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from slimexport.detector_proof.parts import Parts
from slimexport.detector_proof.plugin import OPERATOR
from slimexport.detectors.kinds import prove_detector
from slimtrain.detection.fixed.plugin import PLUGIN_OUTPUTS
from slimtrain.models.detector import FASTER, RETINA, SSDLITE
from tests.support.detector_files import SIZE, DetectorFile, detector_file
from tests.support.export_helpers import edit_weight
from tests.support.single_stage_files import SingleStageFile, single_stage_file

KINDS = [FASTER, RETINA, SSDLITE]
CLASSES = {
    FASTER: "roi_heads.box_predictor.cls_score.weight",
    RETINA: "head.classification_head.cls_logits.weight",
    SSDLITE: "head.classification_head.module_list.1.1.weight",
}
OTHERS: dict[str, float | int | str] = {
    "plugin_version": "2",
    "background_class": 0,
    "max_output_boxes": 19,
    "score_threshold": 0.051,
    "iou_threshold": 0.45,
    "score_activation": 1,
    "class_agnostic": 1,
    "box_coding": 1,
}


def file_of(kind: str) -> DetectorFile | SingleStageFile:
    return detector_file(kind, nms="trt") if kind == FASTER else single_stage_file(kind, nms="trt")


def prove(file: DetectorFile | SingleStageFile, model: onnx.ModelProto, folder: Path) -> Parts:
    path = folder / "file.onnx"
    onnx.save(model, path)
    exact = copy.deepcopy(file.network).double()
    return prove_detector(path, exact, exact.plan(file.width), file.settings, SIZE, file.images, nms="trt")


def plugin_of(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = (node for node in model.graph.node if node.op_type == OPERATOR)
    return node


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_file_passes(kind: str, tmp_path: Path) -> None:
    file = file_of(kind)
    parts = prove(file, file.copy(), tmp_path)
    assert parts.right, parts.fault
    assert 0 < parts.error < 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_that_it_is_told_is_caught(name: str, tmp_path: Path) -> None:
    file = file_of(RETINA)
    model = file.copy()
    node = plugin_of(model)
    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    assert f"what it should be told differ in {name}" in prove(file, model, tmp_path).fault
    node.attribute.append(helper.make_attribute(name, OTHERS[name]))
    assert f"has {name} " in prove(file, model, tmp_path).fault


def test_an_attribute_more_is_caught(tmp_path: Path) -> None:
    file = file_of(RETINA)
    model = file.copy()
    plugin_of(model).attribute.append(helper.make_attribute("box_decoder", 1))
    assert "differ in box_decoder" in prove(file, model, tmp_path).fault


def exchanged_outputs(model: onnx.ModelProto) -> None:
    plugin_of(model).output[:] = [plugin_of(model).output[place] for place in (0, 2, 1, 3)]


def exchanged_inputs(model: onnx.ModelProto) -> None:
    plugin_of(model).input[:] = list(plugin_of(model).input)[::-1]


def changed_labels(model: onnx.ModelProto) -> None:
    """Outputs that something is done to behind the plugin."""
    plugin_of(model).output[3] = "before"
    model.graph.node.append(helper.make_node("Abs", ["before"], ["detection_classes"]))


def another_domain(model: onnx.ModelProto) -> None:
    plugin_of(model).domain = ""


@pytest.mark.parametrize("change", [exchanged_outputs, exchanged_inputs, changed_labels, another_domain])
def test_a_plugin_that_is_wired_otherwise_is_caught(change: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    file = file_of(RETINA)
    model = file.copy()
    change(model)
    assert not prove(file, model, tmp_path).right


def test_a_file_without_it_is_caught(tmp_path: Path) -> None:
    right, file = single_stage_file(RETINA), file_of(RETINA)
    assert "has 0 nodes EfficientNMS_TRT" in prove(file, right.copy(), tmp_path).fault


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_is_another_is_caught(kind: str, tmp_path: Path) -> None:
    def exchange(array: NDArray[np.float32]) -> None:
        array[[1, 3]] = array[[3, 1]]

    file = file_of(kind)
    model = file.copy()
    edit_weight(model, CLASSES[kind], exchange)
    assert "class_logits" in prove(file, model, tmp_path).fault


def test_tensorrt_s_own_parser_finds_the_plugin() -> None:
    """What it says of operators that it lacks is another matter; of SSDLite it lacks none."""
    trt = pytest.importorskip("tensorrt", reason="needs TensorRT 8.6 to 10, which have the plugin")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    trt.init_libnvinfer_plugins(logger, "")
    if trt.get_plugin_registry().get_plugin_creator(OPERATOR, "1", "") is None:
        pytest.skip(f"TensorRT {trt.__version__} has no {OPERATOR}")
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError):  # as of 8.6 and 10
        pytest.skip("TensorRT's builder needs a GPU")
    network = builder.create_network(1)  # 8.6: explicit batch
    parser = trt.OnnxParser(network, logger)
    read = parser.parse(file_of(SSDLITE).model.SerializeToString())
    assert read, [parser.get_error(number).desc() for number in range(parser.num_errors)]
    assert [network.get_output(number).name for number in range(4)] == list(PLUGIN_OUTPUTS)
