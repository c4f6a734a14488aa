"""A detector's file without TensorRT's plugin EfficientNMS_TRT, which nothing else runs.

What the plugin reads is proven as the boxes and scores of a file that leaves NMS to whoever reads it are. The plugin itself is
held against what it should be told, name by name (TensorRT's repository, plugin/efficientNMSPlugin/README.md).
"""

from __future__ import annotations

import onnx
from onnx import helper

from slimexport.onnx_files.operators.lookups import PLUGINS
from slimtrain.base.untrusted.quoting import quoted
from slimtrain.detection.fixed.plugin import PLUGIN_OUTPUTS
from slimtrain.models.detector import DetectorSettings

OPERATOR = "EfficientNMS_TRT"
RAW = ("boxes", "scores")  # what it reads
ROUNDING = 1e-6  # of thresholds, which files hold in float32
NOT_RUN = f"boxes and scores are proven, and what {OPERATOR} is told; that is TensorRT's own, and nothing here has run it"


def expected_attributes(settings: DetectorSettings) -> dict[str, float | int | str]:
    """What the plugin is told: boxes are corners, scores probabilities, there is no background, a class is apart from
    others."""
    rules = settings.box
    return {
        "plugin_version": "1",
        "background_class": -1,
        "max_output_boxes": rules.detections,
        "score_threshold": rules.score,
        "iou_threshold": rules.nms,
        "score_activation": 0,
        "class_agnostic": 0,
        "box_coding": 0,
    }


def without_plugin(model: onnx.ModelProto, settings: DetectorSettings) -> tuple[onnx.ModelProto, str]:
    """`model` up to the plugin, which gives `boxes` and `scores` in its place; and what is wrong with the plugin, if
    anything."""
    plugins = [node for node in model.graph.node if node.op_type == OPERATOR]
    if len(plugins) != 1:
        return model, f"it has {len(plugins)} nodes {OPERATOR}, expected one"
    (plugin,) = plugins
    if fault := _fault(plugin, model, settings):
        return model, fault
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    kept = [node for node in cut.graph.node if node.op_type != OPERATOR]
    ends = [helper.make_node("Identity", [name], [raw]) for name, raw in zip(plugin.input, RAW, strict=True)]
    outputs = [output for output in cut.graph.output if output.name not in PLUGIN_OUTPUTS]
    del cut.graph.node[:], cut.graph.output[:]
    cut.graph.node.extend([*kept, *ends])
    cut.graph.output.extend([*(onnx.ValueInfoProto(name=raw) for raw in RAW), *outputs])
    return cut, ""


def _fault(plugin: onnx.NodeProto, model: onnx.ModelProto, settings: DetectorSettings) -> str:
    given = [output.name for output in model.graph.output]
    read = {name for node in model.graph.node for name in node.input}
    if plugin.domain != PLUGINS or len(plugin.input) != len(RAW):
        return f"its {OPERATOR} has {len(plugin.input)} inputs, of {quoted(plugin.domain)}, expected {len(RAW)}, of {PLUGINS}"
    if tuple(plugin.output) != PLUGIN_OUTPUTS or not set(PLUGIN_OUTPUTS) <= set(given) or read & set(PLUGIN_OUTPUTS):
        return f"its outputs are {quoted(given)}, expected {', '.join(PLUGIN_OUTPUTS)}, as {OPERATOR} gives them"
    attributes = {one.name: _plain(helper.get_attribute_value(one)) for one in plugin.attribute}
    expected = expected_attributes(settings)
    if odd := sorted(attributes.keys() ^ expected.keys()):
        return f"its {OPERATOR} and what it should be told differ in {', '.join(odd)}"
    for name, value in expected.items():
        own = attributes[name]
        near = isinstance(value, float) and isinstance(own, float) and abs(own - value) <= ROUNDING
        if type(own) is not type(value) or not (near or own == value):
            return f"its {OPERATOR} has {name} {quoted(own)}, expected {quoted(value)}"
    return ""


def _plain(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value
