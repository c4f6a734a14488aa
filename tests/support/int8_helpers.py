"""What the tests of int8 share: small networks and images, and the pairs of a quantized graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.target.arrays import Array
from slimexport.target.manifest import Agreement
from tests.support.export_helpers import conv
from tests.support.onnx_helpers import stored
from tests.support.onnx_writing import module_onnx


@dataclass(frozen=True)
class Pair:
    """A quantize-dequantize pair as it stands in a graph. `stored`: the integers of a weight, whose `source` is its name in
    the fp32 network."""

    source: str
    axis: int | None
    scale: Array
    zero: Array
    stored: Array | None = None


def pairs(model: onnx.ModelProto) -> dict[str, Pair]:
    """Every pair of a model by the name of its result, once its two halves are seen to fit. A weight's is named after the
    operator that reads it."""
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in stored(model).items()}
    nodes = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in reversed(model.graph.node) for name in node.input}
    result = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            assert len(node.input) == 3, "a zero point is always given"
            axis = {attribute.name: attribute.i for attribute in node.attribute}
            assert axis.keys() <= {"axis"}
            scale, zero = (arrays[name] for name in node.input[1:])
            if node.input[0] in arrays:
                source, integers = f"{readers[node.output[0]].name}.weight", arrays[node.input[0]]
                result[node.output[0]] = Pair(source, axis.get("axis"), scale, zero, integers)
                continue
            quantizer = nodes[node.input[0]]
            assert quantizer.op_type == "QuantizeLinear"
            assert quantizer.input[1:] == node.input[1:] and quantizer.attribute == node.attribute
            result[node.output[0]] = Pair(quantizer.input[0], axis.get("axis"), scale, zero)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    activations = [pair.source for pair in result.values() if pair.stored is None]
    assert len(quantizers) == len(activations) == len(set(activations)), "one pair per value"
    return result


def scaled(model: onnx.ModelProto, half: bool = False, scale: float = 0.05) -> onnx.ModelProto:
    """`model` with a made-up scale on every activation that is quantized."""
    return quantize(model, dict.fromkeys(quantized_inputs(model), scale), half)


def quantized_layers(model: onnx.ModelProto) -> set[str]:
    """The names of weighted operators that read both operands through pairs."""
    through = pairs(model)
    return {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm") and node.input[0] in through}


def build(network: nn.Module, size: int = 9, seed: int = 4) -> onnx.ModelProto:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=draw)
            if parameter.ndim > 1:
                parameter.mul_(parameter[0].numel() ** -0.5)
    return module_onnx(network, size, {"precision": "fp32"})


def small(channels: int = 16) -> nn.Sequential:
    """conv (not quantized), ReLU, conv, pool, classifier."""
    return nn.Sequential(
        *(conv(3, channels), nn.ReLU(), conv(channels, 20), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(20, 5)),
    )


def images(count: int = 4, size: int = 9, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32)


def finite(result: Agreement | None) -> Agreement:
    assert result is not None, "logits that are not finite"
    return result
