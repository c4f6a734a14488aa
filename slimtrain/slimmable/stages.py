"""A network as a list of stages, so that plans that begin alike can share what is computed before they differ.

Two plans that differ in some channel groups compute the same up to the first layer that reads or writes one of these. So the
part of a network before a stage can run once, at one plan, and the part after it many times, at many plans. Stages are the
same layers in the same order on tensors of the same shapes as in the network's own forward pass: the same bits.

Every block (`blocks.py`) says itself which stages it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slimtrain.models.channels import Dim
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear


@dataclass(frozen=True)
class StageInput:
    """What passes from one stage to the next: the activation (of a traced graph the activations, by value), and within a
    block that is added to its input, that input."""

    x: Any
    block_input: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """`run` computes what the next stage reads, at the network's active plan. `groups`: those that its convolutions or linear
    layer read or write, none for the norms and activations that follow. A stage with groups leaves its input as it is, so that
    several plans can go on from there; an activation may not."""

    run: Callable[[StageInput], StageInput]
    groups: frozenset[str] = frozenset()


def module_stage(module: nn.Module) -> Stage:
    """The stage that is all of `module`."""
    return Stage(lambda given: StageInput(module(given.x), given.block_input), groups_of(module))


def groups_of(module: nn.Module) -> frozenset[str]:
    """The groups that the convolutions and linear layers of `module` read or write."""
    layers = [layer for layer in module.modules() if isinstance(layer, SlimConv2d | SlimLinear)]
    dims = [dim for layer in layers for dim in layer.dims if isinstance(dim, Dim)]
    return frozenset(group for dim in dims for group, _ in dim.terms)
