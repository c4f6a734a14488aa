"""A network at one plan as an ordinary, smaller module: `torch.nn` layers where the graph's nodes are some, ATen operators
between them, with tensors of their own. It runs, saves and loads where this package is not installed."""

from __future__ import annotations

import keyword
import operator as python
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from slimtrain.graph.graph import PARAMETER, Argument, Batch, Value
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.dense_layers import layers_of
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.norms import PlanNorm
from slimtrain.slimmable.program import CREATING, TRAINING, Program

SPLITS = ("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_split", "unsafe_chunk")  # give lists
AFFINE_AND_RUNNING = ("weight", "bias", "running_mean", "running_var")


class Switching(Protocol):
    """A slimmable network, as it is seen here."""

    @property
    def body(self) -> GraphBody: ...

    @property
    def norms(self) -> Mapping[str, PlanNorm]: ...

    def at(self, plan: ChannelPlan) -> AbstractContextManager[Any]: ...


def stored_tensors(network: Switching, plan: ChannelPlan) -> dict[str, Tensor]:
    """Every tensor of the graph at `plan`, sliced, by the user's names; norms with the plan's scale, shift and statistics.

    LookupError where the plan has no statistics.
    """
    body = network.body
    with network.at(plan), torch.no_grad():
        tensors = {name: body.sliced(name) for name in body.places}
        for norm in body.of_nodes.values():
            module = network.norms[norm.path]
            values = (*module.scale_and_shift(), *module.statistics())
            for entry, tensor in zip(AFFINE_AND_RUNNING, values, strict=True):
                if entry in norm.stored:
                    tensors[norm.stored[entry].name] = tensor
    return tensors


def graph_dense(network: Switching, plan: ChannelPlan, dtype: torch.dtype | None = None) -> fx.GraphModule:
    """The dense network of `plan`, in evaluation mode: what the user's module takes -> what it gives. `dtype` (default: the
    network's). LookupError where the plan has no statistics."""
    body = network.body
    spec = body.spec
    tensors = stored_tensors(network, plan)
    number = dtype or next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    tensors = {name: t.to(number) if t.is_floating_point() else t for name, t in tensors.items()}
    root, sizing = nn.Module(), spec.sizing(plan)
    layers = layers_of(sizing, tensors, body.order.in_place)
    held = {name for layer in layers.values() for name in layer.stored.values()}
    by_path = {layer.path: layer.module for layer in layers.values()}
    for parameter in spec.graph.parameters:  # in the user's order
        path = parameter.name.rpartition(".")[0]
        if parameter.name in held and path in by_path:
            _inside(root, attribute(path)).add_module(attribute(path).rpartition(".")[2], by_path.pop(path))
        elif parameter.name not in held:
            tensor = tensors[parameter.name].detach().clone(memory_format=torch.contiguous_format)
            _place(root, attribute(parameter.name), tensor, parameter.kind == PARAMETER)
    for path, module in by_path.items():
        _inside(root, attribute(path)).add_module(attribute(path).rpartition(".")[2], module)
    graph = _fx_graph(Program.of(sizing, number), {node: layer.path for node, layer in layers.items()}, held)
    dense = fx.GraphModule(root, graph, class_name=f"{spec.name}_{plan.name}")
    dense.graph.eliminate_dead_code()
    dense.recompile()
    for table, ordered in (
        (dense._modules, root._modules),
        (dense._parameters, root._parameters),
        (dense._buffers, root._buffers),
    ):
        table.clear()  # it has them in the order in which they run
        table.update(ordered)  # type: ignore[arg-type]
    return dense.eval()


def attribute(name: str) -> str:
    """A user's name as one that generated code can hold: `blocks.0.weight` stays, `in` becomes `in_`."""
    first, *rest = name.split(".")
    if hasattr(fx.GraphModule, first) or first in ("graph", "meta", "training"):
        first = f"{first}_"
    return ".".join(f"{part}_" if keyword.iskeyword(part) else part for part in (first, *rest))


def _inside(root: nn.Module, name: str) -> nn.Module:
    """The module that is to hold a name, made where it is not there yet."""
    for part in name.split(".")[:-1]:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part] or root
    return root


def _place(root: nn.Module, name: str, tensor: Tensor, trained: bool) -> None:
    root, last = _inside(root, name), name.rpartition(".")[2]
    if trained and tensor.is_floating_point():
        root.register_parameter(last, nn.Parameter(tensor))
    else:
        root.register_buffer(last, tensor)


def _fx_graph(program: Program, layers: Mapping[str, str], held: set[str]) -> fx.Graph:
    """The program as a graph of torch's, sizes that count images read off the first input. `layers`: nodes that are modules,
    with their paths; `held`: the parameters that these hold."""
    ours, graph = program.graph, fx.Graph()
    nodes: dict[Value, fx.Node] = {Value(name): graph.placeholder(name) for name, _ in ours.inputs}
    first = nodes[Value(ours.inputs[0][0])]
    nodes |= {Value(p.node): graph.get_attr(attribute(p.name)) for p in ours.parameters if p.name not in held}
    batch: list[fx.Node] = []

    def counted(size: Batch) -> fx.Node:
        if not batch:
            batch.append(graph.call_function(torch.ops.aten.sym_size.int, (first, 0)))
        return batch[0] if size.factor == 1 else graph.call_function(python.mul, (batch[0], size.factor))

    def filled(argument: Argument) -> Any:
        if isinstance(argument, Value):
            return nodes[argument]
        if isinstance(argument, Batch):
            return counted(argument)
        if argument is TRAINING:
            return False
        return [filled(part) for part in argument] if isinstance(argument, tuple) else argument

    for operation in program.operations:
        node = operation.node
        if node.name in layers:
            nodes[Value(node.name)] = graph.call_module(attribute(layers[node.name]), (nodes[node.inputs[0]],))
            continue
        positional = [_one_unknown(a) if node.kind in ("view", "reshape") else a for a in operation.positional]
        named: Mapping[str, Any] = {name: filled(a) for name, a in operation.named.items()}
        if node.kind in CREATING:
            named = {**named, "device": graph.call_function(getattr, (first, "device"))}
        result = graph.call_function(operation.function, tuple(filled(a) for a in positional), dict(named))
        result.meta["module"] = node.module
        if len(node.outputs) == 1 and node.kind not in SPLITS:
            nodes[Value(node.name)] = result
        else:
            for index in range(len(node.outputs)):
                nodes[Value(node.name, index)] = graph.call_function(python.getitem, (result, index))
    graph.output(ours.given([nodes[value] for value in ours.outputs]))
    return graph


def _one_unknown(argument: Argument) -> Argument:
    """A shape in which one size alone counts images: -1 says it without asking for the batch."""
    if isinstance(argument, tuple) and sum(isinstance(size, Batch) for size in argument) == 1:
        return tuple(-1 if isinstance(size, Batch) else size for size in argument)
    return argument
