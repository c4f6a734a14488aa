"""What of a network at a plan depends on no image: its tensors, and what operators make of these alone, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from slimtrain.graph.graph import Argument, Batch, Node, Value, values_of
from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.program import Run, keep, operation

ALONE = Run(1, False, torch.device("cpu"))


def fixed_values(sizing: Sizing, tensors: Mapping[str, Tensor]) -> dict[Value, Tensor]:
    """Every value of the graph that is the same whatever the images are. `tensors`: the graph's at the plan, by name."""
    values = {Value(parameter.node): tensors[parameter.name].detach().cpu() for parameter in sizing.graph.parameters}
    for node in sizing.graph.nodes:
        op, arguments = sizing.call(node)
        read = list(values_of(tuple(arguments.values())))
        if not read or any(value not in values for value in read) or _counts_images(tuple(arguments.values())):
            continue
        given = {value: _exact(values[value]) for value in read}
        with torch.no_grad():
            keep(values, node, operation(node, op, arguments, torch.float64)(given, ALONE))
    return values


def name_in_files(node: Node) -> str:
    """What the value of such a node is called in files."""
    return f"{node.module}.{node.kind}" if node.module else node.name


def _exact(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _counts_images(argument: Argument) -> bool:
    return any(map(_counts_images, argument)) if isinstance(argument, tuple) else isinstance(argument, Batch)
