"""The graph of a published architecture, written from its table: the same operators that tracing the network would give, with
extents that the architecture's own loop knows. No torch.

An architecture's loop is run with layers that are steps: a step reads a map and its own path in the network, writes nodes, and
gives the map that it makes. Paths are those of the published state dicts (`features.3.body.0`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.graph.extents import Extent, WiredGraph
from slimtrain.graph.graph import PARAMETER, STATISTIC, Argument, Batch, Graph, Node, Parameter, Size, TensorType, Value
from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim

IMAGES = "images"  # what the graph's input is called
BN_EPS, BN_MOMENTUM = 1e-5, 0.1  # of every published batch norm


@dataclass(frozen=True)
class Map:
    """[batch, channels, height, width], or [batch, channels] where `size` is empty."""

    value: Value
    channels: Dim | int
    size: tuple[int, ...]

    @property
    def extents(self) -> tuple[Extent, ...]:
        return Batch(), self.channels, *self.size


@dataclass
class Writing:
    """A graph that is being written. `widest`: the plan that its parameters have room for."""

    widest: ChannelPlan
    parameters: list[Parameter] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    dims: dict[Value, tuple[Extent, ...]] = field(default_factory=dict)

    def type_of(self, extents: Sequence[Extent]) -> TensorType:
        def full(extent: Extent) -> Size:
            return extent if isinstance(extent, Batch) else self.widest.size(extent)

        return TensorType(tuple(map(full, extents)))

    def parameter(self, name: str, *extents: Extent, kind: str = PARAMETER) -> Value:
        """A stored tensor; a layer that runs twice has one."""
        value = Value(f"p_{name}")
        if value not in self.dims:
            self.parameters.append(Parameter(value.node, name, self.type_of(extents), kind))
            self.dims[value] = extents
        return value

    def node(self, op: str, path: str, arguments: Mapping[str, Argument], *results: tuple[Extent, ...]) -> list[Value]:
        """A node; the values that it makes, with the extents of `results`."""
        name = f"{op.partition('.')[0]}_{len(self.nodes)}"
        self.nodes.append(Node(name, op, arguments, tuple(map(self.type_of, results)), path))
        values = [Value(name, index) for index in range(len(results))]
        self.dims |= zip(values, results, strict=True)
        return values

    def map(self, op: str, path: str, arguments: Mapping[str, Argument], channels: Dim | int, size: tuple[int, ...]) -> Map:
        """A node that makes one map."""
        (value,) = self.node(op, path, arguments, (Batch(), channels, *size))
        return Map(value, channels, size)

    def alike(self, op: str, path: str, x: Map, **arguments: Argument) -> Map:
        """A node that makes a map of the size that it reads."""
        return self.map(op, path, {"self": x.value, **arguments}, x.channels, x.size)


# The map that a layer reads, its path, and the graph to write to -> the map that it makes.
Step = Callable[[Map, str, Writing], Map]


class TableLayers(Layers[Step]):
    """Layers that write themselves into a graph."""

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            assert x.channels == inp, f"{path} reads {x.channels}, expected {inp}"
            weight = graph.parameter(f"{path}.weight", out, inp, kernel, kernel)
            return _convolution(graph, path, x, out, weight, kernel, stride, groups=1)

        return step

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            assert x.channels == dim, f"{path} reads {x.channels}, expected {dim}"
            weight = graph.parameter(f"{path}.weight", dim, 1, kernel, kernel)
            return _convolution(graph, path, x, dim, weight, kernel, stride, groups=graph.widest.size(dim))

        return step

    def norm(self, dim: Dim) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            stored = {entry: graph.parameter(f"{path}.{entry}", dim) for entry in ("weight", "bias")}
            stored |= {
                entry: graph.parameter(f"{path}.{entry}", dim, kind=STATISTIC) for entry in ("running_mean", "running_var")
            }
            options: dict[str, Argument] = {"training": False, "momentum": BN_MOMENTUM, "eps": BN_EPS, "cudnn_enabled": True}
            return graph.map("batch_norm", path, {"input": x.value, **stored, **options}, x.channels, x.size)

        return step

    def relu(self) -> Step:
        return lambda x, path, graph: graph.alike("relu", path, x)

    def relu6(self) -> Step:
        return lambda x, path, graph: graph.alike("hardtanh", path, x, min_val=0.0, max_val=6.0)

    def max_pool(self, kernel: int, stride: int, padding: int) -> Step:
        return _pool("max_pool2d", kernel, stride, padding, {"dilation": (1, 1), "ceil_mode": False})

    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> Step:
        options: dict[str, Argument] = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None}
        return _pool("avg_pool2d", kernel, stride, padding, options)

    def shuffle(self, groups: int) -> Step:
        return lambda x, path, graph: graph.alike("channel_shuffle", path, x, groups=groups)

    def sequential(self, modules: Sequence[Step]) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            for index, module in enumerate(modules):
                x = module(x, f"{path}.{index}", graph)
            return x

        return step

    def block(self, body: Step, residual: bool) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            out = body(x, f"{path}.body", graph)
            return _sum(graph, path, x, out) if residual else out

        return step

    def bottleneck(self, body: Step, shortcut: Step | None) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            out = body(x, f"{path}.body", graph)
            other = x if shortcut is None else shortcut(x, f"{path}.shortcut", graph)
            return graph.alike("relu", f"{path}.relu", _sum(graph, path, out, other))

        return step

    def shuffle_unit(self, a: Sequence[Step], b: Step, c: Sequence[Step], pool: Step | None, whole: bool) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            first = len(graph.parameters)
            inner = _thirds(graph, path, "a", a, [x] * len(a) if whole else _chunks(graph, path, x, len(a)))
            second = len(graph.parameters)
            inner = b(inner, f"{path}.b", graph)
            stored = graph.parameters
            graph.parameters = [*stored[:first], *stored[second:], *stored[first:second]]  # as published state dicts have them
            out = _thirds(graph, path, "c", c, _chunks(graph, path, inner, len(c)))
            if pool is None:
                return graph.alike("relu", f"{path}.relu", _sum(graph, path, x, out))
            return _concatenation(graph, path, [graph.alike("relu", f"{path}.relu", out), pool(x, f"{path}.pool", graph)])

        return step

    def network(self, features: Sequence[Step], out: Dim, classes: int, heads: Sequence[Step] = ()) -> Step:
        def step(x: Map, path: str, graph: Writing) -> Map:
            if heads:
                x = _concatenation(graph, "", [head(x, f"head_{index}", graph) for index, head in enumerate(heads)])
            x = self.sequential(features)(x, "features", graph)
            assert x.channels == out, f"the classifier reads {x.channels}, expected {out}"
            x = graph.map("adaptive_avg_pool2d", "pool", {"self": x.value, "output_size": (1, 1)}, out, (1, 1))
            x = graph.map("flatten.using_ints", "flatten", {"self": x.value, "start_dim": 1, "end_dim": -1}, out, ())
            weight = graph.parameter("classifier.0.weight", classes, out)
            bias = graph.parameter("classifier.0.bias", classes)
            return graph.map("linear", "classifier.0", {"input": x.value, "weight": weight, "bias": bias}, classes, ())

        return step


def write_table(network: Step, widest: ChannelPlan, in_channels: int, image_size: ImageSize) -> WiredGraph:
    """The graph of a network that an architecture built of `TableLayers`, for [batch, in_channels, height, width] images. Its
    parameters have the names, the shapes at `widest` and the order of the published state dicts."""
    graph = Writing(widest)
    image = Map(Value(IMAGES), in_channels, sides(image_size))
    graph.dims[image.value] = image.extents
    result = network(image, "", graph)
    inputs = ((IMAGES, graph.type_of(image.extents)),)
    return WiredGraph(Graph(inputs, tuple(graph.parameters), tuple(graph.nodes), (result.value,)), graph.dims)


def _convolution(graph: Writing, path: str, x: Map, out: Dim, weight: Value, kernel: int, stride: int, groups: int) -> Map:
    padding = kernel // 2
    geometry: dict[str, Argument] = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": groups}
    size = _window(x.size, kernel, stride, padding)
    return graph.map("conv2d", path, {"input": x.value, "weight": weight, "bias": None, **geometry}, out, size)


def _window(size: tuple[int, ...], kernel: int, stride: int, padding: int) -> tuple[int, ...]:
    return tuple((side + 2 * padding - kernel) // stride + 1 for side in size)


def _pool(op: str, kernel: int, stride: int, padding: int, options: Mapping[str, Argument]) -> Step:
    window: dict[str, Argument] = {"kernel_size": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2}

    def step(x: Map, path: str, graph: Writing) -> Map:
        size = _window(x.size, kernel, stride, padding)
        return graph.map(op, path, {"self": x.value, **window, **options}, x.channels, size)

    return step


def _sum(graph: Writing, path: str, x: Map, other: Map) -> Map:
    assert x.extents == other.extents, f"{path} adds {other.extents} to {x.extents}"
    return graph.alike("add.Tensor", path, x, other=other.value, alpha=1)


def _concatenation(graph: Writing, path: str, parts: Sequence[Map]) -> Map:
    dims = [part.channels for part in parts]
    channels = Dim.total([dim for dim in dims if isinstance(dim, Dim)])
    return graph.map("cat", path, {"tensors": tuple(part.value for part in parts), "dim": 1}, channels, parts[0].size)


def _chunks(graph: Writing, path: str, x: Map, parts: int) -> list[Map]:
    assert isinstance(x.channels, Dim)
    share = x.channels // parts
    extents: tuple[Extent, ...] = (Batch(), share, *x.size)
    values = graph.node("chunk", path, {"self": x.value, "chunks": parts, "dim": 1}, *[extents] * parts)
    return [Map(value, share, x.size) for value in values]


def _thirds(graph: Writing, path: str, name: str, steps: Sequence[Step], parts: Sequence[Map]) -> Map:
    """Steps side by side, what they make one behind the other."""
    results = [
        step(part, f"{path}.{name}_{index}", graph) for index, (step, part) in enumerate(zip(steps, parts, strict=True))
    ]
    return _concatenation(graph, path, results)
