"""Whether the weights that stand in an fp32 file are the checkpoint's, sliced and with their norms: also those that no image
shows.

Computed here in float64 from the tensors of the plan by the definition of a batch norm, layer by layer as modules are called,
and not by what wrote the file. What a file has in another form (a transposed convolution's norm, what depends on parameters
through operators) is left to the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from slimexport.onnx_files.layer_proof.stored import counted
from slimexport.target.arrays import Array
from slimtrain.graph.folding import BATCH_NORMS, CONVOLUTIONS, folded_norms
from slimtrain.graph.graph import Graph, Node, Value

STEPS = 3  # between a number rounded once and a product of two rounded ones, rounded
STEP, DOUBLE = 2.0**-23, 2.0**-45  # of a float32 number, to the next one, and what float64 makes of sums that cancel
LEAST = 2.0**-149
LINEAR = "linear"  # is stored turned where it reads more than a matrix


def wrong_weight(model: onnx.ModelProto, graph: Graph, tensors: Mapping[str, Tensor]) -> str:
    """The first layer of an fp32 `model` whose weights or biases are not those of `graph`, in words; nothing where all are
    right. `tensors`: the graph's at the plan, by name (`slimtrain.slimmable.graph_dense.stored_tensors`)."""
    return next(_Weights(model, graph, tensors).wrong(), "")


class _Weights:
    """What a file stores, by the names of the graph's parameters."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.tensors = graph, tensors
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.names = {Value(parameter.node): parameter.name for parameter in graph.parameters}
        self.count = Counter(value for node in graph.nodes for value in node.inputs) + Counter(graph.outputs)

    def wrong(self) -> Iterator[str]:
        norms = folded_norms(self.graph)
        of_layers = {layer.name: self.graph.by_name[norm] for norm, layer in norms.items()}
        for node in self.graph.nodes:
            if node.kind in (*CONVOLUTIONS, LINEAR):
                yield from self._layer(node, of_layers.get(node.name))
            elif node.kind in BATCH_NORMS and node.name not in norms:
                for value in node.inputs[1:]:
                    if (name := self._own(value)) is not None and (given := self._stored(name)) is not None:
                        yield from _compared(given, self._exact(name), name)

    def _layer(self, layer: Node, norm: Node | None) -> Iterator[str]:
        """What is wrong with a convolution or linear layer that does what its norm does too."""
        weight, bias = self._own(layer.arguments.get("weight")), self._own(layer.arguments.get("bias"))
        if weight is None or (bias is None and layer.arguments.get("bias") is not None):
            return  # computed, or shared
        path = weight.rpartition(".")[0]
        added = bias or (f"{path}.bias" if path else "bias")
        weights, factor = self._given(weight), np.ones(1)
        biases = None if bias is None else self._exact(bias)
        rounding: Array | float = 0.0
        if norm is not None:
            if "transpose" in layer.kind or (statistics := self._of_norm(norm)) is None:
                return
            mean, variance, scale, shift = statistics
            factor = scale / np.sqrt(variance + norm.arguments["eps"])
            moved = ((0.0 if biases is None else biases) - mean) * factor
            biases, rounding = moved + shift, DOUBLE * (np.abs(moved) + np.abs(shift))
        factor = factor.reshape(-1, *[1] * (weights.ndim - 1))
        yield from self._scaled(weight, f"weights of {path or weight}", weights, factor, turned=layer.kind == LINEAR)
        if biases is not None and (given := self._stored(added)) is not None:
            yield from _compared(given, biases, f"biases of {path or weight}", rounding)

    def _of_norm(self, norm: Node) -> tuple[Array, Array, Array, Array] | None:
        """Mean, variance, scale and shift; None where one is computed or shared."""
        values = [norm.arguments.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
        names = [self._own(value) for value in values]
        if any(name is None for name, value in zip(names, values, strict=True) if value is not None):
            return None
        arrays = [None if name is None else self._exact(name) for name in names]
        mean, variance, scale, shift = arrays
        assert mean is not None and variance is not None, "a norm without statistics is not folded"
        return (
            mean,
            variance,
            np.ones(mean.shape) if scale is None else scale,
            np.zeros(mean.shape) if shift is None else shift,
        )

    def _own(self, argument: object) -> str | None:
        """The name of a parameter that one node reads, once."""
        if not isinstance(argument, Value) or self.count[argument] != 1:
            return None
        return self.names.get(argument)

    def _given(self, name: str) -> Array:
        return self.tensors[name].detach().cpu().numpy()

    def _exact(self, name: str) -> Array:
        return self._given(name).astype(np.float64)

    def _scaled(self, name: str, what: str, weights: Array, factor: Array, *, turned: bool) -> Iterator[str]:
        """What is wrong with stored weights, if the file has them in this form."""
        if (given := self._stored(name)) is None:
            return
        rows = weights.astype(np.float32, copy=False).reshape(len(weights), -1)
        products = (rows * factor.astype(np.float32).reshape(-1, 1)).reshape(weights.shape)
        if _steps_apart(given, products) or (turned and _steps_apart(given.T, products)):
            return
        wanted = weights.astype(np.float64) * factor
        yield from _compared(given if given.shape == wanted.shape else given.T, wanted, what)

    def _stored(self, name: str) -> Array | None:
        tensor = self.stored.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)


def _compared(given: Array, wanted: Array, what: str, rounding: Array | float = 0.0) -> Iterator[str]:
    """What is wrong with a stored tensor."""
    if given.shape != wanted.shape:
        yield f"{what} are {list(given.shape)}, expected {list(wanted.shape)}"
    else:
        yield from counted(_wrong(given, wanted, rounding), given, wanted, what)


def _steps_apart(given: Array, products: Array) -> bool:
    """Whether all numbers are so few float32 numbers from others that rounding explains it: of some this says no, of whom that
    is told in float64 then, which takes three times as long. All widths of a network have a hundred million."""
    if given.shape != products.shape or given.dtype != products.dtype:
        return False
    steps = given.view(np.int32) - products.view(np.int32)  # beyond a sign bit this is large
    return not steps.size or bool(steps.min() >= -STEPS and steps.max() <= STEPS)


def _wrong(given: Array, wanted: Array, rounding: Array | float) -> Array:
    """Which numbers are further off than rounding to float32 explains."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.abs(given - wanted) <= STEPS * STEP * np.abs(wanted) + rounding + LEAST))
