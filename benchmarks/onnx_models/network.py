"""Whole networks of any plan as ONNX models with random weights, batch norms folded. No torch: read off the graph that the
architecture's table writes. Unlike an export this takes plans that no trained network has statistics for, and milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.onnx_models import random_graph
from benchmarks.onnx_models.random_graph import RandomGraph
from slimtrain.base.image_size import ImageSize
from slimtrain.graph.graph import Node, Value
from slimtrain.graph.sizes import Sizing
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec

Maps = list[random_graph.Value]


def network_model(spec: NetworkSpec, plan: ChannelPlan, image_size: ImageSize, seed: int = 0) -> bytes:
    """The network of `plan`: input [batch, channels, height, width], output [batch, classes]."""
    graph, sizing = RandomGraph(image_size, seed, spec.in_channels), spec.sizing(plan, image_size)
    maps = {Value(name): graph.image for name, _ in sizing.graph.inputs}
    for node in sizing.graph.nodes:
        sources = [maps[value] for value in node.inputs if value in maps]
        results = FORMS[node.kind](graph, sources, _Numbers(sizing, node))
        maps |= {Value(node.name, index): result for index, result in enumerate(results)}
    (output,) = sizing.graph.outputs
    return graph.model(maps[output])


@dataclass(frozen=True)
class _Numbers:
    """The numbers of a node at a plan."""

    sizing: Sizing
    node: Node

    def argument(self, name: str) -> int:
        """An argument, the first of two alike."""
        value = self.node.arguments[name]
        if isinstance(value, tuple):
            value, _ = value
        assert isinstance(value, int)
        return value

    def size(self, value: Value, dim: int) -> int:
        size = self.sizing.shape(value)[dim]
        assert isinstance(size, int)
        return size

    @property
    def features(self) -> int:
        """Channels that it makes."""
        return self.size(Value(self.node.name), 1)


Form = Callable[[RandomGraph, Maps, _Numbers], Maps]


def _conv(graph: RandomGraph, sources: Maps, numbers: _Numbers) -> Maps:
    kernel = numbers.size(numbers.node.inputs[1], -1)
    depthwise = numbers.argument("groups") != 1
    return [graph.conv(sources[0], numbers.features, kernel, numbers.argument("stride"), depthwise)]


def _pool(operator: str, **attributes: int) -> Form:
    def form(graph: RandomGraph, sources: Maps, numbers: _Numbers) -> Maps:
        kernel, stride, padding = map(numbers.argument, ("kernel_size", "stride", "padding"))
        return [graph.pool(sources[0], operator, kernel, stride, padding, **attributes)]

    return form


def _same(graph: RandomGraph, sources: Maps, numbers: _Numbers) -> Maps:
    """Norms are folded; the global average pool is the classifier's."""
    return sources


FORMS: dict[str, Form] = {
    "conv2d": _conv,
    "batch_norm": _same,
    "relu": lambda graph, sources, numbers: [graph.activation(sources[0], "relu")],
    "hardtanh": lambda graph, sources, numbers: [graph.activation(sources[0], "relu6")],
    "max_pool2d": _pool("MaxPool"),
    "avg_pool2d": _pool("AveragePool", count_include_pad=1),
    "channel_shuffle": lambda graph, sources, numbers: [graph.shuffle(sources[0], numbers.argument("groups"))],
    "chunk": lambda graph, sources, numbers: graph.split(sources[0], numbers.argument("chunks")),
    "cat": lambda graph, sources, numbers: [graph.concat(sources)],
    "add": lambda graph, sources, numbers: [graph.add(*sources)],
    "adaptive_avg_pool2d": _same,
    "flatten": _same,
    "linear": lambda graph, sources, numbers: [graph.linear(sources[0], numbers.features)],
}
