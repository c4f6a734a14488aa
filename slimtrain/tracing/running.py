"""A graph run by torch: at its full size, at a plan, or step by step for whoever wants to look in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slimtrain.graph.graph import Argument, Batch, Graph, Node, Value
from slimtrain.graph.sizes import Sizing


@dataclass(frozen=True)
class Step:
    """An operator, ready to be called: positional and named arguments with `Value`s and `Batch`es still in them."""

    node: Node
    function: Callable[..., Any]
    positional: tuple[Argument, ...]
    named: Mapping[str, Argument]


def operator(op: str) -> Any:
    """An ATen operator by the graph's name of it: `conv2d`, `add.Tensor`."""
    kind, _, overload = op.partition(".")
    return getattr(getattr(torch.ops.aten, kind), overload or "default")


def step(node: Node, op: str, arguments: Mapping[str, Argument], number: torch.dtype = torch.float32) -> Step:
    """`node` called as `op` with `arguments`. `number`: what the network computes in, in place of the float32 that it was
    traced in."""
    function = operator(op)
    positional, named = [], {}
    for argument in function._schema.arguments:
        value: Any = arguments.get(argument.name)
        if argument.name == "dtype" and isinstance(value, str):
            value = number if value == "float32" else getattr(torch, value)
        if argument.kwarg_only:
            if value is not None:
                named[argument.name] = value
        else:
            positional.append(value)
    return Step(node, function, tuple(positional), named)


def steps(sizing: Sizing, number: torch.dtype = torch.float32) -> list[Step]:
    """All of a graph at a plan."""
    return [step(node, *sizing.call(node), number) for node in sizing.graph.nodes]


class Environment:
    """The values that are there, by name; those that nothing reads any more are let go."""

    def __init__(self, graph: Graph, images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> None:
        self.graph = graph
        self.batch = images[0].shape[0]
        self.values: dict[Value, Tensor] = {Value(name): x for (name, _), x in zip(graph.inputs, images, strict=True)}
        self.values |= {Value(parameter.node): tensors[parameter.name] for parameter in graph.parameters}

    def filled(self, argument: Argument) -> Any:
        """An argument with tensors and numbers in it."""
        if isinstance(argument, Value):
            return self.values[argument]
        if isinstance(argument, Batch):
            return argument.at(self.batch)
        if isinstance(argument, tuple):
            return [self.filled(part) for part in argument]
        return argument

    def run(self, step: Step) -> None:
        made = step.function(
            *[self.filled(a) for a in step.positional], **{name: self.filled(a) for name, a in step.named.items()}
        )
        self.keep(step.node, made)

    def keep(self, node: Node, made: Any) -> None:
        outputs = made if isinstance(made, tuple | list) else (made,)
        for index, output in enumerate(outputs):
            self.values[Value(node.name, index)] = output

    def release(self, names: Iterable[str]) -> None:
        for name in names:
            for index in range(len(self.graph.by_name[name].outputs)) if name in self.graph.by_name else (0,):
                self.values.pop(Value(name, index), None)

    def outputs(self) -> list[Tensor]:
        return [self.values[value] for value in self.graph.outputs]


def releases(graph: Graph) -> list[list[str]]:
    """For every node the nodes that it is the last to read."""
    last: list[list[str]] = [[] for _ in range(len(graph.nodes) + 1)]
    for name, index in graph.last_use.items():
        if name in graph.by_name:
            last[index].append(name)
    return last[:-1]


def run(graph: Graph, program: Sequence[Step], images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of a graph; `tensors` are its parameters by name, sliced as `program` expects them."""
    environment = Environment(graph, images, tensors)
    for action, names in zip(program, releases(graph), strict=True):
        environment.run(action)
        environment.release(names)
    return environment.outputs()


def full(graph: Graph, images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The graph as it was traced."""
    number = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    return run(graph, [step(node, node.op, node.arguments, number) for node in graph.nodes], images, tensors)
