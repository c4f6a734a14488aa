"""The proof of a sliced network: the full-size one, in which what a plan drops is zero.

Nothing here knows how a slice is taken: parameters keep their shapes, what is dropped is zeroed, and statistics over channels
are taken over what stays. A wrong index map, a wrong size, a channel that leaks from one branch into another show up as a
difference. Only a shuffle that is taken for order-free runs on what stays, for there a narrow network is no part of the wide
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slimtrain.graph.graph import Node, Value
from slimtrain.graph.labels.reductions import REDUCTIONS
from slimtrain.graph.pieces import Pieces
from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.program import Run, as_traced, keep, operation

ATTENTION = "scaled_dot_product_attention"
# Operators whose result depends on how many channels there are, not only on their sum.
OVER_CHANNELS = frozenset(
    {
        *REDUCTIONS,
        "layer_norm",
        "rms_norm",
        "group_norm",
        "softmax",
        "_softmax",
        "log_softmax",
        "batch_norm",
        "instance_norm",
        "pairwise_distance",
    }
)


def masked(sizing: Sizing, images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of the full-size network with everything that the plan drops set to zero."""
    graph = sizing.graph
    number = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    zeroed = {p.name: _zeroed(tensors[p.name], sizing, Value(p.node)) for p in graph.parameters}
    values = {Value(name): x for (name, _), x in zip(graph.inputs, images, strict=True)}
    values |= {Value(p.node): zeroed[p.name] for p in graph.parameters}
    run = Run(images[0].shape[0], False, images[0].device)
    for node in graph.nodes:
        counts = node.kind in OVER_CHANNELS or node.name in sizing.groups.reordered or _attends_to_channels(sizing, node)
        if counts and any(sizing.slims(value) for value in node.inputs):
            _over_what_stays(values, run, sizing, node, number)
        else:
            keep(values, node, operation(node, *as_traced(node), number)(values, run))
            _mask(values, run, sizing, node)
    return [values[value] for value in graph.outputs]


def _attends_to_channels(sizing: Sizing, node: Node) -> bool:
    """Whether the tokens of an attention, which its softmax sums over, are channels that the plan drops."""
    key = node.arguments.get("key")
    return node.kind == ATTENTION and isinstance(key, Value) and sizing.kept(key)[-2] is not None


def _index(sizing: Sizing, value: Value, dim: int, batch: int) -> Tensor | None:
    """The positions of a dimension that stay, those of every image where it counts images; None where all do."""
    positions = sizing.kept(value)[dim]
    if positions is None:
        return None
    index = torch.from_numpy(positions)
    extent = sizing.groups.dims[value][dim]
    assert isinstance(extent, Pieces)
    if extent.batch:
        index = (torch.arange(batch)[:, None] * extent.full + index).reshape(-1)
    return index


def _zeroed(tensor: Tensor, sizing: Sizing, value: Value, batch: int = 1) -> Tensor:
    for dim in range(tensor.ndim):
        index = _index(sizing, value, dim, batch)
        if index is not None:
            kept = torch.zeros(tensor.shape[dim], dtype=torch.bool).index_fill(0, index, True)
            tensor = tensor * kept.reshape([-1 if d == dim else 1 for d in range(tensor.ndim)])
    return tensor


def _mask(values: dict[Value, Tensor], run: Run, sizing: Sizing, node: Node) -> None:
    """Zero what is dropped of a node's results: an operator may make ones of zeros (exp), or infinities (division)."""
    for output in range(len(node.outputs)):
        value = Value(node.name, output)
        if sizing.slims(value) and values[value].is_floating_point():
            dropped = _zeroed(torch.ones_like(values[value]), sizing, value, run.batch) == 0
            values[value] = values[value].masked_fill(dropped, 0)


def _over_what_stays(values: dict[Value, Tensor], run: Run, sizing: Sizing, node: Node, number: torch.dtype) -> None:
    """Run one operator on the channels that stay, and put its result among zeros."""
    small = dict(values)
    for value in node.inputs:
        for dim in range(small[value].ndim):
            index = _index(sizing, value, dim, run.batch)
            if index is not None:
                small[value] = small[value].index_select(dim, index)
    keep(small, node, operation(node, *sizing.call(node), number)(small, run))
    for output, type_ in enumerate(node.outputs):
        value = Value(node.name, output)
        tensor = small[value]
        for dim in range(tensor.ndim):
            index = _index(sizing, value, dim, run.batch)
            if index is not None:
                size = type_.at(run.batch)[dim]
                shape = [size if d == dim else n for d, n in enumerate(tensor.shape)]
                tensor = tensor.new_zeros(shape).index_copy(dim, index, tensor)
        values[value] = tensor
