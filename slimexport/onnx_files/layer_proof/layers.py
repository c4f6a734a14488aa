"""Every layer of an fp32 model by itself, with the weights and roundings of a file of fewer bits, on its inputs in that file.

One model holds them all: what the file has of a layer's inputs comes from outside, so that no layer builds on another one's
roundings. Layers between which the file has no value (an activation that its writer takes in) are one. Integers are ordinary
float32 numbers here, which hold them exactly, and are computed with as such; what becomes one is given before it is rounded.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimexport.onnx_files.layer_proof.constants import constants_of
from slimexport.onnx_files.layer_proof.values import Values, types_of
from slimexport.onnx_files.pairs import Affine, Recorded
from slimexport.onnx_files.runner import cpu_session
from slimexport.target.arrays import Array

STEPS = 255  # of a uint8
PLAIN = ", not in 8 bits"  # after a value's name: what it was before
CASTS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def layers_alone(recorded: Recorded, values: Values) -> dict[str, Array]:
    """What each value that the file has should be, given the inputs of its layer; under its name with PLAIN, before it became
    an integer."""
    layers = _Layers(recorded, values)
    return layers.run(layers.fed)


def moved_alone(recorded: Recorded, values: Values, jitter: float, draws: int) -> dict[str, Array]:
    """How far each number of these moves at the most where inputs are off by such shares of themselves, normally distributed;
    before it is rounded, since near a half the least jitter moves a number by a whole step."""
    layers, draw = _Layers(recorded, values, rounded=False), np.random.default_rng(0)
    exact = layers.run(layers.fed)
    moved = {value: np.zeros(numbers.shape, np.float32) for value, numbers in exact.items() if numbers.dtype.kind == "f"}
    for _ in range(draws):
        shaken = layers.run({name: _shaken(numbers, jitter, draw) for name, numbers in layers.fed.items()})
        for value, most in moved.items():
            with np.errstate(invalid="ignore", over="ignore"):
                difference = np.abs(shaken[value] - exact[value])
            np.maximum(most, np.nan_to_num(difference, nan=0.0, posinf=0.0), out=most)
    return moved


def _shaken(values: Array, jitter: float, draw: np.random.Generator) -> Array:
    if values.dtype.kind != "f":
        return values
    return np.asarray(values * (1 + jitter * draw.standard_normal(values.shape)), values.dtype)


class _Layers:
    """Writes the model that holds all layers, node by node, and runs it. Not `rounded`: what layers read and give are numbers
    as they were before the file's type held them."""

    def __init__(self, recorded: Recorded, values: Values, *, rounded: bool = True) -> None:
        self.recorded, self.values, self.rounded = recorded, values, rounded
        self.types = types_of(recorded.base)
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in recorded.base.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.fed: dict[str, Array] = {}
        self.computed: dict[str, str] = {}  # a value -> what stands for it where it is computed here
        self.results: dict[str, str] = {}  # what is given -> what stands for it
        self.numbers = itertools.count()
        for number, node in enumerate(recorded.base.graph.node):
            self._layer(number, node)
        self.session = cpu_session(self._model(), as_written=True)

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What each layer gives of inputs as those that are `fed`."""
        return dict(zip(self.results, self.session.run(list(self.results.values()), inputs), strict=True))

    def _model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "layers",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), None)
                for name, values in self.fed.items()
            ],
            [
                helper.make_tensor_value_info(name, self.types.get(value.removesuffix(PLAIN), TensorProto.FLOAT), None)
                for value, name in self.results.items()
            ],
            self.constants,
        )
        base = self.recorded.base
        return helper.make_model(graph, opset_imports=base.opset_import, ir_version=base.ir_version)

    def _layer(self, number: int, node: onnx.NodeProto) -> None:
        constants = constants_of(self.recorded, node, self.stored)
        layer = onnx.NodeProto()
        layer.CopyFrom(node)
        for place, name in enumerate(node.input):
            if place in constants:
                layer.input[place] = self._constant(constants[place])
            elif name:
                layer.input[place] = self._operand(number, place, name)
        layer.output[:] = [self._new() for _ in node.output]
        self.nodes.append(layer)
        for value, name in zip(node.output, layer.output, strict=True):
            if value:
                self.computed[value] = self._as_in_the_file(value, name)
                if value in self.values.there:
                    exact = not self.rounded and value not in self.recorded.forms
                    self.results[value] = name if exact else self.computed[value]
                if value in self.values.plain:
                    self.results[f"{value}{PLAIN}"] = name

    def _operand(self, number: int, place: int, name: str) -> str:
        """What a layer reads: through a pair what its integers stand for."""
        scale = self.recorded.reads.get((number, place))
        if scale is not None and name in self.values.integers:
            read = f"{name}.{number}.{place}"
            self.fed[read] = self.values.integers[name].astype(np.float32) * np.float32(scale)
            return self._rounded(read) if self.rounded else read
        if (number, place) in self.recorded.unpaired and name in self.values.plain:
            self.fed[f"{name}.plain"] = self.values.plain[name]
            return f"{name}.plain"
        if name not in self.values.there:
            return self.computed[name]
        self.fed[name] = self.values.there[name]
        image = name == self.recorded.base.graph.input[0].name and name not in self.recorded.forms
        return self._rounded(name) if image and self.rounded else name

    def _as_in_the_file(self, value: str, name: str) -> str:
        """A layer's result in the numbers that the file has for it."""
        if form := self.recorded.forms.get(value):
            return self._clipped(name, form)
        return self._rounded(name) if self.types.get(value, TensorProto.FLOAT) == TensorProto.FLOAT else name

    def _clipped(self, name: str, form: Affine) -> str:
        """What 8 bits can hold of a value, before it is rounded to one of their steps."""
        low, high = -float(form.zero), STEPS - float(form.zero)
        return self._node("Clip", name, self._number(low * form.scale), self._number(high * form.scale))

    def _rounded(self, name: str) -> str:
        kind = CASTS.get(self.recorded.number)
        if kind is None:
            return name
        return self._node("Cast", self._node("Cast", name, to=kind), to=TensorProto.FLOAT)

    def _node(self, kind: str, *operands: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, operands, [self._new()], **attributes))
        return self.nodes[-1].output[0]

    def _number(self, value: float | np.float32) -> str:
        return self._constant(np.asarray(value, np.float32))

    def _constant(self, values: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), self._new()))
        return self.constants[-1].name

    def _new(self) -> str:
        """A name that no module has."""
        return f"layer:{next(self.numbers)}"
