"""Small modules that call one ATen operator, and what runs them: what the ONNX writer's forms are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimtrain.graph.policy import Policy
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.groups import find_groups
from slimtrain.tracing.exported import exported_program
from slimtrain.tracing.reading import read_program
from slimtrain.tracing.slicing import sliced

aten = torch.ops.aten
Function = Callable[..., "Tensor | tuple[Tensor, ...]"]
SHAPE = (6, 5, 7)


class Calls(nn.Module):
    """A function of images, and of parameters of given shapes."""

    def __init__(self, function: Function, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(images, *self.weights)


@dataclass(frozen=True)
class Case:
    """A module that calls the operator `kind` on images [N, *shape]."""

    kind: str
    module: nn.Module
    shape: tuple[int, ...]


def randomized(module: nn.Module) -> nn.Module:
    """A module all of whose tensors matter: norms' scales, shifts and statistics too."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2, generator=draw) if "var" in name else tensor.normal_(generator=draw)
    return module.eval()


def cases(kind: str, *calls: Function | nn.Module, shape: tuple[int, ...] = SHAPE) -> list[Case]:
    modules = [call if isinstance(call, nn.Module) else Calls(call) for call in calls]
    return [Case(kind, randomized(module), shape) for module in modules]


def traced(
    module: nn.Module, shape: tuple[int, ...], share: float = 1, policy: Policy | None = None
) -> tuple[Sizing, dict[str, Tensor]]:
    """A module on images [N, *shape] as a graph at a share of every group's channels, and its parameters there."""
    program = read_program(exported_program(module, torch.zeros(1, *shape)))
    groups = find_groups(program.graph, policy)
    sizing = Sizing(program.graph, groups, {name: max(1, round(size * share)) for name, size in groups.sizes.items()})
    return sizing, sliced(sizing, program.tensors)
