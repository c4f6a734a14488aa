"""ONNX models of every architecture, small, and what compares their outputs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from slimtrain.models.spec import NetworkSpec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.export_helpers import GAIN, random_state
from tests.support.onnx_writing import plan_onnx

SIZE = 64
# architecture -> width, and the norms' gain that keeps activations of order one (as in tests/reference/layouts)
ARCHITECTURES = {
    "mobilenet_v1": (0.25, 0.95),
    "mobilenet_v2": (0.5, 0.8),
    "mnasnet": (0.35, 0.8),
    "shufflenet": (0.5, 0.55),
    "resnet50": (0.25, 0.7),
}
Array = NDArray[Any]


@functools.cache
def network_model(architecture: str, width: float = 0.0, classes: int = 10) -> onnx.ModelProto:
    """The fp32 ONNX model of an architecture with random weights, at its smallest published width. Not to be changed."""
    small, gain = ARCHITECTURES[architecture]
    spec = NetworkSpec(architecture, "s", (width or small,), classes)
    state = random_state(spec)
    for key in [key for key in state if key.endswith("running_var")]:
        state[key.replace("running_var", "weight")].mul_(gain / GAIN)
    network = SlimmableNetwork(spec).eval()
    network.load_state_dict(state)
    return plan_onnx(network, spec.plans[0], SIZE, {"network": architecture, "precision": "fp32"})


def logits(model: onnx.ModelProto, images: Array, optimized: bool = True) -> Array:
    """A model's output in onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every fp16 constant that it folds
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": images})[0])


def relative(value: Array, expected: Array) -> float:
    """The largest difference, of the largest absolute expected value."""
    return float(np.abs(value.astype(np.float64) - expected).max() / np.abs(expected).max())


def stored(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}
