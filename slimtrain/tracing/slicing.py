"""The parameters of a graph at a plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slimtrain.graph.graph import Value
from slimtrain.graph.sizes import Sizing


def sliced(sizing: Sizing, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stays of every parameter: name -> tensor, of the same memory where a leading corner stays."""
    return {p.name: take(tensors[p.name], sizing, Value(p.node)) for p in sizing.graph.parameters}


def take(tensor: Tensor, sizing: Sizing, value: Value) -> Tensor:
    """What stays of a tensor that has the full size of `value`."""
    for dim, positions in enumerate(sizing.kept(value)):
        if positions is not None:
            count = len(positions)
            if count and positions[-1] == count - 1:  # a leading corner
                tensor = tensor.narrow(dim, 0, count)
            else:
                tensor = tensor.index_select(dim, torch.from_numpy(positions).to(tensor.device))
    return tensor
