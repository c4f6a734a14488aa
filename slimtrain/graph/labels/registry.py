"""The table of rules, and what a rule is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slimtrain.graph.graph import Node, Value, values_of
from slimtrain.graph.labels.labelling import BATCH, Labelling, Labels


@dataclass(frozen=True)
class Call:
    """A node about to be run on labels: its arguments, the labels of its inputs, the shapes of what it makes."""

    run: Labelling
    node: Node

    def __getitem__(self, argument: str) -> Any:
        return self.node.arguments[argument]

    def get(self, argument: str, otherwise: Any = None) -> Any:
        return self.node.arguments.get(argument, otherwise)

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.node.arguments

    def labels(self, *names: str) -> Labels:
        """The labels of the first of these arguments that is a value; schemas name the same thing differently."""
        for name in names:
            value = self.node.arguments.get(name)
            if isinstance(value, Value):
                return self.run.labels[value]
        raise KeyError(names[0])

    def optional(self, name: str) -> Labels | None:
        value = self.node.arguments.get(name)
        return self.run.labels[value] if isinstance(value, Value) else None

    def several(self, name: str) -> list[Labels]:
        return [self.run.labels[value] for value in values_of(self.node.arguments[name])]

    @property
    def inputs(self) -> list[Labels]:
        return [self.run.labels[value] for value in self.node.inputs]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [type_.at(BATCH) for type_ in self.node.outputs]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    def dim(self, name: str, rank: int, otherwise: int = 0) -> int:
        """A dimension argument, counted from the front."""
        dim = self.node.arguments.get(name)
        assert dim is None or isinstance(dim, int)
        return (otherwise if dim is None else dim) % max(rank, 1)


# A rule: the labels of everything that the node makes, given what it reads.
Rule = Callable[[Call], list[Labels]]
RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of operators, named without their overloads."""

    def enter(function: Rule) -> Rule:
        for kind in kinds:
            assert kind not in RULES, kind
            RULES[kind] = function
        return function

    return enter
