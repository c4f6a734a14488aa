"""Int8 for CPUs: a network in integers from its input to its last layer, as onnxruntime and OpenVINO fuse it.

Activations are uint8 with a zero point, weights int8 per output channel, biases int32 in steps of the product of both
scales: U8S8 in onnxruntime's words. Every operator that has an integer kernel reads and writes integers, so that its pairs
fuse into it. An activation that only cuts off what its uint8 cannot hold (ReLU, ReLU6) is left out: its writer saturates in
its place. What only moves values (a pool by maximum, a reshape) keeps its input's scale. The last linear layer gives floats.

x86 CPUs without VNNI add two products of 8 bits in 16, where they saturate; with weights of 7 bits they cannot
(255 * 63 * 2 < 2^15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from slimexport.onnx_files.pairs import Affine, PairWriter
from slimexport.onnx_files.ranges import FLOOR, weight_scales
from slimexport.onnx_files.typed import declare
from slimexport.target.arrays import Array

OPSET, IR_VERSION = 17, 8
STEPS = 255  # of a uint8
LEVELS = {8: 127, 7: 63}  # of weights, by their bits
WEIGHTED = ("Conv", "Gemm")
COMPUTED = (*WEIGHTED, "Add", "Concat", "AveragePool", "GlobalAveragePool")
MOVED = ("MaxPool", "Reshape", "Transpose", "Split", "Flatten")
Interval = tuple[float, float]


def integer_values(model: onnx.ModelProto) -> list[str]:
    """The values of an fp32 model whose intervals `to_integers` asks for: the images, and what integer operators read of
    float ones and write, after the activation that they take in."""
    plan = _Plan(model)
    return list(dict.fromkeys([plan.image, *plan.entering, *plan.written.values()]))


def to_integers(model: onnx.ModelProto, intervals: Mapping[str, Interval], weight_bits: int = 8) -> onnx.ModelProto:
    """`model` (fp32) in integers, each of its `integer_values` in the interval around zero that `intervals` gives, weights
    of 8 or 7 bits. An operator that is not known stays float, between integers. Opset 17, IR version 8."""
    plan = _Plan(model)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    writer = _Writer(PairWriter(graph), plan, intervals, LEVELS[weight_bits])
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        writer.node(node)
    writer.pairs.finish()
    declare(quantized, "int8-cpu", OPSET, IR_VERSION)
    return quantized


class _Plan:
    """Which values of a model become integers, and where. The model is not changed.

    `written`: an integer operator's output -> the value that it stands for, which is that of the activation that it takes in,
    if there is one. `limits`: of such a value, what the activation lets through. `entering`: values that float operators write
    and integer ones read. `taken`: outputs of activations that are left out. `joined`: a value that is read by one
    concatenation only -> what that writes, whose scale it takes, so that integers are copied.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        (image,) = graph.input
        self.image, self.results = image.name, frozenset(result.name for result in graph.output)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.written: dict[str, str] = {}
        self.limits: dict[str, Interval] = {}
        self.entering: dict[str, None] = {}
        self.taken: set[str] = set()
        self.joined: dict[str, str] = {}
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        integers = {self.image}
        for node in graph.node:
            if self.is_integer(node):
                self.entering.update(dict.fromkeys(name for name in self.activations(node) if name not in integers))
                integers.update(self._output(node, readers))
            elif node.op_type in MOVED and node.input[0] in integers:
                integers.update(node.output)
        for node in graph.node:
            if node.op_type == "Concat" and (value := self.written.get(node.output[0])):
                alone = {name for name in node.input if len(readers[name]) == 1 and name not in self.results}
                self.joined.update(dict.fromkeys((name for name in node.input if name in alone), value))

    def is_integer(self, node: onnx.NodeProto) -> bool:
        """Whether an operator computes with integers: it is known to, and its weights are constants, nothing else is."""
        constant = [name in self.constants for name in node.input]
        weights = len(constant) - 1 if node.op_type in WEIGHTED else 0
        return node.op_type in COMPUTED and constant == [False] * (len(constant) - weights) + [True] * weights

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """What an operator reads that is not a constant."""
        return [name for name in node.input if name not in self.constants]

    def _output(self, node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> list[str]:
        """Note what an integer operator writes; the values that are integers thereby."""
        (output,) = node.output
        if output in self.results and node.op_type == "Gemm":  # logits are floats
            return []
        following = readers.get(output, [])
        limit = self._limit(following[0]) if len(following) == 1 and output not in self.results else None
        value = output if limit is None else following[0].output[0]
        if limit is not None:
            self.limits[value] = limit
            self.taken.add(value)
        self.written[output] = value
        return [value]

    def _limit(self, node: onnx.NodeProto) -> Interval | None:
        """What an activation lets through, where all that it does is to cut off, at zero below."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type == "Clip" and len(node.input) == 3 and all(name in self.constants for name in node.input[1:]):
            low, high = (float(numpy_helper.to_array(self.constants[name]).item()) for name in node.input[1:])
            return (low, high) if low == 0 < high else None
        return None


def affine(interval: Interval, limit: Interval | None = None) -> Affine:
    """The uint8 form of the numbers in an interval around zero, none of them beyond `limit`."""
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    scale = np.float32(max((high - low) / STEPS, FLOOR))
    zero = int(np.clip(np.rint(-low / scale), 0, STEPS))
    while limit is not None and scale * np.float32(STEPS - zero) > limit[1]:  # by a rounding of the last bit
        scale = np.nextafter(scale, np.float32(0))
    return Affine(scale, np.uint8(zero))


@dataclass
class _Writer:
    """Writes the nodes of an integer model, in the order of the float one's."""

    pairs: PairWriter
    plan: _Plan
    intervals: Mapping[str, Interval]
    levels: int
    affines: dict[str, Affine] = field(default_factory=dict)  # of the values that are integers by now
    named: dict[str, str] = field(default_factory=dict)  # a value -> what has its scale, by the name in the new graph

    def node(self, node: onnx.NodeProto) -> None:
        """One node, and the pairs on what it writes."""
        if node.output[0] in self.plan.taken:
            return
        read, written = list(node.input), list(node.output)
        if self.plan.is_integer(node):
            for name in self.plan.activations(node):
                if name not in self.affines:  # the images, or what a float operator wrote
                    self._pair(name, name, affine(self.intervals[name]))
            constants = self._constants(node) if node.op_type in WEIGHTED else []
            node.input[:] = [*(self.pairs.paired[name] for name in self.plan.activations(node)), *constants]
            values = [self.plan.written[name] for name in written if name in self.plan.written]
            forms = [self._form(value) for value in values]
        else:
            node.input[:] = [self.pairs.paired[name] if name in self.affines else name for name in read]
            values = [name for name in written if name not in self.plan.results]
            moved = node.op_type in MOVED and read[0] in self.affines
            values, forms = (values, [(self.affines[read[0]], read[0])] * len(values)) if moved else ([], [])
        # What pairs alone read goes by numbers too, and what has no weights without a name.
        inner = [f"{self.pairs.prefix}v{len(self.affines) + place}" for place in range(len(values))]
        if inner:
            node.output[:] = inner
        if node.op_type not in WEIGHTED:
            node.ClearField("name")
        self.pairs.graph.node.append(node)
        for value, name, (form, joint) in zip(values, inner, forms, strict=True):
            self._pair(value, name, form, joint)

    def _pair(self, value: str, name: str, form: Affine, joint: str = "") -> None:
        """A pair on a `value` that is called `name` now, with the scale of `joint`, if that is another. The model's result
        keeps its name."""
        joint = joint or value
        like = self.named.get(joint, "")
        written = value if value in self.plan.results else ""
        self.affines[value] = form
        self.pairs.paired[value] = self.pairs.activation(name, form, like, written)
        self.named[value] = name
        self.named.setdefault(joint, name)

    def _form(self, value: str) -> tuple[Affine, str]:
        """What an integer operator's result is written as, and the value whose form that is: its own, or that of what it is
        joined to, where that cuts off all that its activation does."""
        limit = self.plan.limits.get(value)
        if value in self.plan.joined:
            form, joint = self._form(self.plan.joined[value])
            if limit is None or (form.zero == 0 and form.scale * np.float32(STEPS) <= limit[1]):
                return form, joint
        return affine(self.intervals[value], limit), value

    def _constants(self, node: onnx.NodeProto) -> list[str]:
        """The names of a weighted operator's weights and bias as integers."""
        source, weight, *bias = node.input
        zeros = node.op_type == "Gemm"  # without zero points onnxruntime fuses convolutions, but no linear layers
        scales = weight_scales(self.pairs.weights[weight], self.levels)
        steps: Array = (self.affines[source].scale * scales).astype(np.float32)
        biases = [self.pairs.bias(name, steps, zeros) for name in bias]
        return [self.pairs.weight(weight, scales, self.levels, zeros), *biases]
