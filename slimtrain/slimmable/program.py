"""A graph made ready to run at one plan: operators with their arguments, and what of every stored tensor they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slimtrain.graph.graph import Argument, Batch, Graph, Node, TensorType, Value
from slimtrain.graph.recurrence import GATES, check_recurrent
from slimtrain.graph.sizes import Sizing
from slimtrain.slimmable.plan_positions import Cut, cut_of

DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
CREATING = ("zeros", "ones", "full", "empty", "arange", "scalar_tensor")  # on a device that nothing they read tells
COMPUTED = "float32"  # a graph is traced in it; a network of another number type computes in its own


class Training:
    """Stands for the argument of a recurrent layer that says whether it drops between its layers."""


TRAINING: Any = Training()


class Run(NamedTuple):
    """What a forward pass knows beside its tensors. `gradients`: whether they may be asked for afterwards."""

    batch: int
    training: bool
    device: torch.device
    gradients: bool = True


@dataclass(frozen=True)
class Operation:
    """An operator of a node, called with `positional` and `named` arguments, in which values stand as themselves. `drops`: the
    values that nothing reads afterwards."""

    node: Node
    function: Callable[..., Any]
    positional: tuple[Argument, ...]
    named: Mapping[str, Argument]
    drops: tuple[Value, ...] = ()

    def __call__(self, values: dict[Value, Tensor], run: Run) -> Any:
        node = self.node
        if node.kind == DROP_PATH:
            x, share, mode = self.positional
            return drop_path(values[x], share, mode == "batch") if run.training else values[x]  # type: ignore[index, arg-type]
        if node.kind in DROPOUTS:
            x, share, _ = self.positional
            return self.function(values[x], share, run.training)  # type: ignore[index]
        named: dict[str, Any] = {name: _filled(argument, values, run) for name, argument in self.named.items()}
        if node.kind in CREATING:
            named["device"] = run.device
        return self.function(*[_filled(argument, values, run) for argument in self.positional], **named)


def _filled(argument: Argument, values: Mapping[Value, Tensor], run: Run) -> Any:
    """An argument with tensors and numbers in it."""
    if isinstance(argument, Value):
        return values[argument]
    if argument is TRAINING:
        return run.training
    if isinstance(argument, tuple):
        return [_filled(part, values, run) for part in argument]
    return argument.at(run.batch) if isinstance(argument, Batch) else argument


TORCHVISION = ("roi_align",)  # operators that are torchvision's
OURS = ("non_maximum_suppression", "efficient_nms")  # entered into torch by those who write them into graphs


def operator(op: str) -> Any:
    """An ATen operator, or one of torchvision's, by the graph's name of it: `conv2d`, `add.Tensor`."""
    kind, _, overload = op.partition(".")
    if kind in OURS:
        return getattr(getattr(torch.ops.slimtrain, kind), overload or "default")
    if kind in TORCHVISION:
        import torchvision  # noqa: F401  it enters them

        return getattr(getattr(torch.ops.torchvision, kind), overload or "default")
    return getattr(getattr(torch.ops.aten, kind), overload or "default")


CHECKED_BATCH = 3  # images that a graph of a file is gone through with
DROP_PATH = "drop_path"  # of ours: stochastic depth, which leaves nothing in a graph of torch's


def drop_path(x: Tensor, share: float, together: bool) -> Tensor:
    """Stochastic depth (arXiv 1603.09382): a `share` of images becomes 0, or of batches where they go `together`; what stays
    is scaled, so that its mean stays."""
    keep = 1 - share
    size = [1 if together else x.shape[0], *[1] * (x.ndim - 1)]
    drawn = torch.empty(size, dtype=x.dtype, device=x.device).bernoulli_(keep)
    return x * (drawn / keep if keep else drawn)


def check_operators(graph: Graph) -> None:
    """ValueError unless every operator of `graph` is one of torch's that computes from its arguments and changes nothing."""
    for node in graph.nodes:
        if node.op == DROP_PATH and node.arguments.keys() == {"input", "p", "mode"}:
            continue
        try:
            schema = operator(node.op)._schema
        except AttributeError as error:
            raise ValueError(f"{node.op} is no operator of torch {torch.__version__}") from error
        gives = [str(part.type) for part in schema.returns]
        computes = bool(gives) and all("Tensor" in part for part in gives) and (node.inputs or node.kind in CREATING)
        known = {argument.name for argument in schema.arguments} >= node.arguments.keys()
        if schema.is_mutable or not computes or not known:
            raise ValueError(f"{node.name}: {node.op} is no operator of a network")
        check_recurrent(node)


def check_types(graph: Graph) -> None:
    """ValueError unless every node gives the shapes that the graph says; nothing is computed. Raises what torch does for
    arguments that an operator cannot have."""
    with torch.device("meta"):
        values = {Value(name): _empty(type_) for name, type_ in graph.inputs}
        values |= {Value(p.node): _empty(p.type) for p in graph.parameters}
        run = Run(CHECKED_BATCH, False, torch.device("meta"))
        for node in graph.nodes:
            keep(values, node, operation(node, *as_traced(node))(values, run))
            for output, type_ in enumerate(node.outputs):
                shape = tuple(values[Value(node.name, output)].shape)
                if shape != type_.at(CHECKED_BATCH):
                    raise ValueError(f"{node.name} gives {list(shape)}, not {list(type_.at(CHECKED_BATCH))}")


def _empty(type_: TensorType) -> Tensor:
    return torch.empty(type_.at(CHECKED_BATCH), dtype=getattr(torch, type_.dtype), device="meta")


def operation(
    node: Node, op: str, arguments: Mapping[str, Argument], number: torch.dtype = torch.float32, drops: Sequence[Value] = ()
) -> Operation:
    """`node` called as `op` with `arguments`. `number`: what the network computes in, in place of the float32 that it was
    traced in."""
    if op == DROP_PATH:
        return Operation(node, drop_path, tuple(arguments[name] for name in ("input", "p", "mode")), {}, tuple(drops))
    function = operator(op)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument in function._schema.arguments:
        value: Any = arguments.get(argument.name)
        if argument.name == "dtype" and isinstance(value, str):
            value = number if value == COMPUTED else getattr(torch, value)
        if argument.name == "dtype" and value is None and node.kind in CREATING and node.outputs[0].dtype == COMPUTED:
            value = number  # torch's own default is what the graph was traced in
        if argument.name == "momentum" and value is None:
            value = 0.0  # of a norm that averages all batches alike: in evaluation it is of no account
        if argument.name == "train" and node.kind in GATES:
            value = TRAINING
        if not argument.kwarg_only:
            positional.append(value)
        elif value is not None:
            named[argument.name] = value
    return Operation(node, GUARDED.get(node.kind, function), tuple(positional), named, tuple(drops))


def pooled_regions(maps: Tensor, regions: Tensor, *how: Any) -> Tensor:
    """torchvision's RoIAlign, which reads whatever memory a region of an image that is not there, or of no number, points at:
    a graph may be a stranger's. Such regions are of the nearest image, and of zeros."""
    numbers = regions.nan_to_num()
    images = numbers[:, :1].clamp(0, max(maps.shape[0] - 1, 0))
    pooled: Tensor = torch.ops.torchvision.roi_align(maps, torch.cat([images, numbers[:, 1:]], 1), *how)
    return pooled


GUARDED = {"roi_align": pooled_regions}


def as_traced(node: Node) -> tuple[str, Mapping[str, Argument]]:
    """A node's own operator and arguments. Views become reshapes: in another number format or memory layout than it was traced
    in, an operator may lay its result out so that there is no view of it."""
    if node.op in ("view", "_unsafe_view"):
        return "reshape", {"self": node.arguments["self"], "shape": node.arguments["size"]}
    return node.op, node.arguments


def drops(graph: Graph) -> list[list[Value]]:
    """For every node the values that it is the last to read."""
    last: list[list[Value]] = [[] for _ in range(len(graph.nodes) + 1)]
    stored = graph.by_node
    for name, index in graph.last_use.items():
        if name not in stored:
            outputs = len(graph.by_name[name].outputs) if name in graph.by_name else 1
            last[index] += [Value(name, output) for output in range(outputs)]
    return last[:-1]


@dataclass(frozen=True)
class Program:
    """A graph at one plan. `cuts`: what stays of every parameter, by its name."""

    graph: Graph
    operations: tuple[Operation, ...]
    cuts: Mapping[str, Cut]

    @staticmethod
    def of(sizing: Sizing, number: torch.dtype = torch.float32) -> Program:
        """The program of a graph at a plan."""
        graph = sizing.graph
        operations = [
            operation(node, *sizing.call(node), number, unread) for node, unread in zip(graph.nodes, drops(graph), strict=True)
        ]
        cuts = {parameter.name: cut_of(sizing, Value(parameter.node)) for parameter in graph.parameters}
        return Program(graph, tuple(operations), cuts)

    @staticmethod
    def full(graph: Graph, number: torch.dtype = torch.float32) -> Program:
        """The program of a graph as it was traced."""
        operations = [
            operation(node, *as_traced(node), number, unread) for node, unread in zip(graph.nodes, drops(graph), strict=True)
        ]
        return Program(graph, tuple(operations), {p.name: Cut() for p in graph.parameters})

    def run(self, images: Sequence[Tensor], tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs in evaluation mode; `tensors` are full-size parameters by name."""
        values = {Value(name): x for (name, _), x in zip(self.graph.inputs, images, strict=True)}
        values |= {Value(p.node): self.cuts[p.name](tensors[p.name]) for p in self.graph.parameters}
        run = Run(images[0].shape[0], False, images[0].device)
        for action in self.operations:
            keep(values, action.node, action(values, run))
            for value in action.drops:
                values.pop(value, None)
        return [values[value] for value in self.graph.outputs]


def keep(values: dict[Value, Tensor], node: Node, result: Any) -> None:
    """Enter what a node gives among the values."""
    if isinstance(result, tuple | list):
        for index, output in enumerate(result):
            values[Value(node.name, index)] = output
    else:
        values[Value(node.name)] = result
