"""How much a network's logits move when its numbers are rounded: what a file of a smaller number format can at best do."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from slimtrain.slimmable.network import SlimmableNetwork


def rounded_network(network: SlimmableNetwork, number: str) -> SlimmableNetwork:
    """A copy of `network` in float64 whose weights and the results of all its layers are rounded to `number`, torch's name
    of a type (`float16`), and computed with in float64 in between. Statistics of norms stay: files fold them into
    weights."""
    kind: torch.dtype = getattr(torch, number)
    rounded = copy.deepcopy(network).double()
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(_round(parameter, kind))
    rounded.body.rounding = kind  # its layers are no modules
    return rounded


def _round(values: Tensor, kind: torch.dtype) -> Tensor:
    return values.to(kind).to(values.dtype)
