"""Untrained networks that behave like trained ones: for trying the pipeline, and for measuring a shape before training.

With default initialization and running statistics of 0 and 1 a deep network's logits are its classifier's bias, and any
defect in an export would pass its check. Here weights are random (He et al., arXiv 1502.01852), and every plan's norms
hold the statistics that a few small noise images really have there, so that activations stay of order one at any depth
and width, and logits depend on the image.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from slimtrain.data.noise import noise_images
from slimtrain.models.published import random_spec
from slimtrain.slimmable.blocks import Block
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.norms import PlanNorm

SEED = 0
BRANCH = 0.25  # scale of a norm that ends a residual branch: sums of dozens of branches stay of order one
IMAGES = 8  # that statistics are taken from
IMAGE_SIZE = 64  # pixels: statistics hardly depend on it, and 31 widths are to take well under a second


def untrained_network(name: str, seed: int = SEED, classes: int = 0) -> SlimmableNetwork:
    """The network that `random_spec` reads off `name`, of so many `classes` (0: as it says), with reproducible random weights,
    float32, in evaluation mode.

    UserError for an unknown name.
    """
    spec = random_spec(name)
    spec = replace(spec, classes=classes or spec.classes)
    with torch.device("meta"):
        network = SlimmableNetwork(spec)
    network.to_empty(device="cpu").eval()
    with torch.no_grad():
        for path, module in network.named_modules():
            draw = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{path}".encode()))
            if isinstance(module, SlimConv2d):
                module.weight.normal_(0, math.sqrt(2 / module.weight[0].numel()), generator=draw)
            elif isinstance(module, SlimLinear):
                module.weight.normal_(0, math.sqrt(1 / module.in_features), generator=draw)
                module.bias.normal_(0, 0.1, generator=draw)
            elif isinstance(getattr(module, "weight", None), nn.Parameter):  # whatever norm holds scale and shift
                module.weight.uniform_(0.8, 1.2, generator=draw)
                module.bias.normal_(0, 0.1, generator=draw)
        for norm in branch_ends(network):
            for key, value in norm.named_parameters():
                if key.endswith("weight"):
                    value.mul_(BRANCH)
    take_statistics(network, torch.from_numpy(noise_images(IMAGES, IMAGE_SIZE, seed, spec.in_channels)))
    return network


def branch_ends(network: nn.Module) -> Iterator[nn.Module]:
    """The last norms of branches that are added to their block's input."""
    for module in network.modules():
        if isinstance(module, Block):
            yield from module.branch_ends()


@torch.inference_mode()
def take_statistics(network: SlimmableNetwork, images: Tensor) -> None:
    """Fill every plan's running statistics with those of `images`: each norm takes its input's just before it runs."""

    def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, PlanNorm)
        stored = module.stored()
        assert stored is not None and stored.running_mean is not None and stored.running_var is not None
        assert stored.num_batches_tracked is not None
        var, mean = torch.var_mean(inputs[0], (0, 2, 3))
        stored.running_mean.copy_(mean)
        stored.running_var.copy_(var)
        stored.num_batches_tracked.fill_(1)

    hooks = [module.register_forward_pre_hook(take) for module in network.norms.values()]
    for plan in sorted(network.spec.plans, key=lambda plan: sum(plan.channels.values())):
        with network.at(plan):  # the widest comes last, so that a shared norm keeps its statistics
            network(images)
    for hook in hooks:
        hook.remove()
