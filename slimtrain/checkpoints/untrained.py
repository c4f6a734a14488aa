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
from slimtrain.graph.order import added_branches
from slimtrain.models.published import random_spec
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
    # as `to_empty` does, which loads sympy for it and takes half a second
    network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype)).eval()
    with torch.no_grad():
        for key, weight in network.body.weights.items():
            draw = _generator(seed, key.rpartition(".")[0])
            fan_in = math.prod(weight.shape[1:])
            network.body.stored(key).normal_(0, math.sqrt((1 if weight.linear else 2) / fan_in), generator=draw)
            if weight.bias is not None:
                network.body.stored(weight.bias).normal_(0, 0.1, generator=draw)
        for path, module in network.named_modules():
            own = dict(module.named_parameters(recurse=False))
            if isinstance(module, PlanNorm | nn.BatchNorm2d) and own:  # whatever norm holds scale and shift
                draw = _generator(seed, path)
                own["weight"].uniform_(0.8, 1.2, generator=draw)
                own["bias"].normal_(0, 0.1, generator=draw)
        for norm in branch_ends(network):
            for key, value in norm.named_parameters():
                if key.endswith("weight"):
                    value.mul_(BRANCH)
    take_statistics(network, torch.from_numpy(noise_images(IMAGES, IMAGE_SIZE, seed, spec.in_channels)))
    return network


def _generator(seed: int, path: str) -> torch.Generator:
    """Of its own for every module."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{path}".encode()))


def branch_ends(network: SlimmableNetwork) -> Iterator[nn.Module]:
    """The last norms of branches that are added to what they were computed from."""
    body, graph = network.body, network.spec.graph
    for value in added_branches(graph):
        node = graph.by_name[value.node]
        for end in [part.node for part in node.inputs] if node.kind == "cat" else [node.name]:
            if end in body.of_nodes:
                yield body.norms[body.of_nodes[end].path]


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
