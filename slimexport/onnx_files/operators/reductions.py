"""Sums, means, maxima, positions of maxima, running sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, form, ints
from slimtrain.graph.graph import Batch

REDUCED = {
    "amax": "ReduceMax",
    "amin": "ReduceMin",
    "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
}


@form(*REDUCED)
def reduction(call: Call) -> str:
    x = call.typed(call.x, call.out_type)
    return call.emit(REDUCED[call.kind], x, axes=call.dims(call.get("dim"), call.x), keepdims=_keep(call))


def _keep(call: Call) -> int:
    return int(bool(call.get("keepdim")))


@form("mean")
def mean(call: Call) -> str:
    """Over all of space it is a global pool, as every runtime knows it."""
    x, axes, rank = call.x, call.dims(call.get("dim"), call.x), call.rank(call.x)
    operand = call.typed(x, np.float32)
    if rank > 3 and axes == list(range(2, rank)):
        pooled = call.emit("GlobalAveragePool", operand)
        return pooled if _keep(call) else call.emit("Flatten", pooled, axis=1)
    return call.emit("ReduceMean", operand, axes=axes, keepdims=_keep(call))


@form("sum")
def total(call: Call) -> str:
    axes = call.dims(call.get("dim"), call.x)
    return call.emit("ReduceSum", call.typed(call.x, call.out_type), ints(*axes), keepdims=_keep(call))


@form("max", "min")
def extreme(call: Call) -> list[str]:
    """Of all numbers, of two tensors, or along a dimension with its positions."""
    word = call.kind.capitalize()
    if call.optional("other") is not None:
        return [call.emit(word, *(call.typed(call[name], call.out_type) for name in ("self", "other")))]
    axes = call.dims(call.get("dim"), call.x)
    values = call.emit(f"Reduce{word}", call.x, axes=axes, keepdims=_keep(call))
    if len(call.action.node.outputs) == 1:
        return [values]
    return [values, call.emit(f"Arg{word}", call.x, axis=axes[0], keepdims=_keep(call)) if call.read(1) else values]


@form("argmax", "argmin")
def position(call: Call) -> str:
    if call.get("dim") is None:
        call.refuse("counts positions over all images", "Give it a dimension.")
    operator = "ArgMax" if call.kind == "argmax" else "ArgMin"
    return call.emit(operator, call.x, axis=call.dim("dim", call.x), keepdims=_keep(call))


@form("all", "any")
def truth(call: Call) -> str:
    whole = call.cast(call.typed(call.x, np.bool_), np.int32)
    operator = "ReduceMin" if call.kind == "all" else "ReduceMax"
    return call.cast(call.emit(operator, whole, axes=call.dims(call.get("dim"), call.x), keepdims=_keep(call)), np.bool_)


@form("var", "std", "var_mean", "std_mean")
def variance(call: Call) -> list[str]:
    """Divided by what is counted less the correction, 1 where none is given."""
    axes = call.dims(call.get("dim"), call.x)
    correction = call.get("correction", 1)
    if "unbiased" in call.action.arguments:
        correction = int(bool(call["unbiased"]))
    shape = call.shape(call.x)
    if any(isinstance(shape[axis], Batch) for axis in axes):
        call.refuse("takes statistics over images", "Images of a batch are to be independent of each other.")
    count = math.prod(size for axis in axes if isinstance(size := shape[axis], int))
    centre = call.emit("ReduceMean", call.x, axes=axes, keepdims=1)
    offset = call.emit("Sub", call.x, centre)
    result = call.emit("ReduceMean", call.emit("Mul", offset, offset), axes=axes, keepdims=_keep(call))
    if correction:
        result = call.emit("Mul", result, count / max(count - float(correction), 0.0) if count > correction else math.inf)
    if call.kind.startswith("std"):
        result = call.emit("Sqrt", result)
    if len(call.action.node.outputs) == 1:
        return [result]
    return [result, centre if _keep(call) else call.emit("Squeeze", centre, ints(*axes))]


@form("cumsum")
def cumsum(call: Call) -> str:
    dim: Any = np.asarray(call.dim("dim", call.x), np.int64)
    x: Operand = call.typed(call.x, call.out_type)
    return call.emit("CumSum", x, dim)


@form("frobenius_norm")
def frobenius(call: Call) -> str:
    return call.emit("ReduceL2", call.x, axes=call.dims(call.get("dim"), call.x), keepdims=_keep(call))
