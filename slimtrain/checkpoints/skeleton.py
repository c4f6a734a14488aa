"""The skeleton of an architecture: every entry of its channel list in a group of its own, to compare a file's shapes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from slimtrain.checkpoints.reading import State
from slimtrain.models import ARCHITECTURES
from slimtrain.models.channels import ChannelPlan, Dim, Wiring
from slimtrain.models.mobilenet_v2 import InvertedResidualNetwork
from slimtrain.slimmable.build import DenseLayers

Sizes = Mapping[str, int]  # a norm's path -> its channels


@dataclass(frozen=True)
class NormSite:
    """A norm of an architecture: its path, and its size in terms of the untied channel list's entries."""

    path: str
    dim: Dim


class SkeletonLayers(DenseLayers):
    """Dense layers that note which norm has which dimension."""

    def __init__(self, plan: ChannelPlan) -> None:
        super().__init__(plan)
        self.dims: dict[nn.Module, Dim] = {}

    def norm(self, dim: Dim) -> nn.Module:
        module = super().norm(dim)
        self.dims[module] = dim
        return module


def unexpanded_blocks(state: State, architecture: str) -> frozenset[int]:
    """The blocks of a MobileNet v2 or MNasNet without an expansion: AutoSlim lists may make one superfluous."""
    arch = ARCHITECTURES[architecture]
    if not isinstance(arch, InvertedResidualNetwork):
        return frozenset()
    later = {key.split(".")[1] for key in state if (key.startswith("features.") and ".body.6." in key) or ".body.7." in key}
    return frozenset(i for i, block in enumerate(arch.blocks, 1) if block.ratio != 1 and str(i) not in later)


@lru_cache
def skeleton(architecture: str, unexpanded: frozenset[int] = frozenset()) -> tuple[Wiring, nn.Module, tuple[NormSite, ...]]:
    """An architecture with every channel-list entry in a group of its own, as far as its structure allows."""
    arch = ARCHITECTURES[architecture]
    distinct = list(arch.channel_list("s", 1.0))  # ResNets' and ShuffleNet's groups are tied whatever the list says
    if isinstance(arch, InvertedResidualNetwork):
        distinct = [8 * (i + 1) for i in range(len(distinct))]  # no two alike: no sums, and every expansion is there
        inp, position = 0, 1
        for index, block in enumerate(arch.blocks, 1):
            if block.ratio != 1:
                if index in unexpanded:
                    distinct[position] = distinct[inp]
                position += 1
            inp, position = position, position + 1
    wiring = arch.wire([distinct])
    layers = SkeletonLayers(wiring.plan("skeleton", distinct))
    with torch.device("meta"):
        network = arch.build(layers, wiring, 1000)
    norms = [NormSite(path, layers.dims[m]) for path, m in network.named_modules() if m in layers.dims]
    return wiring, network, tuple(norms)


def weight_kinds(architecture: str) -> dict[str, tuple[int, ...]]:
    """Weighted layers' keys and what of their shape no plan changes: the kernel, and whether it is depthwise."""
    network = skeleton(architecture)[1]
    layers = [(path, m) for path, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return {f"{path}.weight": weight_kind(layer.weight) for path, layer in layers}


def weight_kind(weight: Tensor) -> tuple[int, ...]:
    return (*weight.shape[2:], int(weight.dim() == 4 and weight.shape[1] == 1))
