"""What the made-up TensorRT computes of real ONNX files: all of their outputs, in onnxruntime; and EfficientNMS_TRT as NVIDIA
documents it, one box after the other."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

PLUGIN = "EfficientNMS_TRT"
GARBAGE = 77  # in rows behind the detections, which the plugin leaves as they are
Arrays = dict[str, NDArray[Any]]


def described(content: bytes) -> dict[str, Any]:
    """What an ONNX file is, with the file. `outputs`: name, NumPy type, and shape without the batch."""
    model = onnx.load_model_from_string(content)
    size, classes = (value.type.tensor_type.shape.dim[-1].dim_value for value in (model.graph.input[0], model.graph.output[0]))
    precision = next(entry.value for entry in model.metadata_props if entry.key == "precision")
    outputs = []
    for value in model.graph.output:
        kind = value.type.tensor_type
        number = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        outputs.append([value.name, number, [dim.dim_value for dim in kind.shape.dim[1:]]])
    encoded = base64.b64encode(content).decode()
    return {"size": size, "classes": classes, "precision": precision, "outputs": outputs, "onnx": encoded}


def run_onnx(encoded: str, images: NDArray[Any]) -> Arrays:
    """A plan's ONNX file in onnxruntime on the CPU: every output, by name."""
    model = onnx.load_model_from_string(base64.b64decode(encoded))
    plugins = [node for node in model.graph.node if node.op_type == PLUGIN]
    if plugins:
        kept = [node for node in model.graph.node if node.op_type != PLUGIN]
        others = [output for output in model.graph.output if output.name not in plugins[0].output]
        del model.graph.node[:], model.graph.output[:]
        model.graph.node.extend(kept)
        model.graph.output.extend([*others, *(onnx.ValueInfoProto(name=name) for name in plugins[0].input)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = dict(zip(names, session.run(None, {"input": np.ascontiguousarray(images)}), strict=True))
    if not plugins:
        return {name: np.asarray(array) for name, array in given.items()}
    boxes, scores = (np.asarray(given.pop(name)) for name in plugins[0].input)
    attributes = {one.name: helper.get_attribute_value(one) for one in plugins[0].attribute}
    return efficient_nms(boxes, scores, attributes) | given


def efficient_nms(boxes: NDArray[Any], scores: NDArray[Any], attributes: dict[str, Any]) -> Arrays:
    """Boxes [B, N, 4] or [B, N, C, 4], scores [B, N, C]."""
    images, _, classes = scores.shape
    most = attributes["max_output_boxes"]
    outputs = {
        "num_detections": np.zeros((images, 1), np.int32),
        "detection_boxes": np.full((images, most, 4), GARBAGE, np.float32),
        "detection_scores": np.full((images, most), GARBAGE, np.float32),
        "detection_classes": np.full((images, most), GARBAGE, np.int32),
    }
    for image in range(images):
        kept: list[tuple[NDArray[Any], int]] = []
        for place in np.argsort(-scores[image], axis=None, kind="stable"):
            row, number = divmod(int(place), classes)
            box = boxes[image, row] if boxes.ndim == 3 else boxes[image, row, number]
            if scores[image, row, number] < attributes["score_threshold"] or len(kept) == most:
                break
            if all(number != other or _overlap(box, its) <= attributes["iou_threshold"] for its, other in kept):
                at = len(kept)
                outputs["detection_boxes"][image, at] = box
                outputs["detection_scores"][image, at] = scores[image, row, number]
                outputs["detection_classes"][image, at] = number
                kept.append((box, number))
        outputs["num_detections"][image] = len(kept)
    return outputs


def _overlap(box: NDArray[Any], other: NDArray[Any]) -> float:
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    both = float(np.clip(sides, 0, None).prod())
    whole = float((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod()) - both
    return both / whole if whole > 0 else 0.0
