"""A graph at a plan as it is written: what is left to compute for every image, and the tensors that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from slimtrain.graph.graph import Argument, Node, Size, Value, values_of
from slimtrain.graph.sizes import Sizing


@dataclass(frozen=True)
class Stored:
    """A tensor of the file, and what it is called."""

    name: str
    tensor: Tensor


@dataclass(frozen=True)
class Action:
    """A node, its operator and arguments at the plan; the arguments of `node` itself are those of the full size."""

    node: Node
    op: str
    arguments: Mapping[str, Argument]

    @property
    def kind(self) -> str:
        return self.op.split(".")[0]

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(values_of(tuple(self.arguments.values())))


@dataclass(frozen=True)
class Program:
    """`actions` run in their order. `stored`: every value that does not depend on the images. `same`: values that are others,
    as a batch norm's result is that of the convolution which it was folded into."""

    sizing: Sizing
    actions: tuple[Action, ...]
    stored: Mapping[Value, Stored]
    same: Mapping[Value, Value]

    def shape(self, value: Value) -> tuple[Size, ...]:
        if value in self.stored:
            return tuple(self.stored[value].tensor.shape)
        return self.sizing.shape(value)

    def dtype(self, value: Value) -> str:
        if value in self.stored:
            return str(self.stored[value].tensor.dtype).removeprefix("torch.")
        return self.sizing.graph.types[value].dtype

    def outputs(self) -> tuple[Value, ...]:
        return tuple(self.same.get(value, value) for value in self.sizing.graph.outputs)

    @cached_property
    def makers(self) -> dict[str, Action]:
        """Who makes a node's values."""
        return {action.node.name: action for action in self.actions}

    @cached_property
    def readers(self) -> dict[Value, list[Action]]:
        """Who reads a value, as often as it does."""
        readers: dict[Value, list[Action]] = {}
        for action in self.actions:
            for value in action.inputs:
                readers.setdefault(self.same.get(value, value), []).append(action)
        return readers
