"""The arguments of a node at a plan: sizes, bounds and group counts follow what the plan keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimtrain.graph.extents import Extent, HasDims, Slimmed
from slimtrain.graph.graph import Argument, Batch, Graph, Node, Size, Value
from slimtrain.graph.pieces import Pieces

if TYPE_CHECKING:
    from slimtrain.graph.extents import Positions

Channels = Mapping[str, int]
Arguments = dict[str, Argument]


@dataclass(frozen=True)
class Sizing:
    """A graph at a plan: the sizes of all values, and every node's operator and arguments."""

    graph: Graph
    groups: HasDims
    channels: Channels

    def shape(self, value: Value) -> tuple[Size, ...]:
        return tuple(self.size(extent) for extent in self.groups.dims[value])

    def size(self, extent: Extent) -> Size:
        if not isinstance(extent, Slimmed):
            return extent
        active = extent.active(self.channels)
        return Batch(active) if isinstance(extent, Pieces) and extent.batch else active

    def kept(self, value: Value) -> list[slice | Positions | None]:
        """For every dimension what stays, None where all does (of one image, where it counts images)."""
        extents, full = self.groups.dims[value], self.graph.types[value].shape
        return [
            None if not isinstance(e, Slimmed) or _full(e, size) == e.active(self.channels) else e.positions(self.channels)
            for e, size in zip(extents, full, strict=True)
        ]

    def slims(self, value: Value) -> bool:
        """Whether anything of a value goes."""
        return any(positions is not None for positions in self.kept(value))

    def call(self, node: Node) -> tuple[str, Arguments]:
        """The operator and its arguments, in the order of its schema."""
        rule = RESIZED.get(node.kind)
        return rule(self, node) if rule else (node.op, dict(node.arguments))


def _full(extent: Slimmed, size: Size) -> Size:
    return extent.full if isinstance(extent, Pieces) else size


Rule = Callable[[Sizing, Node], tuple[str, Arguments]]


def _input(node: Node) -> Value:
    return node.inputs[0]


def _view(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    return "reshape", {"self": _input(node), "shape": sizing.shape(Value(node.name))}


def _expand(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    return "expand", {"self": _input(node), "size": sizing.shape(Value(node.name)), "implicit": False}


def _split(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    dim = node.arguments.get("dim") or 0
    assert isinstance(dim, int)
    sizes = tuple(sizing.shape(Value(node.name, index))[dim] for index in range(len(node.outputs)))
    return "split_with_sizes", {"self": _input(node), "split_sizes": sizes, "dim": dim}


def _slice(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    dim, extent = _along(sizing, node, "dim")
    arguments = dict(node.arguments)
    if isinstance(extent, Pieces):
        start, end = _bound(arguments["start"], extent.full, 0), _bound(arguments["end"], extent.full, extent.full)
        if (arguments.get("step") or 1) != 1:
            arguments["end"] = None  # whole runs go, whatever the step takes of each
        else:
            arguments |= {side: extent.kept_before(at, sizing.channels) for side, at in (("start", start), ("end", end))}
    return node.op, arguments | {"dim": dim}


def _narrow(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    dim, extent = _along(sizing, node, "dim")
    arguments = dict(node.arguments)
    if isinstance(extent, Pieces):
        start = _bound(arguments["start"], extent.full, 0)
        size = sizing.shape(Value(node.name))[dim]
        arguments |= {"start": extent.kept_before(start, sizing.channels), "length": size}
    return node.op, arguments


def _select(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    _, extent = _along(sizing, node, "dim")
    arguments = dict(node.arguments)
    if isinstance(extent, Pieces):
        index = arguments["index"]
        assert isinstance(index, int)
        arguments["index"] = extent.kept_before(index % extent.full, sizing.channels)
    return node.op, arguments


def _along(sizing: Sizing, node: Node, name: str) -> tuple[int, Extent]:
    """The dimension that an argument names, from the front, and the extent of the input there."""
    extents = sizing.groups.dims[_input(node)]
    dim = node.arguments.get(name) or 0
    assert isinstance(dim, int)
    return dim % len(extents), extents[dim]


def _bound(at: Argument, full: int, otherwise: int) -> int:
    """A slice's bound, from the front and within the dimension."""
    if at is None:
        return otherwise
    assert isinstance(at, int)
    return min(max(at + full if at < 0 else at, 0), full)


def _convolution(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    arguments = dict(node.arguments)
    if (arguments.get("groups") or 1) != 1:
        x, weight = arguments["input"], arguments["weight"]
        assert isinstance(x, Value) and isinstance(weight, Value)
        transposed = bool(arguments.get("transposed")) or "transpose" in node.kind
        inputs, per_group = sizing.shape(x)[1], sizing.shape(weight)[1]
        if transposed:  # the weight is [inputs, outputs of a group, ...]
            inputs = sizing.shape(Value(node.name))[1]
        assert isinstance(inputs, int) and isinstance(per_group, int)
        arguments["groups"] = inputs // per_group
    return node.op, arguments


def _layer_norm(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    normalized = node.arguments["normalized_shape"]
    assert isinstance(normalized, tuple)
    return node.op, {**node.arguments, "normalized_shape": sizing.shape(Value(node.name))[-len(normalized) :]}


def _group_norm(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    arguments = dict(node.arguments)
    extent = sizing.groups.dims[Value(node.name)][1]
    if isinstance(extent, Pieces) and arguments["num_groups"] == extent.full:  # a group for every channel
        arguments["num_groups"] = extent.active(sizing.channels)
    return node.op, arguments


def _attention(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    """Scores are divided by the root of the whole head's size, as they were trained."""
    arguments = dict(node.arguments)
    query = arguments["query"]
    assert isinstance(query, Value)
    extent = sizing.groups.dims[query][-1]
    if arguments.get("scale") is None and isinstance(extent, Pieces):
        arguments["scale"] = 1 / math.sqrt(extent.full)
    return node.op, arguments


def _created(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    return node.op, {**node.arguments, "size": sizing.shape(Value(node.name))}


def _interleaved(sizing: Sizing, node: Node) -> tuple[str, Arguments]:
    return node.op, {**node.arguments, "output_size": None}


RESIZED: dict[str, Rule] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "unflatten", "view_as", "reshape_as", "_reshape_alias", "squeeze"), _view
    ),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk"), _split),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty"), _created),
    **dict.fromkeys(("slice", "slice_scatter"), _slice),
    "narrow": _narrow,
    **dict.fromkeys(("select", "select_scatter"), _select),
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
    "repeat_interleave": _interleaved,
}
