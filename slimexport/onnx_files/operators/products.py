"""Linear layers, matrix products, attention, einsum."""

from __future__ import annotations

import math

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, form
from slimtrain.graph.graph import Batch, Value


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
