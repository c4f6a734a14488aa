"""The skeleton of an architecture: every entry of its channel list in a group of its own, to compare a file's shapes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from slimtrain.models.architecture import Architecture
from slimtrain.models.channels import ChannelPlan, Dim, Wiring
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import IMAGE_CHANNELS
from slimtrain.slimmable.build import DenseLayers

ALIKE = 0.7  # share of weights in common that makes a file one of an architecture, however damaged
Sizes = Mapping[str, int]  # a norm's path -> its channels


@dataclass(frozen=True)
class NormSite:
    """A norm of an architecture: its path, and its size in terms of the untied channel list's entries."""

    path: str
    dim: Dim


class SkeletonLayers(DenseLayers):
    """Dense layers that note which norm has which dimension, and which convolutions read images."""

    def __init__(self, plan: ChannelPlan) -> None:
        super().__init__(plan)
        self.dims: dict[nn.Module, Dim] = {}
        self.stems: set[nn.Module] = set()

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> nn.Module:
        module = super().conv(inp, out, kernel, stride)
        if inp == IMAGE_CHANNELS:
            self.stems.add(module)
        return module

    def norm(self, dim: Dim) -> nn.Module:
        module = super().norm(dim)
        self.dims[module] = dim
        return module


@dataclass(frozen=True)
class Skeleton:
    """An architecture with every channel-list entry in a group of its own, as far as its structure allows. `network` is built
    of dense layers without values; `stems` are the keys of the weights that read images."""

    wiring: Wiring
    network: nn.Module
    norms: tuple[NormSite, ...]
    stems: tuple[str, ...]


def skeleton(arch: Architecture, keys: Iterable[str] | None = None) -> Skeleton:
    """The skeleton with all layers that the architecture can have, or with those of a state dict of these `keys`."""
    return _skeleton(arch, arch.untied_list(keys))


@lru_cache
def _skeleton(arch: Architecture, channel_list: tuple[int, ...]) -> Skeleton:
    wiring = arch.wire([channel_list])
    layers = SkeletonLayers(wiring.plan("skeleton", channel_list))
    with torch.device("meta"):
        network = arch.build(layers, wiring, 1000)
    norms = [NormSite(path, layers.dims[m]) for path, m in network.named_modules() if m in layers.dims]
    stems = [f"{path}.weight" for path, m in network.named_modules() if m in layers.stems]
    return Skeleton(wiring, network, tuple(norms), tuple(stems))


@lru_cache
def weight_kinds(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Weighted layers' keys and what of their shape no plan changes: the kernel, and whether it is depthwise."""
    layers = [(path, m) for path, m in skeleton(arch).network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return {f"{path}.weight": weight_kind(layer.weight) for path, layer in layers}


def weight_kind(weight: Tensor) -> tuple[int, ...]:
    return (*weight.shape[2:], int(weight.dim() == 4 and weight.shape[1] == 1))


def likeness(state: Mapping[str, Tensor]) -> tuple[str, float]:
    """The architecture that shares most weights with a state dict, and the share; "" and 0 where none has one in common."""
    kinds = {key: weight_kind(t) for key, t in state.items() if key.endswith(".weight") and t.dim() in (2, 4)}
    best, best_score = "", 0.0
    for architecture, arch in ARCHITECTURES.items():
        expected = weight_kinds(arch)
        score = len(kinds.items() & expected.items()) / max(len(kinds.keys() | expected.keys()), 1)
        if score > best_score:
            best, best_score = architecture, score
        if score == 1.0:
            break
    return best, best_score
