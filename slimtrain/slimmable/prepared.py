"""A graph made ready to run again and again: values stand in numbered slots, arguments are resolved beforehand, and what no
plan changes is prepared once for all of them.

A step reads its slots and fills others; what nothing reads any more is let go there and then. Activations work in place where
nothing else reads what they change, as a user's `nn.ReLU(inplace=True)` does: the same bits, a map less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from slimtrain.graph.extents import Slimmed
from slimtrain.graph.graph import Argument, Batch, Node, Value
from slimtrain.graph.order import BY_RESULT, Order, results
from slimtrain.graph.sizes import Sizing, follows_plan
from slimtrain.slimmable.plan_positions import Cut, Kept, kept_of
from slimtrain.slimmable.program import CREATING, DROP_PATH, DROPOUTS, TRAINING, Operation, Run, drop_path, operation, operator

Slots = list[Any]  # of every value the tensor, None where there is none yet or any more
Step = Callable[[Slots, Run], None]
Place = tuple[dict[str, Any], str]  # a module's table of parameters or buffers, and a name there
Stored = tuple[int, dict[str, Any], str, Cut]  # a stored tensor's slot, its place, and what stays of it

# What has a shorter way into torch than by its schema: the same operators, their arguments in the same order.
SHORT: Mapping[str, Callable[..., Any]] = {
    "add.Tensor": torch.add,
    "avg_pool2d": torch._C._nn.avg_pool2d,
    "adaptive_avg_pool2d": torch._C._nn.adaptive_avg_pool2d,
    "cat": torch.cat,
    "conv2d": torch.conv2d,
    "gelu": torch._C._nn.gelu,
    "hardsigmoid": torch._C._nn.hardsigmoid,
    "hardswish": torch._C._nn.hardswish,
    "hardtanh": torch._C._nn.hardtanh,
    "linear": torch._C._nn.linear,
    "max_pool2d": torch.max_pool2d,
    "mean.dim": torch.mean,
    "mul.Tensor": torch.mul,
    "relu": torch.relu,
    "reshape": torch.reshape,
    "sigmoid": torch.sigmoid,
    "silu": torch._C._nn.silu,
}
DIRECT = {operator(op): function for op, function in SHORT.items()}
CHANGING: Mapping[str, Callable[..., Any]] = {  # its input, in place
    "relu": torch.relu_,
    "hardtanh": torch._C._nn.hardtanh_,
    "hardswish": torch._C._nn.hardswish_,
    "hardsigmoid": torch._C._nn.hardsigmoid_,
    "silu": torch._C._nn.silu_,
    "sigmoid": torch.sigmoid_,
}


@dataclass(frozen=True)
class Slot:
    """A value among the arguments of a step."""

    number: int


@dataclass(frozen=True)
class Computation:
    """What an operation gives, from slots: a tensor, or several."""

    compute: Callable[[Slots, Run], Any]
    several: bool


@dataclass(frozen=True)
class Layout:
    """What of a graph's run no plan changes. `widest`: the graph at the plan that is stored; `norms`: nodes that modules run;
    `places`: where every other stored tensor is, by its name; `number`: what the network computes in."""

    order: Order
    widest: Sizing
    norms: Mapping[str, nn.Module]
    places: Mapping[str, Place]
    number: torch.dtype

    @cached_property
    def fixed(self) -> list[Computation | None]:
        """The nodes that do the same at all plans; None for those that a plan decides on, and for norms."""
        order = self.order
        return [
            None if node.name in self.norms or follows_plan(node, order.dims) else self.computation(node, self.widest)
            for node in order.graph.nodes
        ]

    def computation(self, node: Node, sizing: Sizing) -> Computation:
        """A node at a plan."""
        action = operation(node, *sizing.call(node), self.number)
        return Computation(_compute(self.order, action), len(node.outputs) > 1 or gives_list(action.function))

    @cached_property
    def extents(self) -> tuple[list[Slimmed], dict[str, list[int | None]]]:
        """The dimensions that plans decide the size of, different ones, and which of them every stored tensor has, by its
        name."""
        numbers: dict[Slimmed, int] = {}
        dims = {
            parameter.name: [
                numbers.setdefault(extent, len(numbers)) if isinstance(extent, Slimmed) else None
                for extent in self.order.dims[Value(parameter.node)]
            ]
            for parameter in self.order.graph.parameters
            if parameter.name in self.places
        }
        return [*numbers], dims

    def cuts(self, channels: Mapping[str, int], device: torch.device) -> dict[str, Cut]:
        """What stays of every stored tensor under `channels`, by its name."""
        extents, dims = self.extents
        kept: list[Kept | None] = [
            None if extent.active(channels) == extent.active(self.widest.channels) else kept_of(extent, channels, device)
            for extent in extents
        ]
        return {name: Cut.of([None if i is None else kept[i] for i in numbers]) for name, numbers in dims.items()}


@dataclass(frozen=True)
class Prepared:
    """A graph at one plan: `steps`, one for every node; `cuts`: what stays of every stored tensor, by its name."""

    steps: tuple[Step, ...]
    cuts: Mapping[str, Cut]


def prepared(layout: Layout, sizing: Sizing, device: torch.device) -> Prepared:
    """The graph of `layout` at the plan of `sizing`, for tensors on `device`."""
    order, cuts, steps = layout.order, layout.cuts(sizing.channels, device), []
    for node, fixed, loads, drops in zip(order.graph.nodes, layout.fixed, order.loads, order.drops, strict=True):
        outs = [order.slots[value] for value in results(node)]
        if node.name in layout.norms:
            steps.append(_norm(layout.norms[node.name], order.slots[node.inputs[0]], outs[0], drops))
            continue
        names = [(order.slots[value], order.graph.by_node[value.node].name) for value in loads]
        stored = tuple((slot, *layout.places[name], cuts[name]) for slot, name in names)
        steps.append(_step(fixed or layout.computation(node, sizing), stored, outs, tuple(drops)))
    return Prepared(tuple(steps), cuts)


def _norm(norm: nn.Module, x: int, out: int, drops: Sequence[int]) -> Step:
    def step(slots: Slots, run: Run) -> None:
        slots[out] = norm(slots[x])
        for slot in drops:
            slots[slot] = None

    return step


def _step(computation: Computation, stored: Sequence[Stored], outs: Sequence[int], drops: Sequence[int]) -> Step:
    compute, out = computation.compute, outs[0]

    def step(slots: Slots, run: Run) -> None:
        for slot, table, name, cut in stored:
            slots[slot] = cut(table[name])
        slots[out] = compute(slots, run)
        for slot in drops:
            slots[slot] = None

    def step_of_several(slots: Slots, run: Run) -> None:
        for slot, table, name, cut in stored:
            slots[slot] = cut(table[name])
        for slot, result in zip(outs, compute(slots, run), strict=True):
            slots[slot] = result
        for slot in drops:
            slots[slot] = None

    return step_of_several if computation.several else step


def gives_list(function: Callable[..., Any]) -> bool:
    """Whether an operator's results come in a list, even where it is one."""
    schema = getattr(function, "_schema", None)
    return schema is not None and (len(schema.returns) > 1 or isinstance(schema.returns[0].type, torch.ListType))


def _compute(order: Order, action: Operation) -> Callable[[Slots, Run], Any]:
    """What an operation gives, from the slots of its arguments."""
    node = action.node
    function = DIRECT.get(action.function, action.function)
    arguments: list[Any] = [_slotted(argument, order) for argument in action.positional]
    named = {name: _slotted(argument, order) for name, argument in action.named.items()}
    if node.name in order.in_place:
        return _activation(node, function, arguments)
    if node.kind == DROP_PATH or node.kind in DROPOUTS:
        return _dropping(node, function, arguments)
    if node.kind in CREATING or any(map(_varies, named.values())) or any(map(_varies_inside, arguments)):
        return _general(function, arguments, named, node.kind in CREATING)
    template = [None if isinstance(argument, Slot) else argument for argument in arguments]
    holes = tuple((position, argument.number) for position, argument in enumerate(arguments) if isinstance(argument, Slot))

    def compute(slots: Slots, run: Run) -> Any:
        filled = template.copy()
        for position, slot in holes:
            filled[position] = slots[slot]
        return function(*filled, **named)

    return compute


def _slotted(argument: Argument, order: Order) -> Any:
    """An argument with slots in place of values."""
    if isinstance(argument, Value):
        return Slot(order.slots[argument])
    return [_slotted(part, order) for part in argument] if isinstance(argument, tuple) else argument


def _varies(argument: Any) -> bool:
    """Whether an argument is known only when the graph runs: a tensor, or a size that counts images."""
    return isinstance(argument, Slot | Batch) or _varies_inside(argument)


def _varies_inside(argument: Any) -> bool:
    return isinstance(argument, Batch) or (isinstance(argument, list) and any(map(_varies, argument)))


def _filled(argument: Any, slots: Slots, run: Run) -> Any:
    """An argument with tensors and numbers in it."""
    if isinstance(argument, Slot):
        return slots[argument.number]
    if isinstance(argument, list):
        return [_filled(part, slots, run) for part in argument]
    if argument is TRAINING:
        return run.training
    return argument.at(run.batch) if isinstance(argument, Batch) else argument


def _general(
    function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any], creates: bool
) -> Callable[[Slots, Run], Any]:
    """With tensors in lists, or sizes that count images; or of what reads no tensor that would say where to compute."""

    def compute(slots: Slots, run: Run) -> Any:
        filled = {name: _filled(argument, slots, run) for name, argument in named.items()}
        if creates:
            filled["device"] = run.device
        return function(*[_filled(argument, slots, run) for argument in arguments], **filled)

    return compute


def _activation(node: Node, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[Slots, Run], Any]:
    """What may change its input in place."""
    x, settings = arguments[0].number, arguments[1:]
    in_place, by_result = CHANGING[node.op], node.op in BY_RESULT

    def compute(slots: Slots, run: Run) -> Any:
        return (in_place if by_result or not run.gradients else function)(slots[x], *settings)

    return compute


def _dropping(node: Node, function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[Slots, Run], Any]:
    """What drops something in training, and does nothing otherwise."""
    x, share, mode = arguments[0].number, arguments[1], arguments[2]

    def drop(slots: Slots, run: Run) -> Any:
        return function(slots[x], share, True) if run.training else slots[x]

    def drop_branch(slots: Slots, run: Run) -> Any:
        return drop_path(slots[x], share, mode == "batch") if run.training else slots[x]

    return drop_branch if node.kind == DROP_PATH else drop
