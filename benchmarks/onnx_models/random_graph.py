"""ONNX graphs with random weights, written with the onnx package: what times are measured on, not what anybody ships.

Weights are normal with a variance of one over the fan-in, biases normal with a deviation of one half: signals of order one at
any depth, never zeros or denormal numbers, which take a CPU longer or shorter than real ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array
from slimtrain.base.image_size import ImageSize, format_size, sides
from slimtrain.models.spec import IMAGE_CHANNELS

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT, BATCH = "input", "output", "batch"
BIAS = 0.5


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: [batch, channels, height, width]."""

    name: str
    channels: int
    size: ImageSize


class RandomGraph:
    """A graph under construction: input [batch, channels, height, width], output [batch, features]."""

    def __init__(self, size: ImageSize, seed: int = 0, channels: int = IMAGE_CHANNELS) -> None:
        from onnx import helper

        self.helper = helper
        self.image = Value(INPUT, channels, size)
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}
        self.random = np.random.default_rng(seed)

    def node(self, operator: str, sources: list[str], **attributes: Any) -> str:
        """Add an operator; the name of what it makes."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, sources, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array) -> str:
        """An initializer; those of one name are one."""
        self.weights.setdefault(name, value)
        return name

    def noise(self, *shape: int, scale: float) -> str:
        """An initializer of normal noise with deviation `scale`."""
        name = f"weight_{len(self.weights)}"
        self.weights[name] = self.random.standard_normal(shape, np.float32) * np.float32(scale)
        return name

    def conv(
        self, source: Value, channels: int, kernel: int, stride: ImageSize = 1, depthwise: bool = False, pad: bool = True
    ) -> Value:
        """A convolution with bias; `pad` by half the kernel; `stride` down and across where they differ."""
        inputs = 1 if depthwise else source.channels
        weight = self.noise(channels, inputs, kernel, kernel, scale=1 / math.sqrt(inputs * kernel**2))
        padding = kernel // 2 if pad else 0
        name = self.node(
            "Conv",
            [source.name, weight, self.noise(channels, scale=BIAS)],
            kernel_shape=[kernel] * 2,
            strides=list(sides(stride)),
            pads=[padding] * 4,
            group=channels if depthwise else 1,
        )
        return Value(name, channels, _window(source.size, (kernel, kernel), stride, padding))

    def activation(self, source: Value, kind: str) -> Value:
        """`relu`, `relu6`, or nothing."""
        if not kind:
            return source
        if kind == "relu":
            name = self.node("Relu", [source.name])
        else:
            low, high = (self.constant(f"relu6_{end}", np.array(value, np.float32)) for end, value in (("min", 0), ("max", 6)))
            name = self.node("Clip", [source.name, low, high])
        return Value(name, source.channels, source.size)

    def pool(
        self, source: Value, operator: str, kernel: ImageSize, stride: ImageSize, padding: int, **attributes: Any
    ) -> Value:
        """`MaxPool` or `AveragePool`."""
        window = sides(kernel)
        name = self.node(
            operator,
            [source.name],
            kernel_shape=list(window),
            strides=list(sides(stride)),
            pads=[padding] * 4,
            **attributes,
        )
        return Value(name, source.channels, _window(source.size, window, stride, padding))

    def add(self, first: Value, second: Value) -> Value:
        assert first.channels == second.channels and first.size == second.size
        return Value(self.node("Add", [first.name, second.name]), first.channels, first.size)

    def concat(self, values: list[Value]) -> Value:
        """Channels one after the other."""
        if len(values) == 1:
            return values[0]
        name = self.node("Concat", [value.name for value in values], axis=1)
        return Value(name, sum(value.channels for value in values), values[0].size)

    def split(self, source: Value, parts: int) -> list[Value]:
        """Equal shares of the channels."""
        share = source.channels // parts
        sizes = self.constant(f"split_{parts}x{share}", np.full(parts, share, np.int64))
        names = [f"split_{len(self.nodes)}.{part}" for part in range(parts)]
        self.nodes.append(self.helper.make_node("Split", [source.name, sizes], names, name=names[0], axis=1))
        return [Value(name, share, source.size) for name in names]

    def shuffle(self, source: Value, groups: int) -> Value:
        """[batch, groups * n, height, width] -> channels of the groups in turn, the same shape."""
        channels, size = source.channels, sides(source.size)
        name = f"{channels}_{format_size(source.size)}"
        split = self.constant(f"grouped_{name}", np.array([0, groups, channels // groups, *size], np.int64))
        whole = self.constant(f"whole_{name}", np.array([0, channels, *size], np.int64))
        turned = self.node("Transpose", [self.node("Reshape", [source.name, split])], perm=[0, 2, 1, 3, 4])
        return Value(self.node("Reshape", [turned, whole]), channels, source.size)

    def linear(self, source: Value, features: int) -> Value:
        """Global average pool and a linear layer with bias: [batch, features], as channels of one pixel each."""
        flat = self.flat(Value(self.node("GlobalAveragePool", [source.name]), source.channels, 1))
        weight = self.noise(features, source.channels, scale=1 / math.sqrt(source.channels))
        name = self.node("Gemm", [flat.name, weight, self.noise(features, scale=BIAS)], transB=1)
        return Value(name, features, 1)

    def flat(self, source: Value) -> Value:
        """[batch, channels, 1, 1] -> [batch, channels]."""
        return Value(self.node("Flatten", [source.name], axis=1), source.channels, 1)

    def model(self, output: Value) -> bytes:
        """The finished file, `output` [batch, features] being its output."""
        from onnx import TensorProto, helper, numpy_helper

        last = self.nodes[-1]
        assert list(last.output) == [output.name], "the output is what the last operator makes"
        last.output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, self.image.channels, *sides(self.image.size)])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, output.channels])],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        return model.SerializeToString()


def _window(size: ImageSize, kernel: tuple[int, int], stride: ImageSize, padding: int) -> ImageSize:
    """The size that a window of `kernel` makes of `size`."""
    places = zip(sides(size), kernel, sides(stride), strict=True)
    height, width = ((side + 2 * padding - taps) // step + 1 for side, taps, step in places)
    return height if height == width else (height, width)
