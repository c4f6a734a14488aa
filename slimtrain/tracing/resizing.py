"""A traced graph for inputs of another size, where it holds none: what every value is then, without tracing once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from slimtrain.base.errors import UserError
from slimtrain.graph.extents import Slimmed
from slimtrain.graph.graph import Node, Size, TensorType, Value
from slimtrain.groups.spec import GraphSpec
from slimtrain.slimmable.program import Run, as_traced, keep, operation
from slimtrain.tracing.exported import BATCHES, size_of

# Operators whose arguments are sizes: which of them are the image's nobody wrote down.
HOLDING = frozenset(
    (
        *("view", "reshape", "_unsafe_view", "unflatten", "expand", "broadcast_to", "repeat", "tile", "_reshape_alias"),
        *("arange", "zeros", "ones", "full", "empty", "linspace", "new_zeros", "new_ones", "new_full", "new_empty"),
    )
)
RESIZING = "upsample"  # the beginning of operators that enlarge: to a size, or by a factor


def resized(spec: GraphSpec, sizes: Mapping[str, Sequence[Size]]) -> GraphSpec:
    """`spec` for inputs of other `sizes` (input -> its shape: Batch(), 3, 800, 1344), those left out as they were.

    UserError where the graph holds sizes of the images, or cannot run on such.
    """
    graph = spec.graph
    inputs = tuple((name, TensorType(tuple(sizes.get(name, type_.shape)), type_.dtype)) for name, type_ in graph.inputs)
    holding = next(filter(_holds_sizes, graph.nodes), None)
    if holding is not None:
        raise UserError(
            f"{spec.name}: {holding.op} at {holding.place} holds a size that may be the images'. Expected a graph without: "
            "make the network slimmable again with an example of the other size."
        )
    nodes = _nodes(spec, inputs)
    retyped = replace(graph, inputs=inputs, nodes=nodes)
    dims = {
        value: tuple(
            extent if isinstance(extent, Slimmed) else size
            for extent, size in zip(spec.groups.dims[value], type_.shape, strict=True)
        )
        for value, type_ in retyped.types.items()
    }
    return replace(spec, graph=retyped, groups=replace(spec.groups, dims=dims))


def _holds_sizes(node: Node) -> bool:
    return node.kind in HOLDING or (node.kind.startswith(RESIZING) and node.arguments.get("output_size") is not None)


def _nodes(spec: GraphSpec, inputs: Sequence[tuple[str, TensorType]]) -> tuple[Node, ...]:
    """The nodes with what they make of `inputs`."""
    graph = spec.graph
    stored = {size for parameter in graph.parameters for size in parameter.type.at(1)}
    given = {size for _, type_ in inputs for size in type_.at(1)}
    batch = next((n for n in BATCHES if all(size % n for size in stored | given if size)), BATCHES[0])
    values = {}
    with torch.device("meta"):
        for value, type_ in [
            *((Value(name), type_) for name, type_ in inputs),
            *((Value(p.node), p.type) for p in graph.parameters),
        ]:
            values[value] = torch.empty(type_.at(batch), dtype=getattr(torch, type_.dtype))
        nodes = []
        for node in graph.nodes:
            try:
                keep(values, node, operation(node, *as_traced(node))(values, Run(batch, False, torch.device("meta"))))
            except RuntimeError as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise UserError(f"{spec.name}: does not take such inputs: {node.op} at {node.place}: {reason}.") from error
            types = tuple(
                replace(type_, shape=tuple(size_of(size, batch) for size in values[Value(node.name, index)].shape))
                for index, type_ in enumerate(node.outputs)
            )
            nodes.append(replace(node, outputs=types))
    return tuple(nodes)
