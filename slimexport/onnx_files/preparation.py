"""A graph at a plan, made ready to be written: what depends on parameters alone is computed, batch norms become part of the
layers before them, both in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from slimexport.onnx_files.operators.program import Action, Program, Stored
from slimtrain.graph.folding import folded_norms
from slimtrain.graph.graph import Argument, Batch, Value
from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.program import TRAINING, operation

# Operators that make the same of an operand whether it was broadcast before or not, as long as another one is as wide.
BROADCASTING = frozenset(
    {"add", "sub", "mul", "div", "maximum", "minimum", "where", "eq", "ne", "lt", "le", "gt", "ge", "pow"}
)
EXPANDS = ("expand", "expand_as", "broadcast_to")


def prepared(sizing: Sizing, tensors: Mapping[str, Tensor]) -> Program:
    """`sizing` with its parameters `tensors` (at the plan, by name) as a program."""
    parameters = sizing.graph.parameters
    stored = {Value(p.node): Stored(p.name, tensors[p.name].detach()) for p in parameters}
    actions = [Action(node, *sizing.call(node)) for node in sizing.graph.nodes]
    preparation = _Preparation(sizing, stored)
    actions = preparation.without_expands(actions)
    actions = preparation.computed(actions)
    actions = preparation.folded(actions)
    return Program(sizing, tuple(actions), preparation.stored, preparation.same)


@dataclass
class _Preparation:
    sizing: Sizing
    stored: dict[Value, Stored]
    same: dict[Value, Value] = field(default_factory=dict)

    # -- expands that whoever reads them does anyway

    def without_expands(self, actions: Sequence[Action]) -> list[Action]:
        readers: dict[Value, list[Action]] = {}
        for action in actions:
            for value in action.inputs:
                readers.setdefault(value, []).append(action)
        kept = []
        for action in actions:
            result = Value(action.node.name)
            reading = readers.get(result, [])
            if action.kind in EXPANDS and result not in self.sizing.graph.outputs and all(map(self._spreads(result), reading)):
                self.same[result] = action.inputs[0]
            else:
                kept.append(action)
        return list(map(self._resolved, kept))

    def _spreads(self, value: Value) -> Callable[[Action], bool]:
        """Whether an action gives the shape that it does through its other operands alone."""

        def spreads(action: Action) -> bool:
            if action.kind not in BROADCASTING:
                return False
            shape = self.sizing.shape(Value(action.node.name))
            others = [other for other in action.inputs if other != value]
            return any(self.sizing.shape(other) == shape for other in others)

        return spreads

    def _resolved(self, action: Action) -> Action:
        """An action that reads no value which is another."""
        if self.same.keys().isdisjoint(action.inputs):
            return action

        def resolve(argument: Argument) -> Argument:
            if isinstance(argument, tuple):
                return tuple(resolve(part) for part in argument)
            while isinstance(argument, Value) and argument in self.same:
                argument = self.same[argument]
            return argument

        return replace(action, arguments={name: resolve(argument) for name, argument in action.arguments.items()})

    # -- what depends on parameters alone

    def computed(self, actions: Sequence[Action]) -> list[Action]:
        left = []
        for action in actions:
            constant = all(value in self.stored for value in action.inputs)
            if not constant or _counts_images(tuple(action.arguments.values())) or not action.inputs:
                left.append(action)
                continue
            outputs = self._outputs_of(action)
            name = action.node.module or action.node.name
            name = f"{name}.{action.node.kind}" if action.node.module else name
            self.stored |= {Value(action.node.name, place): Stored(name, output) for place, output in enumerate(outputs)}
        return left

    def _outputs_of(self, action: Action) -> list[Tensor]:
        """What torch makes of an action's stored operands."""

        def filled(argument: Argument) -> Any:
            if isinstance(argument, tuple):
                return [filled(part) for part in argument]
            if argument is TRAINING:
                return False
            return self.exact(argument) if isinstance(argument, Value) else argument

        call = operation(action.node, action.op, action.arguments, torch.float64)
        with torch.no_grad():
            outputs = call.function(*map(filled, call.positional), **{name: filled(a) for name, a in call.named.items()})
        return list(outputs) if isinstance(outputs, tuple | list) else [outputs]

    def exact(self, value: Value) -> Tensor:
        tensor = self.stored[value].tensor
        return tensor.double() if tensor.is_floating_point() else tensor

    # -- batch norms

    def folded(self, actions: Sequence[Action]) -> list[Action]:
        layers = folded_norms(self.sizing.graph)
        makers = {action.node.name: action for action in actions}
        gone: set[str] = set()
        for action in actions:
            if action.node.name not in layers:
                continue
            layer, x = layers[action.node.name].name, action.arguments["input"]
            assert isinstance(x, Value)
            makers[layer] = self._with_norm(makers[layer], action)
            self.same[Value(action.node.name)] = self.same.get(x, x)
            gone.add(action.node.name)
        kept = [makers[action.node.name] for action in actions if action.node.name not in gone]
        return list(map(self._resolved, kept))

    def _with_norm(self, layer: Action, norm: Action) -> Action:
        """A convolution or linear layer that does what its norm does too."""
        arguments = layer.arguments
        weight, bias = arguments.get("weight"), arguments.get("bias")
        assert isinstance(weight, Value) and (bias is None or isinstance(bias, Value))
        mean, variance, scale, shift = (
            None if value is None else self.exact(value)
            for value in (norm.arguments[name] for name in ("running_mean", "running_var", "weight", "bias"))
            if value is None or isinstance(value, Value)
        )
        assert mean is not None and variance is not None
        eps = norm.arguments["eps"]
        assert isinstance(eps, float)
        factor = torch.rsqrt(variance + eps) * (1 if scale is None else scale)
        added = (0 if shift is None else shift) + ((0 if bias is None else self.exact(bias)) - mean) * factor
        name = self.stored[weight].name
        path = name.rpartition(".")[0]
        folded = (Value(f"{layer.node.name}+{norm.node.name}", place) for place in range(2))
        new_weight, new_bias = folded
        groups = int(arguments.get("groups") or 1) if layer.kind != "linear" else 1  # type: ignore[arg-type]
        self.stored[new_weight] = Stored(name, _scaled(self.exact(weight), factor, groups, "transpose" in layer.kind))
        bias_name = self.stored[bias].name if bias is not None else f"{path}.bias" if path else "bias"
        self.stored[new_bias] = Stored(bias_name, added)
        return replace(layer, arguments={**arguments, "weight": new_weight, "bias": new_bias})


def _scaled(weight: Tensor, factor: Tensor, groups: int, transposed: bool) -> Tensor:
    """A weight whose outputs are multiplied by `factor`: [out, in, ...], or [in, outputs of a group, ...]."""
    if not transposed:
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    by_input = factor.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1).reshape(weight.shape[0], -1)
    return weight * by_input.reshape(*by_input.shape, *[1] * (weight.ndim - 2))


def _counts_images(argument: Argument) -> bool:
    if isinstance(argument, tuple):
        return any(_counts_images(part) for part in argument)
    return isinstance(argument, Batch)
