"""The proof of a sliced network: the full-size one, in which what a plan drops is zero.

Nothing here knows how a slice is taken: parameters keep their shapes, what is dropped is zeroed, and statistics over channels
are taken over what stays. Only a shuffle that is taken for order-free runs on what stays, for there a narrow network is no part
of the wide one. A wrong index map, a wrong size, a channel that leaks from one branch into another show up as a
difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slimtrain.graph.graph import Node, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.graph.rules.reductions import REDUCTIONS
from slimtrain.graph.sizes import Sizing
from slimtrain.tracing.running import Environment, step

# Operators whose result depends on how many channels there are, not only on their sum.
OVER_CHANNELS = frozenset(
    {*REDUCTIONS, "layer_norm", "rms_norm", "group_norm", "softmax", "_softmax", "log_softmax", "batch_norm", "instance_norm"}
)


def masked(sizing: Sizing, images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of the full-size network with everything that the plan drops set to zero."""
    graph = sizing.graph
    number = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    zeroed = {p.name: _zeroed(tensors[p.name], sizing, Value(p.node)) for p in graph.parameters}
    environment = Environment(graph, images, zeroed)
    for node in graph.nodes:
        counts = node.kind in OVER_CHANNELS or node.name in sizing.groups.reordered
        if counts and any(sizing.slims(value) for value in node.inputs):
            _over_what_stays(environment, sizing, node, number)
        else:
            environment.run(step(node, node.op, node.arguments, number))
    return environment.outputs()


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


def _over_what_stays(environment: Environment, sizing: Sizing, node: Node, number: torch.dtype) -> None:
    """Run one operator on the channels that stay, and put its result among zeros."""
    full = dict(environment.values)
    for value in node.inputs:
        for dim in range(full[value].ndim):
            index = _index(sizing, value, dim, environment.batch)
            if index is not None:
                environment.values[value] = environment.values[value].index_select(dim, index)
    environment.run(step(node, *sizing.call(node), number))
    environment.values |= {value: full[value] for value in node.inputs}
    for output in range(len(node.outputs)):
        value = Value(node.name, output)
        tensor = environment.values[value]
        for dim in range(tensor.ndim):
            index = _index(sizing, value, dim, environment.batch)
            if index is not None:
                size = node.outputs[output].at(environment.batch)[dim]
                shape = [size if d == dim else n for d, n in enumerate(tensor.shape)]
                tensor = tensor.new_zeros(shape).index_copy(dim, index, tensor)
        environment.values[value] = tensor
