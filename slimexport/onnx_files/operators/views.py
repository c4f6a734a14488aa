"""Views: the same elements under another shape, repeated, or made anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from slimexport.onnx_files.operators.registry import Call, Operand, Shape, form
from slimtrain.graph.graph import Batch, Size

VIEWS = (
    *("view", "reshape", "_unsafe_view", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "_reshape_alias"),
    *("atleast_1d", "atleast_2d", "atleast_3d", "ravel", "flatten"),
)


@form(*VIEWS)
def view(call: Call) -> str:
    shape = call.shape(call.x)
    if call.kind == "flatten" and len(call.out) == 2 and call.out[0] == shape[0] and call.out != shape:
        return call.emit("Flatten", call.x, axis=1)
    return call.reshape(call.x, shape, call.out)


@form("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> str:
    return call.expand(call.x, call.shape(call.x), call.out)


@form("repeat", "tile")
def repeat(call: Call) -> str:
    """Whole copies, one behind the other."""
    shape = call.shape(call.x)
    shape = (1,) * (len(call.out) - len(shape)) + shape
    times: Shape = tuple(call.get("repeats", call.get("dims", ())))
    times = (1,) * (len(shape) - len(times)) + times
    x = call.reshape(call.x, call.shape(call.x), shape)
    return x if all(count == 1 for count in times) else call.emit("Tile", x, call.vector(times))


@form("repeat_interleave")
def repeat_interleave(call: Call) -> str:
    """Every position so many times, one after the other."""
    times = call.get("repeats")
    if not isinstance(times, int) or call.get("dim") is None:
        call.refuse("with a number for every position, or of all positions, has no form here")
    dim, shape = call.dim("dim", call.x), call.shape(call.x)
    between = call.reshape(call.x, shape, (*shape[: dim + 1], 1, *shape[dim + 1 :]))
    wide: Shape = (*shape[: dim + 1], times, *shape[dim + 1 :])
    repeated = call.expand(between, (*shape[: dim + 1], 1, *shape[dim + 1 :]), wide)
    return call.reshape(repeated, wide, call.out)


@form(
    *("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like"),
    *("full_like", "empty_like", "zero", "fill"),
)
def filled(call: Call) -> str:
    """The same number everywhere."""
    value: Any = 0.0 if "zero" in call.kind or "empty" in call.kind else 1.0 if "one" in call.kind else None
    if value is None:
        value = call.get("fill_value", call.get("value", 0.0))
    return constant_of(call, call.typed(value, call.out_type), call.out)


@form("arange")
def arange(call: Call) -> str:
    """Whole numbers from 0 to a size, or to as many as there are images."""
    end = call["end"]
    if not isinstance(end, Batch) or call.get("start") or call.get("step", 1) != 1 or call.out_type is not np.int64:
        call.refuse("of other numbers than those of images has no form here")
    count = call.emit("Squeeze", call.vector((end,)), np.zeros(1, np.int64))
    return call.emit("Range", np.asarray(0, np.int64), count, np.asarray(1, np.int64))


def constant_of(call: Call, value: Operand, shape: Shape) -> str:
    """`value`, a scalar, in all places of a shape; stored as it is where the shape does not count images."""
    if not any(isinstance(size, Batch) for size in shape) and isinstance(value, np.ndarray):
        return call.operand(np.broadcast_to(value, [_whole(size) for size in shape]))
    return call.emit("Expand", value, call.vector(shape))


def _whole(size: Size) -> int:
    assert isinstance(size, int)
    return size


@form("copy")
def copy(call: Call) -> str:
    """What is copied takes the shape and type of what it is copied to."""
    source = call["src"]
    value = call.typed(source, call.out_type)
    return call.expand(value, call.shape(source), call.out)
