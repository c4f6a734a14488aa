"""Whole networks of any plan as ONNX models with random weights, batch norms folded. No torch: the architecture's own loop
writes the graph. Unlike an export this takes plans that no trained network has statistics for, and milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.onnx_models.random_graph import RandomGraph, Value
from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

Step = Callable[[RandomGraph, Value], Value]


def network_model(spec: NetworkSpec, plan: ChannelPlan, image_size: int, seed: int = 0) -> bytes:
    """The network of `plan`: input [batch, 3, image_size, image_size], output [batch, classes]."""
    graph = RandomGraph(image_size, seed)
    return graph.model(spec.build(_OnnxLayers(plan))(graph, graph.image))


def _keep(graph: RandomGraph, value: Value) -> Value:
    return value


class _OnnxLayers(Layers[Step]):
    """Layers that add themselves to a graph, at the size of one plan."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.size = plan.size

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> Step:
        return lambda graph, value: graph.conv(value, self.size(out), kernel, stride)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> Step:
        return lambda graph, value: graph.conv(value, self.size(dim), kernel, stride, depthwise=True)

    def norm(self, dim: Dim) -> Step:
        return _keep

    def relu(self) -> Step:
        return lambda graph, value: graph.activation(value, "relu")

    def relu6(self) -> Step:
        return lambda graph, value: graph.activation(value, "relu6")

    def max_pool(self, kernel: int, stride: int, padding: int) -> Step:
        return lambda graph, value: graph.pool(value, "MaxPool", kernel, stride, padding)

    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> Step:
        return lambda graph, value: graph.pool(value, "AveragePool", kernel, stride, padding, count_include_pad=1)

    def shuffle(self, groups: int) -> Step:
        return lambda graph, value: graph.shuffle(value, groups)

    def sequential(self, modules: Sequence[Step]) -> Step:
        def step(graph: RandomGraph, value: Value) -> Value:
            for module in modules:
                value = module(graph, value)
            return value

        return step

    def block(self, body: Step, residual: bool) -> Step:
        return (lambda graph, value: graph.add(value, body(graph, value))) if residual else body

    def bottleneck(self, body: Step, shortcut: Step | None) -> Step:
        def step(graph: RandomGraph, value: Value) -> Value:
            made = body(graph, value)
            return graph.activation(graph.add(made, value if shortcut is None else shortcut(graph, value)), "relu")

        return step

    def shuffle_unit(self, a: Sequence[Step], b: Step, c: Sequence[Step], pool: Step | None, whole: bool) -> Step:
        def step(graph: RandomGraph, value: Value) -> Value:
            parts = [value] * len(a) if whole else graph.split(value, len(a))
            inner = b(graph, graph.concat([each(graph, part) for each, part in zip(a, parts, strict=True)]))
            made = graph.concat([each(graph, part) for each, part in zip(c, graph.split(inner, len(c)), strict=True)])
            if pool is None:
                return graph.activation(graph.add(value, made), "relu")
            return graph.concat([graph.activation(made, "relu"), pool(graph, value)])

        return step

    def network(self, features: Sequence[Step], out: Dim, classes: int, heads: Sequence[Step] = ()) -> Step:
        def step(graph: RandomGraph, value: Value) -> Value:
            if heads:
                value = graph.concat([head(graph, value) for head in heads])
            return graph.linear(self.sequential(features)(graph, value), classes)

        return step
