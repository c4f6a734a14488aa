"""Layers to measure, and their models run in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cells.cell import Array
from benchmarks.layers.layer_times import ChannelPoint
from slimtrain.costs.layer_shapes import CONV, DEPTHWISE, LINEAR, LayerShape

LAYERS = {
    "stem": LayerShape("stem", CONV, 3, 2, 32, 3, 16, "relu6"),
    "pointwise": LayerShape("pointwise", CONV, 1, 1, 7, 24, 40, "relu"),
    "bare": LayerShape("bare", CONV, 3, 1, 7, 24, 40),
    "depthwise": LayerShape("depthwise", DEPTHWISE, 5, 2, 14, 24, 24, "relu6"),
    "linear": LayerShape("linear", LINEAR, 1, 1, 7, 24, 10),
}


def run(content: bytes, images: Array) -> Array:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": images})[0])


def sizes(layer: LayerShape, count: int) -> ChannelPoint:
    inp = 3 if layer.inp == 3 else count
    return inp, inp if layer.kind == DEPTHWISE else 10 if layer.kind == LINEAR else count + 8
