"""Operators that move positions about without computing: transposes, slices, concatenations, rolls, gathers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimtrain.graph.labels.labelling import Axis, Labels
from slimtrain.graph.labels.pointwise import UNLABELLED
from slimtrain.graph.labels.registry import Call, rule

ONE = "one position of it is taken by its number"


def _moved(x: Labels, shape: Sequence[int], order: Sequence[int]) -> list[Labels]:
    return [Labels(tuple(shape), tuple(x.axes[dim] for dim in order))]


@rule("permute")
def permute(call: Call) -> list[Labels]:
    x = call.labels("self")
    return _moved(x, call.shape, [dim % len(x.shape) for dim in call["dims"]])


@rule("transpose", "swapaxes", "swapdims")
def transpose(call: Call) -> list[Labels]:
    x = call.labels("self")
    rank = len(x.shape)
    first, second = (int(call.get(name, call.get(other))) % rank for name, other in (("dim0", "axis0"), ("dim1", "axis1")))
    order = list(range(rank))
    order[first], order[second] = second, first
    return _moved(x, call.shape, order)


@rule("t", "numpy_T", "mT", "adjoint", "mH", "matrix_H")
def matrix_transpose(call: Call) -> list[Labels]:
    x = call.labels("self")
    rank = len(x.shape)
    order = list(range(rank))[::-1] if call.node.kind == "numpy_T" or rank < 3 else [*range(rank - 2), rank - 1, rank - 2]
    return _moved(x, call.shape, order)


@rule("movedim", "moveaxis")
def movedim(call: Call) -> list[Labels]:
    x = call.labels("self")
    rank = len(x.shape)
    pairs = [([p] if isinstance(p, int) else p) for p in (call["source"], call["destination"])]
    source, destination = ([dim % rank for dim in dims] for dims in pairs)
    order = [dim for dim in range(rank) if dim not in source]
    for place, dim in sorted(zip(destination, source, strict=True)):
        order.insert(place, dim)
    return _moved(x, call.shape, order)


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> list[Labels]:
    """One position that is spread along what another tensor has is there as often as that has some; numbers that count
    something are not."""
    x, other = call.labels("self"), call.optional("other")
    axes: dict[int, Axis | None] = {}
    if other is not None and call.node.outputs[0].floating:
        axes = {dim - len(other.shape): axis for dim, axis in enumerate(other.axes)}
    own = {dim - len(x.shape): axis for dim, axis in enumerate(x.axes) if other is None or x.shape[dim] > 1}
    return [Labels.along(call.shape, axes | own)]


@rule("repeat", "tile")
def repeat(call: Call) -> list[Labels]:
    x, shape = call.labels("self"), call.shape
    axes: dict[int, Axis | None] = {}
    for dim in range(-len(x.shape), 0):
        axis = x.axes[dim]
        axes[dim] = axis and Axis(np.tile(axis.ids, shape[dim] // x.shape[dim]), axis.tied)
    return [Labels.along(shape, axes)]


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> list[Labels]:
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape))
    axes = dict(enumerate(x.axes))
    axis = axes[dim]
    if axis is not None and not isinstance(call["repeats"], int):
        call.run.pin(axis.ids, "its positions are repeated differently often")
        axes[dim] = None
    elif axis is not None:
        axes[dim] = Axis(np.repeat(axis.ids, call.shape[dim] // x.shape[dim]), axis.tied)
    return [Labels.along(call.shape, axes)]


def _sliced(call: Call, x: Labels, dim: int, part: slice, shape: Sequence[int]) -> Labels:
    """Positions `part` of a dimension."""
    axes = dict(enumerate(x.axes))
    axis = axes[dim]
    if axis is not None:
        step = part.step or 1
        if step > 1 and ((part.start or 0) >= step or (part.stop is not None and part.stop < len(axis))):
            call.run.pin(axis.ids, "a strided slice begins or ends within it")
        elif step > 1:  # every step-th one: runs of `step` stay or go together
            whole = len(axis) // step * step
            runs = axis.ids[:whole].reshape(-1, step)
            call.run.tie(runs, runs[:, :1])
            if whole < len(axis):
                call.run.pin(axis.ids[whole:], "a strided slice leaves it over")
        ids = axis.ids[part]
        if len(ids) < len(axis):
            call.run.parts.append(ids)
        if len(ids) == 1:
            call.run.pin(ids, ONE)  # it meets whole dimensions later
        axes[dim] = Axis(ids, axis.tied)
    return Labels.along(shape, axes)


@rule("slice")
def slice_(call: Call) -> list[Labels]:
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape))
    part = slice(call["start"], min(x.shape[dim], call["end"] if call["end"] is not None else x.shape[dim]), call["step"] or 1)
    return [_sliced(call, x, dim, part, call.shape)]


@rule("narrow")
def narrow(call: Call) -> list[Labels]:
    x = call.labels("self")
    start = int(call["start"]) % x.shape[call.dim("dim", len(x.shape))]
    part = slice(start, start + int(call["length"]))
    return [_sliced(call, x, call.dim("dim", len(x.shape)), part, call.shape)]


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> list[Labels]:
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape))
    parts, at = [], 0
    for shape in call.shapes:
        parts.append(_sliced(call, x, dim, slice(at, at + shape[dim]), shape))
        at += shape[dim]
    return parts


def _selected(call: Call, x: Labels, dim: int, index: int, shape: Sequence[int]) -> Labels:
    axis = x.axes[dim]
    if axis is not None:
        call.run.pin(axis.ids[index : index + 1] if index >= 0 else axis.ids[index:][:1], ONE)
    return Labels(tuple(shape), tuple(axis for d, axis in enumerate(x.axes) if d != dim))


@rule("select")
def select(call: Call) -> list[Labels]:
    x = call.labels("self")
    return [_selected(call, x, call.dim("dim", len(x.shape)), int(call["index"]), call.shape)]


@rule("slice_scatter", "select_scatter")
def scatter(call: Call) -> list[Labels]:
    """Writing into a part of a tensor: what is written takes the place of what stood there."""
    x, source = call.labels("self"), call.labels("src")
    dim = call.dim("dim", len(x.shape))
    if call.node.kind == "select_scatter":
        start = call["index"] % x.shape[dim]
        source = Labels.along([*source.shape[:dim], 1, *source.shape[dim:]], _with_gap(source, dim))
        part = slice(start, start + 1)
    else:
        part = slice(*slice(call["start"], call["end"], call["step"] or 1).indices(x.shape[dim]))
        if part.step != 1 and x.axes[dim] is not None:
            raise ValueError("a step takes positions of all runs")
    axes = {}
    for place, (axis, other) in enumerate(zip(x.axes, source.axes, strict=True)):
        if place != dim:
            axes[place] = call.run.match([axis, other], UNLABELLED)
        elif axis is None:
            call.run.pin_axis(other, UNLABELLED)
        else:
            axes[place] = axis
            call.run.parts.append(axis.ids[part])
            if other is None:
                call.run.pin(axis.ids[part], ONE if source.shape[dim] == 1 else UNLABELLED)
            else:
                call.run.tie(axis.ids[part], other.ids)
    return [Labels.along(call.shape, axes)]


def _with_gap(labels: Labels, dim: int) -> dict[int, Axis | None]:
    """The ids of a tensor that a dimension is put into."""
    return {place + (place >= dim): axis for place, axis in enumerate(labels.axes)}


@rule("unbind")
def unbind(call: Call) -> list[Labels]:
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape))
    return [_selected(call, x, dim, index, shape) for index, shape in enumerate(call.shapes)]


@rule("flip")
def flip(call: Call) -> list[Labels]:
    """Reversed ids would be another order for what follows; a plan keeps the leading ones of a group, wherever they stand."""
    x = call.labels("self")
    axes = dict(enumerate(x.axes))
    for dim in (d % len(x.shape) for d in call["dims"]):
        axis = axes[dim]
        axes[dim] = axis and Axis(axis.ids[::-1], axis.tied)
    return [Labels.along(call.shape, axes)]


@rule("roll")
def roll(call: Call) -> list[Labels]:
    x = call.labels("self")
    axes = dict(enumerate(x.axes))
    for dim in call["dims"] or range(len(x.shape)):
        call.run.pin_axis(axes[dim % len(x.shape)], "it is rolled by a number of positions")  # whatever stays
    return [Labels.along(call.shape, axes)]


@rule("cat", "concat", "concatenate")
def cat(call: Call) -> list[Labels]:
    parts = [part for part in call.several("tensors") if part.shape != (0,)]
    shape = call.shape
    dim = call.dim("dim", len(shape))
    flat = [
        Labels(
            tuple(1 if d == dim else size for d, size in enumerate(part.shape)),
            tuple(None if d == dim else axis for d, axis in enumerate(part.axes)),
        )
        for part in parts
    ]
    rest = call.run.broadcast(
        flat,
        [1 if d == dim else size for d, size in enumerate(shape)],
        "it is concatenated with a tensor that has no channels there",
    )
    axes = dict(enumerate(rest.axes))
    if any(part.axes[dim] is not None for part in parts):
        lines = []
        for part in parts:
            axis = part.axes[dim]
            if axis is None:
                axis = call.run.fresh(part.shape[dim])
                call.run.pin(axis.ids, "it has no channels of its own")
            lines.append(axis)
        axes[dim] = Axis(np.concatenate([line.ids for line in lines]), any(line.tied for line in lines))
    return [Labels.along(shape, axes)]


@rule("stack")
def stack(call: Call) -> list[Labels]:
    parts = call.several("tensors")
    dim = call.dim("dim", len(call.shape))
    one = call.run.broadcast(parts, parts[0].shape, "it is stacked with a tensor that has no channels there")
    axes = list(one.axes)
    axes.insert(dim, None)
    return [Labels(call.shape, tuple(axes))]


@rule("constant_pad_nd", "pad")
def pad(call: Call) -> list[Labels]:
    """Padded positions never vanish."""
    x, sizes = call.labels("self"), list(call["pad"])
    axes = dict(enumerate(x.axes))
    for index in range(len(sizes) // 2):
        dim = len(x.shape) - 1 - index
        before, after = sizes[2 * index : 2 * index + 2]
        axis = axes[dim]
        if axis is not None and (before or after):
            if call.get("mode", "constant") != "constant" or min(before, after) < 0:
                call.run.pin(axis.ids, "it is padded with its own positions, or cut off")
            inner = axis.ids[max(0, -before) : len(axis) - max(0, -after)]
            edges = [call.run.fresh(max(0, size)) for size in (before, after)]
            for edge in edges:
                call.run.pin(edge.ids, "it is padding")
            axes[dim] = Axis(np.concatenate([edges[0].ids, inner, edges[1].ids]), axis.tied)
    return [Labels.along(call.shape, axes)]


@rule("index")
def index(call: Call) -> list[Labels]:
    """Positions taken by numbers: what is indexed stays."""
    x, shape, indices = call.labels("self"), call.shape, call["indices"]
    where = [dim for dim, part in enumerate(indices) if part is not None]
    for dim in where:
        call.run.pin_axis(x.axes[dim], ONE)
    new = len(shape) - (len(x.shape) - len(where))
    before = [axis for dim, axis in enumerate(x.axes) if dim not in where and dim < where[0]]
    after = [axis for dim, axis in enumerate(x.axes) if dim not in where and dim > where[0]]
    if where != list(range(where[0], where[0] + len(where))):  # scattered: the new dimensions come first
        before, after = [], before + after
    return [Labels(shape, (*before, *(None,) * new, *after))]


@rule("index_select")
def index_select(call: Call) -> list[Labels]:
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape))
    call.run.pin_axis(x.axes[dim], ONE)
    return [Labels.along(call.shape, {**dict(enumerate(x.axes)), dim: None})]


@rule("embedding")
def embedding(call: Call) -> list[Labels]:
    """Rows [N, C] by numbers [...] -> [..., C]: there are as many as there are numbers."""
    weight, indices = call.labels("weight"), call.labels("indices")
    call.run.pin_axis(weight.axes[0], "it is looked up by number")
    return [Labels.along(call.shape, {**dict(enumerate(indices.axes)), len(call.shape) - 1: weight.axes[1]})]


@rule("unfold")
def unfold(call: Call) -> list[Labels]:
    """A window that slides along a dimension, as a new last one."""
    x = call.labels("self")
    dim = call.dim("dimension", len(x.shape))
    call.run.pin_axis(x.axes[dim], "a window slides along it")
    return [Labels(call.shape, (*(None if d == dim else a for d, a in enumerate(x.axes)), None))]


@rule("glu")
def glu(call: Call) -> list[Labels]:
    """Two halves, one of which gates the other."""
    x = call.labels("self")
    dim = call.dim("dim", len(x.shape), -1)
    axes = dict(enumerate(x.axes))
    axis = axes[dim]
    if axis is not None:
        halves = axis.ids.reshape(2, -1)
        call.run.tie(halves[0], halves[1])
        axes[dim] = Axis(halves[0], axis.tied)
    return [Labels.along(call.shape, axes)]


@rule("tril", "triu")
def triangle(call: Call) -> list[Labels]:
    x = call.labels("self")
    for axis in x.axes[-2:]:
        call.run.pin_axis(axis, "what stays of it hangs on where it stands")
    return [x]
