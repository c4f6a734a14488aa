"""Pools: windows of one size, and windows that adapt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from slimexport.onnx_files.operators.convolutions import spread
from slimexport.onnx_files.operators.registry import Call, Operand, form, ints


@form(
    *(f"{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)), "max_pool2d_with_indices", "max_pool3d_with_indices"
)
def pool(call: Call) -> list[str]:
    """Windows that stick out behind, as `ceil_mode` permits, are written as padding there: operators differ on what they make
    of that mode, torch's output is known."""
    if len(call.action.node.outputs) > 1 and call.read(1):
        call.refuse("gives positions, which ONNX counts otherwise", "Use what is pooled only: return_indices=False.")
    x = call.x
    kernel = spread(call["kernel_size"], int(call.kind[call.kind.index("pool") + 4]))
    count = len(kernel)
    stride = spread(call["stride"], count) if call.get("stride") else kernel
    padding, dilation = spread(call.get("padding", 0), count), spread(call.get("dilation", 1), count)
    rank = call.rank(x)
    before = call.sizes(x, range(rank - count, rank), "pools over")
    after = call.sizes(call.result(), range(rank - count, rank), "pools over")
    beyond = [
        max(0, (o - 1) * s + d * (k - 1) + 1 - n - 2 * p)
        for n, o, k, s, p, d in zip(before, after, kernel, stride, padding, dilation, strict=True)
    ]
    source = call.shape(x) if rank == count + 2 else (1, *call.shape(x))
    images: Operand = call.reshape(x, call.shape(x), source)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": stride}
    ends = [p + e for p, e in zip(padding, beyond, strict=True)]
    if call.kind.startswith("max") and (zeros := _zeros_around(call, count)):
        if any(padding) or any(a >= k or b + e >= k for (a, b), e, k in zip(zeros, beyond, kernel, strict=True)):
            call.refuse("reads wide padding of zeros, which onnxruntime takes for its own", "Pad with the pool's own padding.")
        pooled = _pooled_with_zeros(call, zeros, beyond, dilation, attributes)
    elif call.kind.startswith("max"):
        pooled = call.emit("MaxPool", images, dilations=dilation, pads=[*padding, *ends], **attributes)
    elif call.get("divisor_override"):
        area = call.emit("AveragePool", images, pads=[*padding, *ends], count_include_pad=1, **attributes)
        pooled = call.emit("Mul", area, math.prod(kernel) / int(call["divisor_override"]))
    elif call.get("count_include_pad", True) and any(padding) and any(beyond):
        # What was padded counts, what sticks out beyond does not.
        padded = call.emit("Pad", images, ints(*(0, 0, *padding) * 2))
        pooled = call.emit("AveragePool", padded, pads=[0] * count + beyond, count_include_pad=0, **attributes)
    else:
        counted = int(bool(call.get("count_include_pad", True)) and not any(beyond))
        pooled = call.emit("AveragePool", images, pads=[*padding, *ends], count_include_pad=counted, **attributes)
    pooled = call.reshape(pooled, (*source[:2], *after), call.out)
    return [pooled] * len(call.action.node.outputs)


Edges = list[tuple[int, int]]


def _zeros_around(call: Call, count: int) -> Edges:
    """The zeros that an operator before a pool puts around every spatial dimension; nothing where there is no such operator.
    onnxruntime (1.31, its pass Pad_Fusion) makes them padding of the pool, where they no longer count: wrong at the edge of
    negative numbers."""
    maker = call.program.makers.get(call.x.node)
    if maker is None or maker.kind not in ("pad", "constant_pad_nd") or call.rank(call.x) != count + 2:
        return []
    sizes = [int(size) for size in maker.arguments.get("pad") or ()]  # type: ignore[union-attr, arg-type]
    if maker.arguments.get("mode", "constant") != "constant" or maker.arguments.get("value") or min(sizes, default=-1) < 0:
        return []
    edges = [(sizes[at], sizes[at + 1]) for at in range(0, len(sizes), 2)][::-1]
    return [(0, 0)] * (count - len(edges)) + edges if 0 < len(edges) <= count and any(sizes) else []


def _pooled_with_zeros(call: Call, zeros: Edges, beyond: list[int], dilation: list[int], attributes: dict[str, Any]) -> str:
    """The pool of what stands within the zeros; where a window meets them, no less than 0."""
    (inner,) = call.program.makers[call.x.node].inputs
    befores, afters = [a for a, _ in zeros], [b + e for (_, b), e in zip(zeros, beyond, strict=True)]
    pooled = call.emit("MaxPool", inner, dilations=dilation, pads=[*befores, *afters], **attributes)
    mask = np.zeros((), np.bool_)
    padded, outputs = call.shape(call.x)[2:], call.out[2:]
    kernel, stride = attributes["kernel_shape"], attributes["strides"]
    for n, o, k, s, d, (a, b) in zip(padded, outputs, kernel, stride, dilation, zeros, strict=True):
        size = call.fixed(n, "pools over")
        places = np.arange(call.fixed(o, "pools over"))[:, None] * s + d * np.arange(k)
        meets = (places < a) | ((places >= size - b) & (places < size))
        mask = mask[..., None] | meets.any(1)
    return call.emit("Where", mask, call.emit("Relu", pooled), pooled)


@form(
    *(f"adaptive_avg_pool{n}d" for n in (1, 2, 3)),
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    *(f"adaptive_max_pool{n}d" for n in (1, 2, 3)),
)
def adaptive_pool(call: Call) -> list[str]:
    x, rank = call.x, call.rank(call.x)
    outputs = len(call.action.node.outputs)
    if outputs > 1 and call.read(1):
        call.refuse("gives positions, which ONNX counts otherwise", "Use what is pooled only: return_indices=False.")
    count = int(call.kind[-2])
    mean = "avg" in call.kind
    dims = range(rank - count, rank)
    before, after = call.sizes(x, dims, "pools over"), call.sizes(call.result(), dims, "pools over")
    if before == after:
        return [call.name(x)] * outputs
    if rank == count + 2 and all(size == 1 for size in after):
        return [call.emit("GlobalAveragePool" if mean else "GlobalMaxPool", x)] * outputs
    if rank == count + 2 and all(n % o == 0 for n, o in zip(before, after, strict=True)):
        window = [n // o for n, o in zip(before, after, strict=True)]
        return [call.emit("AveragePool" if mean else "MaxPool", x, kernel_shape=window, strides=window)] * outputs
    pooled: Operand = x
    for dim, n, o in zip(dims, before, after, strict=True):  # windows are rectangles: one dimension after the other
        if n != o:
            pooled = _windows(call, pooled, dim, n, o, "ReduceMean" if mean else "ReduceMax")
    return [call.operand(pooled)] * outputs


def _windows(call: Call, x: Operand, dim: int, size: int, outputs: int, operator: str) -> str:
    """Window i runs from floor(i size / outputs) to ceil((i + 1) size / outputs)."""
    bounds = [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]
    parts = [call.emit(operator, call.slice(x, dim, *bound), axes=[dim], keepdims=1) for bound in bounds]
    return parts[0] if outputs == 1 else call.emit("Concat", *parts, axis=dim)
