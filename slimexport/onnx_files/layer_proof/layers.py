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


def layers_alone(recorded: Recorded, values: Values, jitter: float = 0.0) -> dict[str, Array]:
    """What each value that the file has should be, given the inputs of its layer; under its name with PLAIN, before it became
    an integer. With `jitter`, given inputs that are off by such shares of themselves, normally distributed."""
    return _Layers(recorded, values).run(jitter)


def _shaken(inputs: dict[str, Array], jitter: float) -> dict[str, Array]:
    draw = np.random.default_rng(0)
    return {
        name: (values * (1 + jitter * draw.standard_normal(values.shape))).astype(values.dtype)
        if jitter and values.dtype.kind == "f"
        else values
        for name, values in inputs.items()
    }


class _Layers:
    """Writes the model that holds all layers, node by node, and runs it."""

    def __init__(self, recorded: Recorded, values: Values) -> None:
        self.recorded, self.values = recorded, values
        self.types = types_of(recorded.base)
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in recorded.base.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.fed: dict[str, Array] = {}
        self.computed: dict[str, str] = {}  # a value -> what stands for it where it is computed here
        self.results: dict[str, str] = {}  # what is given -> what stands for it
        self.numbers = itertools.count()

    def run(self, jitter: float) -> dict[str, Array]:
        for number, node in enumerate(self.recorded.base.graph.node):
            self._layer(number, node)
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
        model = helper.make_model(graph, opset_imports=base.opset_import, ir_version=base.ir_version)
        given = cpu_session(model, as_written=True).run(list(self.results.values()), _shaken(self.fed, jitter))
        return dict(zip(self.results, given, strict=True))

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
                    self.results[value] = self.computed[value]
                if value in self.values.plain:
                    self.results[f"{value}{PLAIN}"] = name

    def _operand(self, number: int, place: int, name: str) -> str:
        """What a layer reads: through a pair what its integers stand for."""
        scale = self.recorded.reads.get((number, place))
        if scale is not None and name in self.values.integers:
            read = f"{name}.{number}.{place}"
            self.fed[read] = self.values.integers[name].astype(np.float32) * np.float32(scale)
            return self._rounded(read)
        if (number, place) in self.recorded.unpaired and name in self.values.plain:
            self.fed[f"{name}.plain"] = self.values.plain[name]
            return f"{name}.plain"
        if name not in self.values.there:
            return self.computed[name]
        self.fed[name] = self.values.there[name]
        image = name == self.recorded.base.graph.input[0].name and name not in self.recorded.forms
        return self._rounded(name) if image else name

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
