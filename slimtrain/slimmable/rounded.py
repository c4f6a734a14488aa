"""How much a network's logits move when its numbers are rounded: what a file of a smaller number format can at best do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.slimmable.graph_body import GraphBody


def rounded_network(network: nn.Module, number: str) -> nn.Module:
    """A copy of `network` in float64 whose weights and the results of all its layers are rounded to `number`, torch's name
    of a type (`float16`), and computed with in float64 in between. Statistics of norms stay: files fold them into
    weights."""
    kind: torch.dtype = getattr(torch, number)
    rounded = copy.deepcopy(network).double()
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(_round(parameter, kind))
    body = getattr(rounded, "body", None)
    if isinstance(body, GraphBody):  # its layers are no modules
        body.rounding = kind
        return rounded
    for module in rounded.modules():
        if not any(module.children()):
            module.register_forward_hook(_rounding(kind))
    return rounded


def _rounding(kind: torch.dtype) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        return _round(output, kind) if isinstance(output, Tensor) else output

    return hook


def _round(values: Tensor, kind: torch.dtype) -> Tensor:
    return values.to(kind).to(values.dtype)
