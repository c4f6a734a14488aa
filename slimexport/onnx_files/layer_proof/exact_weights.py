"""Whether the numbers that stand in an fp32 file are the checkpoint's, sliced and with their norms: also those that no image
shows.

They are computed here in float64 from the tensors of the plan, by the definition of a batch norm and by the network's own
operators, and not by what wrote the file. A name may stand for several tensors, as the weights of a layer that two norms
follow do: what the file has under it, numbered or not, is one of these. Numbers of operators themselves, as the bounds of a
clip, have no name in the network; they are left to the images.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from slimexport.onnx_files.layer_proof.fixed_values import fixed_values, name_in_files
from slimexport.onnx_files.layer_proof.stored import counted
from slimexport.target.arrays import Array
from slimtrain.graph.folding import CONVOLUTIONS, folded_norms
from slimtrain.graph.graph import Argument, Node, Value
from slimtrain.graph.sizes import Sizing

STEPS = 3  # between a number rounded once and a product of two rounded ones, rounded
STEP, DOUBLE = 2.0**-23, 2.0**-45  # of a float32 number, to the next one, and what float64 makes of sums that cancel
LEAST = 2.0**-149
LINEAR = "linear"  # is stored turned where it reads more than a matrix
OPERATORS_OWN = re.compile(r"constant(\.\d+)?(_\d+)*")  # names of what operators take, which a parameter may have too
NUMBERED = re.compile(r"_\d+$")  # where a name is taken


def wrong_weight(model: onnx.ModelProto, sizing: Sizing, tensors: Mapping[str, Tensor]) -> str:
    """The first tensor of an fp32 `model` that is not what the network at a plan, `sizing`, has there, in words; nothing where
    all are right. `tensors`: the graph's at the plan, by name (`slimtrain.slimmable.graph_dense.stored_tensors`)."""
    network = _Network(sizing, tensors)
    return next((fault for tensor in model.graph.initializer for fault in network.wrong(tensor)), "")


@dataclass(frozen=True)
class _Wanted:
    """A tensor as it should stand in a file: `values`, times `factor`, which has as many dimensions. `what` it is, where the
    file's name does not say it; `rounding`: what float64 may be off."""

    values: Array
    what: str = ""
    factor: Array | None = None
    rounding: Array | float = 0.0
    turned: bool = False

    def fault(self, stored: Array, name: str) -> tuple[int, str]:
        """How many numbers of a tensor stored as `name` are wrong, and which."""
        what = self.what or name
        if stored.dtype.kind != self.values.dtype.kind:
            return stored.size + 1, f"{what} are {stored.dtype}, expected {self.values.dtype}"
        forms = list(self._forms(stored))
        if not forms:
            return stored.size + 1, f"{what} are {list(stored.shape)}, expected {list(self.values.shape)}"
        if self.values.dtype.kind != "f":
            return min(_counted(form != self.values, form, self.values.astype(np.float64), what) for form in forms)
        if any(_steps_apart(form, self._in_single()) for form in forms):
            return 0, ""
        wanted = self.values.astype(np.float64) * (1 if self.factor is None else self.factor)
        return min(_counted(_wrong(form, wanted, self.rounding), form, wanted, what) for form in forms)

    def _forms(self, stored: Array) -> Iterator[Array]:
        """A stored tensor in the dimensions of what it should be."""
        shape = self.values.shape
        if stored.shape == shape:
            yield stored
        elif [size for size in stored.shape if size != 1] == [size for size in shape if size != 1]:
            yield stored.reshape(shape)
        if self.turned and stored.T.shape == shape:
            yield stored.T

    def _in_single(self) -> Array:
        single = self.values.astype(np.float32, copy=False)
        return single if self.factor is None else single * self.factor.astype(np.float32)


class _Network:
    """What a network has under the names that files have for it."""

    def __init__(self, sizing: Sizing, tensors: Mapping[str, Tensor]) -> None:
        self.sizing, self.graph = sizing, sizing.graph
        self.values = fixed_values(sizing, tensors)
        self.names = {Value(parameter.node): parameter.name for parameter in self.graph.parameters}
        self.paths = {value: name.rpartition(".")[0] for value, name in self.names.items()}
        for node in self.graph.nodes:
            own = (Value(node.name, output) for output in range(len(node.outputs)))
            self.names |= {value: name_in_files(node) for value in own if value in self.values}
        self.wanted: dict[str, list[_Wanted]] = defaultdict(list)
        self._enter()

    def wrong(self, tensor: onnx.TensorProto) -> Iterator[str]:
        """What is wrong with a stored tensor, next to what it is nearest to of all that it may be."""
        if OPERATORS_OWN.fullmatch(tensor.name):
            return
        wanted = [one for name in _names(tensor.name) for one in self.wanted.get(name, ())]
        if wanted:
            stored = numpy_helper.to_array(tensor)
            count, fault = min(one.fault(stored, tensor.name) for one in wanted)
            if count:
                yield fault

    def _enter(self) -> None:
        """All that may stand in a file: layers with the norms that they take in, and everything else as it is."""
        nodes, folded = self.graph.nodes, set[tuple[str, Value]]()  # what nodes read that then stands in no file
        for name, layer in folded_norms(self.graph).items():
            norm = self.graph.by_name[name]
            folded |= {(layer.name, value) for value in _operands(layer)} | {(name, value) for value in norm.inputs[1:]}
            self._enter_folded(layer, norm)
        layers = {value: node for node in nodes for value in _operands(node)}
        plain = {value for node in nodes for value in node.inputs if (node.name, value) not in folded}
        for value in self.values:
            if value in plain or value in self.graph.outputs:
                layer_ = layers.get(value)
                what, turned = "", False
                if layer_ is not None:
                    what, turned = self._in_words(layer_, value), layer_.kind == LINEAR
                self.wanted[self.names[value]].append(_Wanted(self.values[value].numpy(), what, turned=turned))

    def _enter_folded(self, layer: Node, norm: Node) -> None:
        """The weights and biases of a convolution or linear layer that does what its norm does too."""
        weight, bias = layer.arguments["weight"], layer.arguments.get("bias")
        assert isinstance(weight, Value), "a layer has weights"
        statistics = [norm.arguments.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = map(self._exact, statistics)
        biases, weights = self._exact(bias), self.values[weight].numpy()
        assert mean is not None and variance is not None, "a norm without statistics is not folded"
        factor = (1.0 if scale is None else scale) / np.sqrt(variance + norm.arguments["eps"])
        moved = ((0.0 if biases is None else biases) - mean) * factor
        added = np.zeros(mean.shape) if shift is None else shift
        name, what = self.names[weight], self._in_words(layer, weight)
        by_output = self._by_output(layer, weights, factor)
        self.wanted[name].append(_Wanted(weights, what, by_output, turned=layer.kind == LINEAR))
        path = name.rpartition(".")[0]
        own = self.names[bias] if isinstance(bias, Value) else f"{path}.bias" if path else "bias"
        rounding = DOUBLE * (np.abs(moved) + np.abs(added))
        self.wanted[own].append(_Wanted(moved + added, f"biases of {path or name}", rounding=rounding))

    def _by_output(self, layer: Node, weights: Array, factor: Array) -> Array:
        """A factor of every output as it meets weights [outputs, inputs of a group, ...], or transposed ones [inputs, outputs
        of a group, ...]."""
        if "transpose" not in layer.kind:
            return factor.reshape(-1, *[1] * (weights.ndim - 1))
        groups = self.sizing.call(layer)[1].get("groups") or 1
        assert isinstance(groups, int)
        by_input = np.repeat(factor.reshape(groups, -1), len(weights) // groups, axis=0)
        return by_input.reshape(*by_input.shape, *[1] * (weights.ndim - 2))

    def _in_words(self, layer: Node, value: Value) -> str:
        what = "weights" if value == layer.arguments["weight"] else "biases"
        return f"{what} of {self.paths.get(value) or self.names[value]}"

    def _exact(self, argument: Argument) -> Array | None:
        return self.values[argument].numpy().astype(np.float64) if isinstance(argument, Value) else None


def _operands(node: Node) -> list[Value]:
    """What a convolution or linear layer multiplies by and adds."""
    if node.kind not in (*CONVOLUTIONS, LINEAR):
        return []
    return [value for value in map(node.arguments.get, ("weight", "bias")) if isinstance(value, Value)]


def _names(name: str) -> Iterator[str]:
    """A name, and those that it may stand for because they were taken."""
    yield name
    while NUMBERED.search(name):
        name = NUMBERED.sub("", name)
        yield name


def _counted(wrong: Array, stored: Array, wanted: Array, what: str) -> tuple[int, str]:
    return int(wrong.sum()), next(counted(wrong, stored, wanted, what), "")


def _steps_apart(given: Array, products: Array) -> bool:
    """Whether all numbers are so few float32 numbers from others that rounding explains it: of some this says no, of whom that
    is told in float64 then, which takes three times as long. All widths of a network have a hundred million."""
    if given.dtype != products.dtype:
        return False
    steps = given.view(np.int32) - products.view(np.int32)  # beyond a sign bit this is large
    return not steps.size or bool(steps.min() >= -STEPS and steps.max() <= STEPS)


def _wrong(given: Array, wanted: Array, rounding: Array | float) -> Array:
    """Which numbers are further off than rounding to float32 explains."""
    with np.errstate(invalid="ignore"):
        near = np.abs(given - wanted) <= STEPS * STEP * np.abs(wanted) + rounding + LEAST
    return np.asarray(~(near | (given == wanted)))
