"""Whole networks of any plan as ONNX models with random weights, batch norms folded. No torch: the architecture's own loop
writes the graph. Unlike an export this takes plans that no trained network has statistics for, and milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.onnx_models.random_graph import RandomGraph, Value
from slimtrain.base.image_size import ImageSize
from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

GraphStep = Callable[[RandomGraph, Value], Value]


def network_model(spec: NetworkSpec, plan: ChannelPlan, image_size: ImageSize, seed: int = 0) -> bytes:
    """The network of `plan`: input [batch, channels, height, width], output [batch, classes]."""
    graph = RandomGraph(image_size, seed, spec.in_channels)
    return graph.model(spec.build(_OnnxLayers(plan))(graph, graph.image))


def _keep(graph: RandomGraph, value: Value) -> Value:
    return value


class _OnnxLayers(Layers[GraphStep]):
    """Layers that add themselves to a graph, at the size of one plan."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.size = plan.size

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> GraphStep:
        return lambda graph, value: graph.conv(value, self.size(out), kernel, stride)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> GraphStep:
        return lambda graph, value: graph.conv(value, self.size(dim), kernel, stride, depthwise=True)

    def norm(self, dim: Dim) -> GraphStep:
        return _keep

    def relu(self) -> GraphStep:
        return lambda graph, value: graph.activation(value, "relu")

    def relu6(self) -> GraphStep:
        return lambda graph, value: graph.activation(value, "relu6")

    def max_pool(self, kernel: int, stride: int, padding: int) -> GraphStep:
        return lambda graph, value: graph.pool(value, "MaxPool", kernel, stride, padding)

    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> GraphStep:
        return lambda graph, value: graph.pool(value, "AveragePool", kernel, stride, padding, count_include_pad=1)

    def shuffle(self, groups: int) -> GraphStep:
        return lambda graph, value: graph.shuffle(value, groups)

    def sequential(self, modules: Sequence[GraphStep]) -> GraphStep:
        def step(graph: RandomGraph, value: Value) -> Value:
            for module in modules:
                value = module(graph, value)
            return value

        return step

    def block(self, body: GraphStep, residual: bool) -> GraphStep:
        return (lambda graph, value: graph.add(value, body(graph, value))) if residual else body

    def bottleneck(self, body: GraphStep, shortcut: GraphStep | None) -> GraphStep:
        def step(graph: RandomGraph, value: Value) -> Value:
            inner = body(graph, value)
            return graph.activation(graph.add(inner, value if shortcut is None else shortcut(graph, value)), "relu")

        return step

    def shuffle_unit(
        self, a: Sequence[GraphStep], b: GraphStep, c: Sequence[GraphStep], pool: GraphStep | None, whole: bool
    ) -> GraphStep:
        def step(graph: RandomGraph, value: Value) -> Value:
            parts = [value] * len(a) if whole else graph.split(value, len(a))
            inner = b(graph, graph.concat([layer(graph, part) for layer, part in zip(a, parts, strict=True)]))
            outer = graph.concat([layer(graph, part) for layer, part in zip(c, graph.split(inner, len(c)), strict=True)])
            if pool is None:
                return graph.activation(graph.add(value, outer), "relu")
            return graph.concat([graph.activation(outer, "relu"), pool(graph, value)])

        return step

    def network(self, features: Sequence[GraphStep], out: Dim, classes: int, heads: Sequence[GraphStep] = ()) -> GraphStep:
        def step(graph: RandomGraph, value: Value) -> Value:
            if heads:
                value = graph.concat([head(graph, value) for head in heads])
            return graph.linear(self.sequential(features)(graph, value), classes)

        return step
