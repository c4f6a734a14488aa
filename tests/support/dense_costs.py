"""What a plan costs, measured on the dense network that runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimtrain.costs.cost import Cost
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from tests.support.module_layers import DenseLayers


def measured_cost(spec: NetworkSpec, plan: ChannelPlan, image_size: int) -> Cost:
    """The cost of a dense network that runs, counted on weights and on what each layer really made."""
    macs = pools = activations = layers = 0

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs, pools, activations, layers
        if isinstance(module, nn.Conv2d | nn.Linear):
            macs += module.weight.numel() * output.numel() // output.shape[1]  # every weight, at every position
            activations += output.numel()
            layers += 1
        elif isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            pools += inputs[0].numel()

    with torch.device("meta"):
        dense = spec.build(DenseLayers(plan)).eval()
    for module in dense.modules():
        module.register_forward_hook(hook)
    dense(torch.empty(1, 3, image_size, image_size, device="meta"))
    # folded: a norm turns into its convolution's bias
    params = sum(p.numel() for m in dense.modules() if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters())
    params += sum(m.out_channels for m in dense.modules() if isinstance(m, nn.Conv2d))
    return Cost(macs, pools, params, activations, layers)
