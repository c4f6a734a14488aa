"""A timer that runs nothing: a model takes what its operators take, by a formula. So every layer's time is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.layers.model_timer import K, Model, Sample


def layer_ms(kernel: int, inputs: int, outputs: int, groups: int, positions: int) -> float:
    """A convolution's time: in blocks of 16 channels, at so many places."""
    blocks = -(-outputs // 16) * (1 if groups > 1 else -(-inputs // 16))
    return 1e-3 + 1e-6 * blocks * kernel**2 * positions


def linear_ms(inputs: int, outputs: int) -> float:
    """A linear layer's time: of inputs in blocks of 32."""
    return 2e-3 + 1e-7 * -(-inputs // 32) * 32 * outputs


OTHER_MS = 5e-4  # an operator without weights
START_MS = 0.02


def model_ms(content: bytes) -> float:
    """What a model takes: `layer_ms` and `linear_ms` of its layers, OTHER_MS of each other operator, START_MS for itself."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content), data_prop=True).graph
    weights: dict[str, NDArray[Any]] = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    total = START_MS
    for node in graph.node:
        if node.op_type == "Conv":
            out, per_group, kernel, _ = weights[node.input[1]].shape
            groups = next(entry.i for entry in node.attribute if entry.name == "group")
            total += layer_ms(kernel, per_group, out, groups, math.prod(shapes[node.output[0]][2:]))
        elif node.op_type == "Gemm":
            out, inp = weights[node.input[1]].shape
            total += linear_ms(inp, out)
        else:
            total += OTHER_MS
    return total


class FormulaTimer:
    """Times by `model_ms`, times `slower` for whole networks (known by their many layers), with noise on top.

    `stop_after`: Ctrl-C at that call. `calls` are the numbers of models of each call.
    """

    def __init__(self, slower: float = 1.0, noise: float = 0.0, stop_after: int = 0) -> None:
        self.settings: Mapping[str, Any] = {"device": "formula"}
        self.slower, self.noise, self.stop_after = slower, noise, stop_after
        self.draw = np.random.default_rng(0)
        self.calls: list[int] = []

    def __call__(self, models: Mapping[K, Model], duration_s: float) -> dict[K, Sample]:
        self.calls.append(len(models))
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        samples = {}
        for key, model in models.items():
            content = model.make()
            whole = b"weight_40" in content
            ms = model_ms(content) * (self.slower if whole else 1.0) * (1 + self.noise * abs(self.draw.normal()))
            samples[key] = Sample(ms, ms * (1 + self.noise))
        return samples
