"""Nodes of a graph as the `torch.nn` layers that they came from: what a dense network shows, and what other tools look for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimtrain.graph.graph import Graph, Node, Value
from slimtrain.graph.order import BY_RESULT
from slimtrain.graph.sizes import Sizing

AFFINE, RUNNING = ("weight", "bias"), ("running_mean", "running_var")
Arguments = Mapping[str, Any]
Tensors = Mapping[str, Tensor]  # of one layer, by their names there


@dataclass(frozen=True)
class Layer:
    """A node as a module. `path`: the user's; `stored`: the parameters of the graph that it holds, by their names in it."""

    path: str
    module: nn.Module
    stored: Mapping[str, str]


def layers_of(sizing: Sizing, tensors: Tensors, in_place: frozenset[str]) -> dict[str, Layer]:
    """Node -> layer, for the nodes that are some: alone in their module, which holds no others, and alone in reading what they
    store. `tensors`: the graph's, sliced, by name; `in_place`: nodes whose input nothing else reads."""
    graph = sizing.graph
    paths = Counter(node.module for node in graph.nodes)
    outer = {path[:end] for path in paths for end, sign in enumerate(path) if sign == "."}
    outer |= {name.rpartition(".")[0] for name in _names_below(graph)}
    readers = Counter(value.node for node in graph.nodes for value in node.inputs) + Counter(v.node for v in graph.outputs)
    layers = {}
    for node in graph.nodes:
        path = node.module
        if node.kind not in LAYERS or not path or paths[path] > 1 or path in outer:
            continue
        stored = dict(_stored(graph, node))
        own = all(name == f"{path}.{entry}" for entry, name in stored.items())
        if not own or any(readers[value.node] > 1 for value in node.inputs[1:]) or len(stored) != len(node.inputs) - 1:
            continue
        _, arguments = sizing.call(node)
        options = {**arguments, "in_place": node.name in in_place and node.op in BY_RESULT}
        held = {entry: tensors[name].detach() for entry, name in stored.items()}
        rank = len(sizing.shape(node.inputs[0]))
        with torch.device("meta"):
            module = LAYERS[node.kind](held, options, rank)
        if module is not None:
            layers[node.name] = Layer(path, _filled(module, held), stored)
    return layers


def _names_below(graph: Graph) -> Iterator[str]:
    """Modules that hold modules with parameters."""
    for parameter in graph.parameters:
        path = parameter.name.rpartition(".")[0]
        if "." in path:
            yield path


def _stored(graph: Graph, node: Node) -> Iterator[tuple[str, str]]:
    for entry in (*AFFINE, *RUNNING):
        value = node.arguments.get(entry)
        if isinstance(value, Value) and value.node in graph.by_node:
            yield entry, graph.by_node[value.node].name


def _filled(module: nn.Module, tensors: Tensors) -> nn.Module:
    for entry, tensor in tensors.items():
        own = tensor.clone(memory_format=torch.contiguous_format)
        if entry in module._buffers:
            module._buffers[entry] = own
        else:
            module._parameters[entry] = nn.Parameter(own)
    if "num_batches_tracked" in module._buffers:
        module._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    return module.eval()


Form = Callable[[Tensors, Arguments, int], nn.Module | None]


def _convolution(kind: type[Any]) -> Form:
    def layer(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module | None:
        if "weight" not in tensors or isinstance(arguments["padding"], str):
            return None
        weight, groups = tensors["weight"], arguments["groups"]
        geometry = {name: tuple(arguments[name]) for name in ("stride", "padding", "dilation")}
        bias = "bias" in tensors
        module: nn.Module = kind(
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), groups=groups, bias=bias, **geometry
        )
        return module

    return layer


def _linear(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module | None:
    weight = tensors.get("weight")
    return None if weight is None else nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in tensors)


def _batch_norm(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module | None:
    kind: type[Any] | None = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(rank)
    if kind is None or not tensors.keys() >= set(RUNNING) or len(tensors) not in (2, 4) or arguments["training"]:
        return None
    mean = tensors["running_mean"]
    module: nn.Module = kind(len(mean), arguments["eps"], arguments["momentum"], affine="weight" in tensors)
    return module


def _layer_norm(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module | None:
    if "weight" not in tensors:
        return None
    return nn.LayerNorm(arguments["normalized_shape"], arguments["eps"], bias="bias" in tensors)


def _hardtanh(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module:
    low, high = arguments["min_val"], arguments["max_val"]
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _max_pool(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module:
    names = ("kernel_size", "stride", "padding", "dilation")
    kernel, stride, padding, dilation = (tuple(arguments[name]) for name in names)
    return nn.MaxPool2d(kernel, stride or kernel, padding, dilation, ceil_mode=arguments["ceil_mode"])


def _average_pool(tensors: Tensors, arguments: Arguments, rank: int) -> nn.Module:
    kernel, stride, padding = (tuple(arguments[name]) for name in ("kernel_size", "stride", "padding"))
    options = {name: arguments[name] for name in ("ceil_mode", "count_include_pad", "divisor_override")}
    return nn.AvgPool2d(kernel, stride or kernel, padding, **options)


LAYERS: dict[str, Form] = {
    "conv1d": _convolution(nn.Conv1d),
    "conv2d": _convolution(nn.Conv2d),
    "conv3d": _convolution(nn.Conv3d),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": lambda tensors, arguments, rank: nn.ReLU(arguments["in_place"]),
    "hardtanh": _hardtanh,
    "hardswish": lambda tensors, arguments, rank: nn.Hardswish(),
    "hardsigmoid": lambda tensors, arguments, rank: nn.Hardsigmoid(),
    "silu": lambda tensors, arguments, rank: nn.SiLU(),
    "sigmoid": lambda tensors, arguments, rank: nn.Sigmoid(),
    "gelu": lambda tensors, arguments, rank: nn.GELU(arguments["approximate"]),
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": lambda tensors, arguments, rank: nn.AdaptiveAvgPool2d(tuple(arguments["output_size"])),
    "channel_shuffle": lambda tensors, arguments, rank: nn.ChannelShuffle(arguments["groups"]),
    "flatten": lambda tensors, arguments, rank: nn.Flatten(arguments["start_dim"], arguments["end_dim"]),
}
