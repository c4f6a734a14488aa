"""Quantize-dequantize pairs as ONNX writes them: activations between float operators, weights and biases as integers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from slimexport.target.arrays import Array


@dataclass(frozen=True)
class Affine:
    """What 8-bit integers q stand for: the numbers scale * (q - zero), q of `zero`'s type."""

    scale: np.float32
    zero: np.int8 | np.uint8


@dataclass(frozen=True)
class Recorded:
    """What a file of fewer bits is to compute, in terms of the fp32 model `base` that it was written from: all that was
    decided, and nothing of how it was written.

    `forms`: values of `base` that are 8-bit integers in the file. `reads`: operands that are read through a pair, by node and
    place, each with its scale. `unpaired`: those that are read as they were before their value was paired. `names`: what the
    integers of both are called in the file. `weighted`: the first outputs of the
    operators whose weights are int8 up to +-`levels`, in scales of `floor` at least; `biases`: whether biases are int32, in
    steps of both scales. `number`: the type of the numbers around all that.
    """

    base: onnx.ModelProto
    forms: Mapping[str, Affine] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    reads: Mapping[tuple[int, int], float] = field(default_factory=dict)
    weighted: Set[str] = frozenset()
    levels: int = 127
    floor: float = 0.0
    biases: bool = False
    unpaired: Set[tuple[int, int]] = frozenset()
    number: str = "float32"


class PairWriter:
    """Appends pairs to a graph that is being written, one per value however many read it. Weights and biases lose their float
    form. A pair's own values are called by numbers, and its nodes by nothing: there are so many that names would be a tenth of
    a small network's file; the operators that read them keep their names. `stored` is what becomes of a scale in the file
    (where that holds fp16): integers are rounded by it."""

    def __init__(self, graph: onnx.GraphProto, stored: Callable[[Array], Array] = lambda scale: scale) -> None:
        self.graph, self.stored = graph, stored
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.count = 0
        names = [*self.weights, *(name for node in graph.node for name in (*node.input, *node.output))]
        self.prefix = ""  # of all numbers
        while any(re.fullmatch(rf"{self.prefix}[a-z]\d+", name) for name in names):
            self.prefix += "_"
        self.paired: dict[str, str] = {}
        self.integers: dict[str, str] = {}  # of an activation that has a pair
        self.steps: dict[str, list[Array]] = {}  # that weights or a bias are stored in
        self.parameters: dict[str, list[str]] = {}  # of a value that has a pair: the names of its scale and zero point

    def numbered(self, letter: str) -> str:
        """The name of a value of the pair that is being written."""
        return f"{self.prefix}{letter}{self.count}"

    def activation(self, name: str, affine: Affine, like: str = "", written: str = "") -> str:
        """A pair on the activation `name`; the new name, which is `written` where that is given. `like`: a value with the same
        scale and zero point, which are shared with it."""
        if name not in self.paired:
            self.count += 1
            if like:
                self.parameters[name] = self.parameters[like]
            else:
                self._parameters(name, np.asarray(affine.scale), np.asarray(affine.zero))
            integers, self.paired[name] = self.numbered("q"), written or self.numbered("d")
            self.integers[name] = integers
            self._node("QuantizeLinear", name, name, integers)
            self._node("DequantizeLinear", integers, name, self.paired[name])
        return self.paired[name]

    def again(self, name: str, affine: Affine) -> str:
        """The integers of the activation `name`, which has a pair, as numbers of another `affine` form; the new name."""
        return self._read(self.integers[name], affine)

    def constant(self, value: np.float32) -> str:
        """A number above zero, as a uint8; the new name."""
        largest = np.uint8(255)
        stored = f"{self.prefix}c{self.count + 1}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(largest), stored))
        return self._read(stored, Affine(np.float32(value / largest), np.uint8(0)))

    def _read(self, integers: str, affine: Affine) -> str:
        """Integers as numbers of an `affine` form; the new name."""
        self.count += 1
        written = self.numbered("d")
        self._parameters(written, np.asarray(affine.scale), np.asarray(affine.zero))
        self._node("DequantizeLinear", integers, written, written)
        return written

    def weight(self, name: str, scales: Array, levels: int, zeros: bool = True, axis: int = 0) -> str:
        """The weights `name` as int8 up to +-`levels`, float32 `scales` of each output channel, which `axis` counts,
        dequantized; the new name. `zeros`: whether the zero points are written, all of them 0 and as many as channels."""
        values, stored = self.weights[name], self._in_steps(name, scales)
        steps = self.stored(scales).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1 - axis))
        return self._integers(stored, np.clip(np.rint(values / steps), -levels, levels).astype(np.int8), scales, zeros, axis)

    def bias(self, name: str, scales: Array, zeros: bool = True) -> str:
        """The bias `name` [out] as int32 in steps of `scales` [out], an input's times its weights', dequantized; the new
        name. A bias that is read in other steps too, as of a layer that runs twice, is stored once for each."""
        limits = np.iinfo(np.int32)
        integers = np.rint(self.weights[name].astype(np.float64) / scales)
        stored = self._in_steps(name, scales)
        return self._integers(stored, np.clip(integers, limits.min, limits.max).astype(np.int32), scales, zeros)

    def _in_steps(self, name: str, scales: Array) -> str:
        """What weights or a bias are kept by: their name, and a number where they are stored in other steps too."""
        others = self.steps.setdefault(name, [])
        number = next((i for i, steps in enumerate(others) if np.array_equal(steps, scales)), len(others))
        if number == len(others):
            others.append(scales)
        return f"{name}.{number}" if number else name

    def _integers(self, name: str, integers: Array, scales: Array, zeros: bool, axis: int = 0) -> str:
        if name not in self.paired:
            self.count += 1
            stored, self.paired[name] = self.numbered("w"), self.numbered("d")
            self.graph.initializer.append(numpy_helper.from_array(integers, stored))
            self._parameters(name, scales, np.zeros(scales.shape, integers.dtype) if zeros else None)
            self._node("DequantizeLinear", stored, name, self.paired[name], axis=axis)
        return self.paired[name]

    def _parameters(self, name: str, scale: Array, zero: Array | None) -> None:
        self.parameters[name] = []
        for letter, array in (("s", scale), ("z", zero)):
            key = self.numbered(letter)
            if array is not None:
                self.graph.initializer.append(numpy_helper.from_array(array, key))
                self.parameters[name].append(key)

    def _node(self, op: str, read: str, of: str, written: str, **axis: Any) -> None:
        self.graph.node.append(helper.make_node(op, [read, *self.parameters[of]], [written], **axis))

    def finish(self) -> None:
        """Take out what nobody reads any more: half pairs, weights, scales."""
        results = {result.name for result in self.graph.output}
        read = {name for node in self.graph.node for name in node.input} | results
        for node in [node for node in self.graph.node if node.op_type == "DequantizeLinear" and node.output[0] not in read]:
            self.graph.node.remove(node)
        read = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
