"""The skeleton of an architecture: every entry of its channel list in a group of its own, to compare a file's shapes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from slimtrain.graph.graph import Value
from slimtrain.models.architecture import Architecture
from slimtrain.models.channels import Dim, Wiring
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import IMAGE_CHANNELS, IMAGENET_CLASSES, PUBLISHED_SIZE
from slimtrain.models.table import TableLayers, write_table

ALIKE = 0.7  # share of weights in common that makes a file one of an architecture, however damaged
Sizes = Mapping[str, int]  # a norm's path -> its channels
WeightKind = tuple[int, ...]  # the kernel, and whether it is depthwise


@dataclass(frozen=True)
class NormSite:
    """A norm of an architecture: its path, and its size in terms of the untied channel list's entries."""

    path: str
    dim: Dim


@dataclass(frozen=True)
class Skeleton:
    """An architecture with every channel-list entry in a group of its own, as far as its structure allows. `weights`: keys of
    convolutions and linear layers, and what of their shape no plan changes; `stems`: the keys of those that read images."""

    wiring: Wiring
    weights: Mapping[str, WeightKind]
    norms: tuple[NormSite, ...]
    stems: tuple[str, ...]


def skeleton(arch: Architecture, keys: Iterable[str] | None = None) -> Skeleton:
    """The skeleton with all layers that the architecture can have, or with those of a state dict of these `keys`."""
    return _skeleton(arch, arch.untied_list(keys))


@lru_cache
def _skeleton(arch: Architecture, channel_list: tuple[int, ...]) -> Skeleton:
    wiring = arch.wire([channel_list])
    plan = wiring.plan("skeleton", channel_list)
    wired = write_table(arch.build(TableLayers(), wiring, IMAGENET_CLASSES), plan, IMAGE_CHANNELS, PUBLISHED_SIZE)
    weights, norms, stems = {}, [], []
    for parameter in wired.graph.parameters:
        dims, shape = wired.dims[Value(parameter.node)], parameter.type.at(1)
        if parameter.name.endswith(".running_mean"):
            assert isinstance(dims[0], Dim)
            norms.append(NormSite(parameter.name.removesuffix(".running_mean"), dims[0]))
        elif len(shape) > 1:
            weights[parameter.name] = weight_kind(shape)
            if dims[1] == IMAGE_CHANNELS:
                stems.append(parameter.name)
    return Skeleton(wiring, weights, tuple(norms), tuple(stems))


def weight_kind(shape: Sequence[int]) -> WeightKind:
    return (*shape[2:], int(len(shape) == 4 and shape[1] == 1))


def likeness(state: Mapping[str, Tensor]) -> tuple[str, float]:
    """The architecture that shares most weights with a state dict, and the share; "" and 0 where none has one in common."""
    kinds = {key: weight_kind(t.shape) for key, t in state.items() if key.endswith(".weight") and t.dim() in (2, 4)}
    best, best_score = "", 0.0
    for architecture, arch in ARCHITECTURES.items():
        expected = skeleton(arch).weights
        score = len(kinds.items() & expected.items()) / max(len(kinds.keys() | expected.keys()), 1)
        if score > best_score:
            best, best_score = architecture, score
        if score == 1.0:
            break
    return best, best_score
