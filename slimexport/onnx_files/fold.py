"""Folding batch norm into the convolution before it: exact algebra, computed in float64.

norm(conv(x)) = s * (conv(x) - mean) + shift, with s = scale / sqrt(var + eps), is the convolution with weights
s * w and bias shift - s * mean.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, fx, nn


def folded(
    weight: Tensor, bias: Tensor | None, mean: Tensor, var: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Weight [out, in, k, k] and bias [out] of the convolution that includes the norm, in the weight's dtype."""
    dtype = weight.dtype
    factor = scale.double() / torch.sqrt(var.double() + eps)
    moved = (0.0 if bias is None else bias.double()) - mean.double()
    return (weight.double() * factor[:, None, None, None]).to(dtype), (shift.double() + factor * moved).to(dtype)


def fold_norms(network: fx.GraphModule) -> fx.GraphModule:
    """Fold every norm that directly follows a convolution nothing else reads, in place. Others stay as they are."""
    uses = Counter(node.target for node in network.graph.nodes if node.op == "call_module")
    for node in list(network.graph.nodes):
        if node.op != "call_module" or not isinstance(norm := network.get_submodule(node.target), nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) > 1 or uses[before.target] > 1 or uses[node.target] > 1:
            continue  # somebody else needs the convolution as it is, or the norm
        convolution = network.get_submodule(before.target)
        if not isinstance(convolution, nn.Conv2d) or norm.training or not norm.affine:
            continue
        if norm.running_mean is None or norm.running_var is None:
            continue
        weight, bias = folded(
            convolution.weight.detach(),
            None if convolution.bias is None else convolution.bias.detach(),
            norm.running_mean,
            norm.running_var,
            norm.weight.detach(),
            norm.bias.detach(),
            norm.eps,
        )
        convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
        node.replace_all_uses_with(before)
        network.graph.erase_node(node)
        network.delete_submodule(node.target)
    network.recompile()
    return network
