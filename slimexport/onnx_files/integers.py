"""Int8 for CPUs: a network in integers from its input to its last layer, as onnxruntime and OpenVINO fuse it.

Activations are uint8 with a zero point, weights int8 per output channel, biases int32 in steps of the product of both
scales: U8S8 in onnxruntime's words. Every operator that has an integer kernel reads and writes integers, so that its pairs
fuse into it. An activation that only cuts off what its uint8 cannot hold (ReLU, ReLU6) is left out: its writer saturates in
its place; a hard sigmoid is a sum that saturates at both ends. What only moves values (a pool by maximum, a reshape) keeps its
input's scale. Products of matrices, as in transformers, read integers and give floats to the norms and softmaxes that follow;
the last linear layer gives floats.

x86 CPUs without VNNI add two products of 8 bits in 16, where they saturate; with weights of 7 bits they cannot
(255 * 63 * 2 < 2^15).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from slimexport.onnx_files.integer_form import integer_form, readers_of
from slimexport.onnx_files.pairs import Affine, PairWriter, Recorded
from slimexport.onnx_files.ranges import FLOOR, weight_scales
from slimexport.onnx_files.typed import declare
from slimexport.target.arrays import Array

OPSET, IR_VERSION = 17, 8
STEPS = 255  # of a uint8
LEVELS = {8: 127, 7: 63}  # of weights, by their bits
LARGEST_BIAS = 2**30  # in its steps: the other half of an int32 is for the sum of products that it is added to
WEIGHTED = ("Conv", "Gemm")
MATRIX, MATRIX_RANK = "MatMul", 2  # by weights [in, out]: reads integers and gives floats
JOINING = ("Add", "Mul", "Concat")  # of several values
GATES = ("Sigmoid", "HardSigmoid")  # give 0 to 1
COMPUTED = (*WEIGHTED, *JOINING, "AveragePool", "GlobalAveragePool", "LeakyRelu", *GATES)
MOVED = (
    *("MaxPool", "Reshape", "Transpose", "Split", "Flatten", "Squeeze", "Unsqueeze"),
    *("Slice", "Gather", "Expand", "Tile", "DepthToSpace", "Identity"),
)
Interval = tuple[float, float]
GATE: Interval = (0.0, 1.0)


def _moves(node: onnx.NodeProto) -> bool:
    """Whether an operator moves values and computes none."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    return node.op_type in MOVED or (node.op_type == "Resize" and mode == b"nearest")


def integer_values(model: onnx.ModelProto) -> list[str]:
    """The values of an fp32 model whose intervals `to_integers` asks for: the images, and what integer operators read of
    float ones and write, after the activation that they take in."""
    plan = _Plan(integer_form(model))
    values = dict.fromkeys([*plan.entering, *plan.written.values()])
    return [value for value in values if value not in plan.gates]


def to_integers(model: onnx.ModelProto, intervals: Mapping[str, Interval], weight_bits: int = 8) -> onnx.ModelProto:
    """`model` (fp32) in integers, each of its `integer_values` in the interval around zero that `intervals` gives, weights
    of 8 or 7 bits. An operator that is not known stays float, between integers. Opset 17, IR version 8."""
    return recorded_integers(model, intervals, weight_bits)[0]


def recorded_integers(
    model: onnx.ModelProto, intervals: Mapping[str, Interval], weight_bits: int = 8
) -> tuple[onnx.ModelProto, Recorded]:
    """The same, and what was decided."""
    quantized, base = integer_form(model), integer_form(model)
    graph = quantized.graph
    plan = _Plan(quantized)
    writer = _Writer(PairWriter(graph), plan, intervals, LEVELS[weight_bits])
    nodes = list(graph.node)
    del graph.node[:]
    for number, node in enumerate(nodes):
        writer.node(number, node)
    writer.pairs.finish()
    declare(quantized, "int8-cpu", OPSET, IR_VERSION)
    recorded = Recorded(
        base,
        forms=writer.affines,
        names={value: writer.pairs.integers[name] for value, name in writer.named.items() if value in writer.affines},
        weighted={output for output in plan.computed if plan.weighs[output]},
        levels=writer.levels,
        floor=FLOOR,
        biases=True,
        unpaired=writer.unpaired,
    )
    return quantized, recorded


def _slope_and_offset(node: onnx.NodeProto) -> tuple[float, float]:
    """Of a hard sigmoid: it is slope * x + offset, cut off at 0 and 1."""
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return given.get("alpha", 0.2), given.get("beta", 0.5)


class _Plan:
    """Which values of a model become integers, and where. The model is not changed.

    `computed`: what integer operators write. `written`: of these, what stays integers -> the value that it stands for, which
    is that of the activation that it takes in, if there is one. `limits`: of such a value, what the activation lets through.
    `entering`: values that float operators write and integer ones read, the images among them. `moved`: what operators write
    that only move integers. `taken`: outputs of activations that are left out. `joined`: a value that is read by one
    concatenation only -> what that writes, whose scale it takes, so that integers are copied. `gates`: values from 0 to 1.
    `weighs`: whether what is computed has weights.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.results = frozenset(result.name for result in graph.output)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.readers = readers_of(graph)
        self.computed: set[str] = set()
        self.written: dict[str, str] = {}
        self.limits: dict[str, Interval] = {}
        self.entering: dict[str, None] = {}
        self.moved: set[str] = set()
        self.taken: set[str] = set()
        self.joined: dict[str, str] = {}
        self.gates: set[str] = set()
        self.weighs: dict[str, bool] = {}
        integers: set[str] = set()
        for node in graph.node:
            if self._computes(node, integers):
                self.computed.update(node.output)
                self.weighs[node.output[0]] = node.op_type in (*WEIGHTED, MATRIX)
                self.entering.update(dict.fromkeys(name for name in self.activations(node) if name not in integers))
                integers.update(self._output(node))
            elif _moves(node) and node.input[0] in integers and not self.results.intersection(node.output):
                self.moved.update(node.output)
                integers.update(node.output)
        for node in graph.node:
            if node.op_type == "Concat" and (value := self.written.get(node.output[0])):
                alone = {name for name in node.input if len(self.readers[name]) == 1 and name not in self.results}
                self.joined.update(dict.fromkeys((name for name in node.input if name in alone), value))

    def _computes(self, node: onnx.NodeProto, integers: Set[str]) -> bool:
        """Whether an operator computes with integers, of the values that are such before it. What has weights does, where they
        are constants; what has none does not turn floats into integers, unless something with weights reads them next."""
        if node.op_type in (*WEIGHTED, MATRIX):
            return self._weighs(node)
        if node.op_type not in COMPUTED or self.results.intersection(node.output):  # a result is told as exactly as can be
            return False
        if node.op_type == "HardSigmoid" and min(_slope_and_offset(node)) <= 0:
            return False
        known = [name in integers for name in node.input]
        constant = any(name in self.constants for name in node.input)
        return any(known) and not constant and (all(known) or self._reaches_weights(node.output[0]))

    def _weighs(self, node: onnx.NodeProto) -> bool:
        """Whether an operator's weights, and nothing else, are constants; those of a product of matrices are one matrix."""
        constant = [name in self.constants for name in node.input]
        right = constant == [False] + [True] * (len(constant) - 1)
        return right and (node.op_type != MATRIX or len(self.constants[node.input[1]].dims) == MATRIX_RANK)

    def _reaches_weights(self, name: str) -> bool:
        """Whether an operator with weights reads a value, or what activations and moves make of it."""
        for reader in self.readers.get(name, []):
            if reader.op_type in (*WEIGHTED, MATRIX):
                if self._weighs(reader):
                    return True
            elif (self._limit(reader) is not None or _moves(reader)) and any(map(self._reaches_weights, reader.output)):
                return True
        return False

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """What an operator reads that is not a constant."""
        return [name for name in node.input if name not in self.constants]

    def _output(self, node: onnx.NodeProto) -> list[str]:
        """Note what an integer operator writes; the values that are integers thereby."""
        (output,) = node.output
        if node.op_type == MATRIX or (output in self.results and node.op_type == "Gemm"):  # logits are floats
            return []
        following = self.readers.get(output, [])
        limit = self._limit(following[0]) if len(following) == 1 and output not in self.results else None
        value = output if limit is None else following[0].output[0]
        if limit is not None:
            self.limits[value] = limit
            self.taken.add(value)
        self.written[output] = value
        if node.op_type in GATES and value == output:
            self.gates.add(value)
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
    """The uint8 form of the numbers in an interval around zero, none of them beyond `limit`. What was zero on all calibration
    images, of which any form would do, gets the numbers up to 1: what is computed of it is in steps of an ordinary size."""
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    if low == high:
        high = min(1.0, limit[1]) if limit is not None else 1.0
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
    unpaired: set[tuple[int, int]] = field(default_factory=set)  # operands that float operators read as they are

    def node(self, number: int, node: onnx.NodeProto) -> None:
        """The node of a number, and the pairs on what it writes."""
        if node.output[0] in self.plan.taken:
            return
        read, written = list(node.input), list(node.output)
        if node.output[0] in self.plan.computed:
            for name in self.plan.activations(node):
                if name not in self.affines:  # the images, or what a float operator wrote
                    self._pair(name, name, affine(self.intervals[name]))
            constants = self._constants(node) if node.op_type in (*WEIGHTED, MATRIX) else []
            node.input[:] = [*(self.pairs.paired[name] for name in self.plan.activations(node)), *constants]
            values = [self.plan.written[name] for name in written if name in self.plan.written]
            forms = [self._form(value) for value in values]
            if node.op_type == "HardSigmoid":
                self._ramp(node, read[0])
        else:
            node.input[:] = [self.pairs.paired[name] if name in self.affines else name for name in read]
            self.unpaired.update((number, place) for place, name in enumerate(read) if name not in self.affines)
            values = written if written[0] in self.plan.moved else []
            forms = [(self.affines[read[0]], read[0]) for _ in values]
        # What pairs alone read goes by numbers too, and what has no weights without a name.
        inner = [f"{self.pairs.prefix}v{len(self.affines) + place}" for place in range(len(values))]
        if inner:
            node.output[:] = inner
        if node.op_type not in (*WEIGHTED, MATRIX):
            node.ClearField("name")
        self.pairs.graph.node.append(node)
        for value, name, (form, joint) in zip(values, inner, forms, strict=True):
            self._pair(value, name, form, joint)

    def _pair(self, value: str, name: str, form: Affine, joint: str = "") -> None:
        """A pair on a `value` that is called `name` now, with the scale of `joint`, if that is another. The model's result
        keeps its name."""
        joint = joint or value
        like = self.named.get(joint, "")
        written = value if value in self.plan.results and name != value else ""
        self.affines[value] = form
        self.pairs.paired[value] = self.pairs.activation(name, form, like, written)
        self.named[value] = name
        self.named.setdefault(joint, name)

    def _form(self, value: str) -> tuple[Affine, str]:
        """What an integer operator's result is written as, and the value whose form that is: its own, or that of what it is
        joined to, where that cuts off all that its activation does."""
        if value in self.plan.gates:
            return affine(GATE), value
        limit = self.plan.limits.get(value)
        if value in self.plan.joined:
            form, joint = self._form(self.plan.joined[value])
            if limit is None or (form.zero == 0 and form.scale * np.float32(STEPS) <= limit[1]):
                return form, joint
        return affine(self.intervals[value], limit), value

    def _ramp(self, node: onnx.NodeProto, source: str) -> None:
        """Write a hard sigmoid as a sum, which uint8 with steps from 0 to 1 cuts off at both ends: of its slope times what it
        reads, the same integers in other steps, and its offset."""
        slope, offset = _slope_and_offset(node)
        form = self.affines[source]
        scaled = Affine(np.float32(form.scale * np.float32(slope)), form.zero)
        operands = [self.pairs.again(self.named[source], scaled), self.pairs.constant(np.float32(offset))]
        node.CopyFrom(onnx.helper.make_node("Add", operands, list(node.output)))

    def _constants(self, node: onnx.NodeProto) -> list[str]:
        """The names of a weighted operator's weights and bias as integers."""
        source, weight, *bias = node.input
        zeros = node.op_type != "Conv"  # without zero points onnxruntime fuses convolutions, but no linear layers
        if node.op_type == MATRIX:
            scales = weight_scales(self.pairs.weights[weight].T, self.levels)
            return [self.pairs.weight(weight, scales, self.levels, zeros, axis=1)]
        scales = weight_scales(self.pairs.weights[weight], self.levels)
        for name in bias:  # of weights or inputs that are next to nothing its steps would be too small to reach it
            least = np.abs(self.pairs.weights[name]) / (LARGEST_BIAS * np.float64(self.affines[source].scale))
            scales = np.maximum(scales, least).astype(np.float32)
        steps: Array = (self.affines[source].scale * scales).astype(np.float32)
        biases = [self.pairs.bias(name, steps, zeros) for name in bias]
        return [self.pairs.weight(weight, scales, self.levels, zeros), *biases]
