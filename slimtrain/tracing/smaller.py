"""Smaller images on which a network still uses all that it holds: every tap of every convolution and pool meets a place of its
map, so that none of them is multiplied by padding alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slimtrain.graph.graph import Argument, Graph, Node, Value

MULTIPLE = 32  # sides are multiples of what most networks halve them to


@dataclass(frozen=True)
class Window:
    """What a convolution or pool sees of one dimension."""

    taps: int
    stride: int
    padding: int  # before the first place, and behind the last one
    dilation: int

    def met(self, size: int) -> bool:
        """Whether each of its taps meets one of so many places."""
        last = size + self.padding - self.dilation * (self.taps - 1)
        starts = range(-self.padding, last, self.stride)
        return all(any(0 <= start + tap * self.dilation < size for start in starts) for tap in range(self.taps))


def smaller(graph: Graph, sides: Sequence[int]) -> tuple[int, ...] | None:
    """Sides of smaller images on which every tap of every convolution and pool of `graph` still meets a place of its map, in
    proportion to those it was traced with; None where there are none."""
    shares = [0.0] * len(sides)
    for node in graph.nodes:
        for dim, window in enumerate(_windows(graph, node, len(sides))):
            size = graph.types[node.inputs[0]].shape[dim - len(sides)]
            if not isinstance(size, int):
                return None
            if window.taps > 1:
                least = next((n for n in range(1, size) if window.met(n)), size)
                shares[dim] = max(shares[dim], least / size)
    if not any(shares):
        return None
    small = tuple(min(side, math.ceil(side * share / MULTIPLE) * MULTIPLE) for side, share in zip(sides, shares, strict=True))
    return small if math.prod(small) * 2 <= math.prod(sides) else None


def _windows(graph: Graph, node: Node, dims: int) -> list[Window]:
    """The window of a node over each of the last `dims` dimensions; nothing of nodes without one."""
    if node.kind == f"conv{dims}d":
        weight = node.arguments["weight"]
        assert isinstance(weight, Value)
        kernel = tuple(int(k) for k in graph.types[weight].shape[2:])  # type: ignore[arg-type]
        stride = _per_dim(node.arguments.get("stride"), dims, 1)
    elif node.kind in (f"max_pool{dims}d", f"avg_pool{dims}d"):
        kernel = _per_dim(node.arguments["kernel_size"], dims, 1)
        stride = _per_dim(node.arguments.get("stride") or kernel, dims, 1)
    else:
        return []
    dilation = _per_dim(node.arguments.get("dilation"), dims, 1)
    given = node.arguments.get("padding")
    if isinstance(given, str):
        same = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple(same) if given == "same" else (0,) * dims
    else:
        padding = _per_dim(given, dims, 0)
    return [Window(*window) for window in zip(kernel, stride, padding, dilation, strict=True)]


def _per_dim(argument: Argument, dims: int, otherwise: int) -> tuple[int, ...]:
    """An argument that may stand once for all dimensions."""
    given = argument if isinstance(argument, tuple) else (otherwise if argument is None else argument,)
    return tuple(int(size) for size in (given * dims if len(given) == 1 else given))  # type: ignore[arg-type]
