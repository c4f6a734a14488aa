"""Linear layers, matrix products, attention, einsum, recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, form, ints
from slimtrain.graph.graph import Batch, Value, values_of
from slimtrain.graph.recurrence import GATES, STEPS, ZEROS, Cell, cell_kind, cells_of, directions_of, time_dim


@form("linear")
def linear(call: Call) -> str:
    """Gemm for a matrix, whose weights stay as torch stores them; a product with turned weights for all other ranks."""
    x, weight, bias = call.x, call.value("weight"), call.optional("bias")
    if call.rank(x) == 2 and call.rank(weight) == 2:
        return call.emit("Gemm", x, weight, bias, transB=1)
    array = call.stored(weight)
    turned: Operand
    if array is not None:
        turned = call.weight(weight, array.T, "turned")
    else:
        turned = call.transpose(weight, [1, 0] if call.rank(weight) == 2 else [0])
    product = call.emit("MatMul", x, turned)
    return product if bias is None else call.emit("Add", product, bias)


@form("matmul", "bmm", "mm", "mv", "dot")
def matmul(call: Call) -> str:
    return call.emit("MatMul", call.x, call.value("other", "mat2", "vec", "tensor"))


@form("outer")
def outer(call: Call) -> str:
    x, y = call.x, call.value("vec2")
    column = call.reshape(x, call.shape(x), (*call.shape(x), 1))
    return call.emit("Mul", column, y)


@form("addmm", "baddbmm")
def add_product(call: Call) -> str:
    """beta * self + alpha * first @ second."""
    first, second = (call.value(*names) for names in (("mat1", "batch1"), ("mat2", "batch2")))
    beta, alpha = float(call.get("beta", 1)), float(call.get("alpha", 1))
    product = call.emit("MatMul", first, second)
    product = product if alpha == 1 else call.emit("Mul", product, alpha)
    return call.emit("Add", call.x if beta == 1 else call.emit("Mul", call.x, beta), product)


@form("scaled_dot_product_attention")
def attention(call: Call) -> str:
    """softmax(scale * q @ k^T + mask) @ v."""
    query, key, value = (call.value(name) for name in ("query", "key", "value"))
    if call.get("dropout_p"):
        call.refuse("drops attention", "Put the module into evaluation mode, where dropout_p is 0.")
    if call.get("enable_gqa") and call.shape(query)[-3] != call.shape(key)[-3]:
        call.refuse("shares keys among queries (enable_gqa)", "Repeat keys and values for every head of the queries.")
    width = call.shape(query)[-1]
    assert isinstance(width, int), "channels of a head do not count images"
    scale = float(call.get("scale", 1 / math.sqrt(width)))
    rank = call.rank(key)
    turned = call.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
    scores = call.emit("MatMul", query if scale == 1 else call.emit("Mul", query, scale), turned)
    mask = call.optional("attn_mask")
    if call.get("is_causal"):
        lines, columns = call.sizes(query, [call.rank(query) - 2])[0], call.sizes(key, [rank - 2])[0]
        scores = call.emit("Where", np.tril(np.ones((lines, columns), np.bool_)), scores, -np.inf)
    if mask is not None and call.dtype(mask) == "bool":
        scores = call.emit("Where", mask, scores, -np.inf)
    elif mask is not None:
        scores = call.emit("Add", scores, mask)
    return call.emit("MatMul", call.emit("Softmax", scores, axis=-1), value)


@form("einsum")
def einsum(call: Call) -> str:
    equation = str(call["equation"]).replace(" ", "")
    operands = [value for value in call["tensors"] if isinstance(value, Value)]
    return call.emit("Einsum", *operands, equation=equation)


@form("bilinear")
def bilinear(call: Call) -> str:
    bias = call.optional("bias")
    operands = call.value("input1"), call.value("weight"), call.value("input2")
    product = call.emit("Einsum", *operands, equation="...i,oij,...j->...o")
    return product if bias is None else call.emit("Add", product, bias)


@form("pairwise_distance")
def pairwise_distance(call: Call) -> str:
    """The norm of differences over the last dimension, to each of which a little is added."""
    difference = call.emit("Add", call.emit("Sub", call.value("x1"), call.value("x2")), float(call.get("eps", 1e-6)))
    order, keep = float(call.get("p", 2)), int(bool(call.get("keepdim")))
    if order in (1, 2):
        return call.emit(f"ReduceL{order:.0f}", difference, axes=[-1], keepdims=keep)
    if math.isinf(order):
        return call.emit("ReduceMax" if order > 0 else "ReduceMin", call.emit("Abs", difference), axes=[-1], keepdims=keep)
    if order == 0:
        call.refuse("counts how many differ (p=0)")
    powers = call.emit("ReduceSum", call.emit("Pow", call.emit("Abs", difference), order), ints(-1), keepdims=keep)
    return call.emit("Pow", powers, 1 / order)


@form("cosine_similarity")
def cosine_similarity(call: Call) -> str:
    first, second, eps = call.value("x1"), call.value("x2"), float(call.get("eps", 1e-8))
    dim = call.dim("dim", first, 1)
    if isinstance(call.shape(first)[dim], Batch):
        call.refuse("compares images with each other")
    rank = max(call.rank(first), call.rank(second))
    axes = [dim - rank]
    units = [
        call.emit("Div", x, call.emit("Max", call.emit("ReduceL2", x, axes=axes, keepdims=1), eps)) for x in (first, second)
    ]
    return call.emit("ReduceSum", call.emit("Mul", *units), np.array(axes, np.int64), keepdims=0)


@dataclass(frozen=True)
class _Recurrence:
    """A recurrent layer of torch's in ONNX: the operator, and which gate of torch's stands where."""

    op: str
    gates: tuple[int, ...]
    activation: str = ""


RECURRENCES = {
    "lstm": _Recurrence("LSTM", (0, 3, 1, 2)),  # input, forget, cell, output -> input, output, forget, cell
    "gru": _Recurrence("GRU", (1, 0, 2)),  # reset, update, new -> update, reset, hidden
    "rnn_tanh": _Recurrence("RNN", (0,), "Tanh"),
    "rnn_relu": _Recurrence("RNN", (0,), "Relu"),
}


@form(*GATES)
def recurrent(call: Call) -> list[str]:
    """A node for every layer, with both of its directions: [T, N, I] -> [T, directions, N, H]."""
    node, x = call.action.node, call.x
    if call.rank(x) != 3:
        call.refuse("runs along the dimension of the images", "Images of a batch are to be independent of each other.")
    cells, time = _cells(call), time_dim(node)
    (steps,), images = call.sizes(x, [time], "runs along"), call.shape(x)[1 - time]
    states, directions = list(values_of(call["hx"])), directions_of(node)
    given: Operand = call.transpose(x, [1, 0, 2]) if time else x
    after: list[list[str]] = [[] for _ in states]
    layers = [cells[first : first + directions] for first in range(0, len(cells), directions)]
    for number, layer in enumerate(layers):
        begun = [_rows(call, state, number * directions, directions) for state in states]
        width, (whole, *ended) = _layer(call, layer, given, begun)
        for state, parts in zip(ended, after, strict=True):
            parts.append(state)
        order, shape = ([2, 0, 1, 3], (images, steps)) if time and layer is layers[-1] else ([0, 2, 1, 3], (steps, images))
        given = call.reshape(call.transpose(whole, order), (*shape, directions, width), (*shape, directions * width))
    joined = [
        call.emit("Concat", *parts, axis=0) if len(parts) > 1 and call.read(1 + place) else parts[0]
        for place, parts in enumerate(after)
    ]
    return [call.operand(given), *joined]


@form(*STEPS)
def step(call: Call) -> list[str]:
    """A sequence of one place: [1, N, I], with states [1, N, H]."""
    begun = [None if _is_zeros(call, state) else call.emit("Unsqueeze", state, ints(0)) for state in values_of(call["hx"])]
    _, (_, *ended) = _layer(call, _cells(call), call.emit("Unsqueeze", call.x, ints(0)), begun)
    return [call.emit("Squeeze", state, ints(0)) for state in ended]


def _cells(call: Call) -> list[Cell]:
    try:
        return cells_of(call.action.node)
    except ValueError:
        call.refuse("projects its state, reads packed sequences or adds one bias alone, for which ONNX has no form")


def _layer(call: Call, cells: Sequence[Cell], x: Operand, states: Sequence[Operand]) -> tuple[int, list[str]]:
    """One layer of [T, N, I], and how wide its state is. A state of zeros, None, is what it begins with anyway."""
    kind = RECURRENCES[cell_kind(call.action.node)]
    (width,) = call.sizes(cells[0].of_state, [1])
    attributes: dict[str, Any] = {"direction": "bidirectional"} if len(cells) > 1 else {}
    if kind.op == "GRU":
        attributes["linear_before_reset"] = 1
    if kind.activation:
        attributes["activations"] = [kind.activation] * len(cells)
    weights = (
        _stacked(call, [(cell.of_input,) for cell in cells], kind.gates),
        _stacked(call, [(cell.of_state,) for cell in cells], kind.gates),
        _stacked(call, [cell.biases for cell in cells], kind.gates) if cells[0].biases else None,
    )
    lengths = None  # all are as long
    return width, call.several(kind.op, 1 + len(states), x, *weights, lengths, *states, hidden_size=width, **attributes)


def _stacked(call: Call, parts: Sequence[Sequence[Value]], gates: Sequence[int]) -> str:
    """Weights [gates * H, ...] of every direction, with their gates in another order; those of a direction one below the
    other."""
    stacked = []
    for values in parts:
        arrays = [call.stored(value) for value in values]
        if any(array is None for array in arrays):
            call.refuse("has weights that the images decide on")
        turned = [a.reshape(len(gates), -1, *a.shape[1:])[list(gates)].reshape(a.shape) for a in arrays if a is not None]
        stacked.append(np.concatenate(turned))
    return call.weight(parts[0][0], np.stack(stacked), str(parts))  # layers may share one of them


def _is_zeros(call: Call, state: Value) -> bool:
    maker = call.program.makers.get(state.node)
    return maker is not None and maker.kind in ZEROS


def _rows(call: Call, state: Value, first: int, count: int) -> Operand:
    """What a layer begins with, of the states [layers * directions, N, H] of all."""
    if _is_zeros(call, state):
        return None
    return state if call.shape(state)[0] == count else call.slice(state, 0, first, first + count)
