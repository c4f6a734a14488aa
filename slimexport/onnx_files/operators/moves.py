"""Positions moved about: transposes, slices, concatenations, splits, rolls, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, Shape, form, ints
from slimtrain.graph.graph import Batch, Value

END = 2**62  # beyond every dimension


@form("permute")
def permute(call: Call) -> str:
    return call.transpose(call.x, [dim % call.rank(call.x) for dim in call["dims"]])


@form("transpose", "swapaxes", "swapdims")
def transpose(call: Call) -> str:
    order = list(range(call.rank(call.x)))
    first, second = (next(n for n in names if n in call.action.arguments) for names in (("dim0", "axis0"), ("dim1", "axis1")))
    one, other = call.dim(first, call.x), call.dim(second, call.x)
    order[one], order[other] = order[other], order[one]
    return call.transpose(call.x, order)


@form("t", "numpy_T", "mT", "adjoint", "mH", "matrix_H")
def matrix_transpose(call: Call) -> str:
    rank = call.rank(call.x)
    whole = call.kind == "numpy_T" or rank < 3
    return call.transpose(call.x, list(range(rank))[::-1] if whole else [*range(rank - 2), rank - 1, rank - 2])


@form("movedim", "moveaxis")
def movedim(call: Call) -> str:
    rank = call.rank(call.x)
    source, destination = ([dim % rank for dim in spelled(call[name])] for name in ("source", "destination"))
    order = [dim for dim in range(rank) if dim not in source]
    for place, dim in sorted(zip(destination, source, strict=True)):
        order.insert(place, dim)
    return call.transpose(call.x, order)


def spelled(argument: int | Sequence[int]) -> list[int]:
    return [argument] if isinstance(argument, int) else list(argument)


# -- parts


@form("slice")
def slice_(call: Call) -> str:
    dim = call.dim("dim", call.x)
    start, end, step = call.get("start", 0), call.get("end"), int(call.get("step", 1))
    size = call.shape(call.x)[dim]
    if isinstance(size, Batch):
        if start == 0 and step == 1 and (end is None or end == size or (isinstance(end, int) and end >= END)):
            return call.name(call.x)
        call.refuse("takes some images of a batch", "Images of a batch are to be independent of each other.")
    begin, stop, stride = slice(start, end, step).indices(size)
    if (begin, stop, stride) == (0, size, 1):
        return call.name(call.x)
    return call.slice(call.x, dim, begin, stop, stride)


@form("narrow")
def narrow(call: Call) -> str:
    dim = call.dim("dim", call.x)
    (size,) = call.sizes(call.x, [dim], "takes a part of")
    start = int(call["start"]) % size
    return call.slice(call.x, dim, start, start + int(call["length"]))


@form("select")
def select(call: Call) -> str:
    dim = call.dim("dim", call.x)
    (size,) = call.sizes(call.x, [dim], "takes one position of")
    return call.emit("Gather", call.x, np.asarray(int(call["index"]) % size, np.int64), axis=dim)


@form("unbind")
def unbind(call: Call) -> list[str]:
    dim = call.dim("dim", call.x)
    (size,) = call.sizes(call.x, [dim], "takes apart")
    return [
        call.emit("Gather", call.x, np.asarray(place, np.int64), axis=dim) if call.read(place) else "" for place in range(size)
    ]


@form("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "unsafe_split_with_sizes")
def split(call: Call) -> list[str]:
    dim = call.dim("dim", call.x)
    sizes = [call.shape(call.result(place))[dim] for place in range(len(call.action.node.outputs))]
    if len(sizes) == 1:
        return [call.name(call.x)]
    if any(isinstance(size, Batch) for size in sizes):
        if len(set(sizes)) > 1:
            call.refuse("splits the images of a batch into unequal parts")
        return call.several("Split", len(sizes), call.x, axis=dim)
    return call.several("Split", len(sizes), call.x, ints(*(int(s) for s in sizes if isinstance(s, int))), axis=dim)


# -- joined


@form("cat", "concat", "concatenate")
def cat(call: Call) -> str:
    values = [value for value in call["tensors"] if isinstance(value, Value) and call.shape(value) != (0,)]
    parts = [call.typed(value, call.out_type) for value in values]
    return (
        call.operand(parts[0])
        if len(parts) == 1
        else call.emit("Concat", *parts, axis=int(call.get("dim", 0)) % len(call.out))
    )


@form("stack")
def stack(call: Call) -> str:
    dim = int(call.get("dim", 0)) % len(call.out)
    parts = []
    for value in call["tensors"]:
        shape = call.shape(value)
        parts.append(call.reshape(call.typed(value, call.out_type), shape, (*shape[:dim], 1, *shape[dim:])))
    return parts[0] if len(parts) == 1 else call.emit("Concat", *parts, axis=dim)


@form("slice_scatter", "select_scatter")
def scatter(call: Call) -> str:
    """A part of a tensor replaced."""
    x, source = call.x, call.value("src")
    dim = call.dim("dim", x)
    (size,) = call.sizes(x, [dim], "replaces a part of")
    shape: Shape = call.shape(source)
    part: Operand = source
    if call.kind == "select_scatter":
        begin = int(call["index"]) % size
        stop = begin + 1
        part = call.reshape(source, shape, (*shape[:dim], 1, *shape[dim:]))
    else:
        begin, stop, step = slice(call.get("start", 0), call.get("end"), call.get("step", 1)).indices(size)
        if step != 1:
            call.refuse("in steps has no form here")
    parts = [part]
    if begin:
        parts.insert(0, call.slice(x, dim, 0, begin))
    if stop < size:
        parts.append(call.slice(x, dim, stop, size))
    return call.operand(parts[0]) if len(parts) == 1 else call.emit("Concat", *parts, axis=dim)


@form("roll")
def roll(call: Call) -> str:
    dims = [dim % call.rank(call.x) for dim in spelled(call.get("dims", ()))]
    if not dims:
        call.refuse("of all positions in one line has no form here", "Give it dimensions.")
    x: Operand = call.x
    for shift, dim in zip(spelled(call["shifts"]), dims, strict=True):
        (size,) = call.sizes(call.x, [dim], "rolls")
        if shift % size:
            begin = size - shift % size
            x = call.emit("Concat", call.slice(x, dim, begin, size), call.slice(x, dim, 0, begin), axis=dim)
    return call.operand(x)


@form("flip")
def flip(call: Call) -> str:
    dims = [dim % call.rank(call.x) for dim in call["dims"]]
    call.sizes(call.x, dims, "turns around")
    if not dims:
        return call.name(call.x)
    ones = ints(*[-1] * len(dims))
    return call.emit("Slice", call.x, ones, ints(*[-END] * len(dims)), ints(*dims), ones)


@form("tril", "triu")
def triangle(call: Call) -> str:
    return call.emit("Trilu", call.x, np.asarray(int(call.get("diagonal", 0)), np.int64), upper=int(call.kind == "triu"))


# -- padding


@form(
    *("constant_pad_nd", "pad"),
    *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
)
def pad(call: Call) -> str:
    """Sizes of both edges, from the last dimension forwards."""
    sizes = [int(size) for size in call.get("pad", call.get("padding", ()))]
    rank = call.rank(call.x)
    edges = [(0, 0)] * rank
    for place in range(len(sizes) // 2):
        edges[rank - 1 - place] = (sizes[2 * place], sizes[2 * place + 1])
    if not any(sizes):
        return call.name(call.x)
    call.sizes(call.x, [dim for dim, edge in enumerate(edges) if any(edge)], "pads")
    word = call.kind.partition("_pad")[0]
    mode = {"reflection": "reflect", "replication": "replicate"}.get(word, str(call.get("mode", "constant")))
    if mode == "circular":
        return _circular(call, edges)
    ends = ints(*(before for before, _ in edges), *(after for _, after in edges))
    if mode == "constant":
        number = call.out_type
        return call.emit("Pad", call.x, ends, np.asarray(call.get("value", 0), number), mode="constant")
    return call.emit("Pad", call.x, ends, mode={"reflect": "reflect", "replicate": "edge"}[mode])


def _circular(call: Call, edges: Sequence[tuple[int, int]]) -> str:
    x: Operand = call.x
    for dim, (before, after) in enumerate(edges):
        if before or after:
            (size,) = call.sizes(call.x, [dim], "pads")
            if min(before, after) < 0:
                call.refuse("cuts off and goes around, which has no form here")
            parts = [call.slice(x, dim, size - before, size)] if before else []
            parts.append(call.operand(x))
            parts += [call.slice(x, dim, 0, after)] if after else []
            x = call.emit("Concat", *parts, axis=dim)
    return call.operand(x)
