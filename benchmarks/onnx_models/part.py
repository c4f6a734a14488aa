"""Parts of a traced network as ONNX models, in pairs whose difference is the part. As `onnx_models.layer` has it for published
architectures: copies of the part side by side, between a convolution that makes what it reads and probes that read what it
makes. The part itself is written as exports are, by the writer of graphs. Needs torch.

What a part reads comes as the network has it there: a map as a convolution leaves it, anything else (tokens, heads, maps with
their channels last) in plain order. A part without weights gets copies that read different tensors: of equal ones onnxruntime
would compute one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from slimexport.onnx_files.graph_writer import write_graph
from slimtrain.base.image_size import ImageSize, as_image_size
from slimtrain.costs.graph_layers import Part
from slimtrain.graph.extents import WiredGraph
from slimtrain.graph.graph import CONSTANT, STATISTIC, Argument, Batch, Graph, Node, Parameter, Size, TensorType, Value
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan

Shape = tuple[Size, ...]
Placed = tuple[Value, Value]  # a value of the network, and what stands for it in a model
ALIGNED = 4  # channels in whole multiples of this stay in onnxruntime's own layout
# What leaves a map's layout as it is, beside convolutions.
KEEPS_MAPS = (
    *("batch_norm", "add", "cat", "relu", "hardtanh", "hardsigmoid", "sigmoid", "tanh", "leaky_relu", "silu", "hardswish"),
    *("clamp", "dropout", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
)


def network_model(spec: GraphSpec, plan: ChannelPlan, seed: int = 0) -> bytes:
    """The whole network of `plan`, with random weights."""
    sizing = spec.sizing(plan)
    draw = torch.Generator().manual_seed(seed)
    return write_graph(sizing, {p.name: _tensor(sizing, p, draw) for p in spec.graph.parameters}).SerializeToString()


def part_model(spec: GraphSpec, part: Part, channels: Mapping[str, int], copies: int, with_part: bool, seed: int = 0) -> bytes:
    """`copies` of a part at `channels` (group -> slots, of its groups), or what stands around them: [batch, channels, height,
    width] of `image_shape` -> [batch, features]."""
    sizing = _sizing(spec, channels)
    maps = maps_of(spec.graph)
    image = image_shape(spec, part, channels)
    sheet = _Sheet(image, seed)
    weightless = not any(value.node in spec.graph.by_node for node in part.nodes for value in node.inputs)
    sources: dict[Value, Value] = {}
    probes = []
    for copy in range(copies):
        if weightless or not copy:
            sources = {value: _source(sheet, sizing, value, maps) for value in part.reads}
        reads = [(value, sources[value]) for value in part.reads]
        gives = _copied(sheet, sizing, part, sources) if with_part else []
        probes += [sheet.probe(place, value in maps) for value, place in _as_many(gives, reads, len(part.gives))]
    if not probes:  # a part that makes something of nothing
        probes = [sheet.probe(sheet.image, True)]
    features = sum(_whole(sheet.types[probe].shape[1]) for probe in probes)
    return sheet.model(sheet.node("cat", (Batch(), features), tensors=tuple(probes), dim=1))


def _as_many(gives: list[Placed], reads: list[Placed], count: int) -> list[Placed]:
    """What one copy's probes read: `count` values of a part, or in their place what it reads; so many of both that all that it
    reads is needed, and in both models there are as many probes."""
    if gives:
        return [*gives, *reads[count:]]
    return [*reads, *reads[:1] * (count - len(reads))]


def image_shape(spec: GraphSpec, part: Part, channels: Mapping[str, int]) -> tuple[int, int, int]:
    """Channels, height and width of the images that the models of a part take."""
    sizing, maps = _sizing(spec, channels), maps_of(spec.graph)
    places = [_places(sizing, value, maps) for value in part.reads] or [(1, 1)]
    height, width = (max(sizes) for sizes in zip(*places, strict=True))
    return spec.in_channels, height, width


def image_size(shape: tuple[int, int, int]) -> ImageSize:
    return as_image_size(list(shape[1:]))


def weights(spec: GraphSpec, part: Part, channels: Mapping[str, int]) -> int:
    """How many numbers a part stores."""
    sizing = _sizing(spec, channels)
    stored = {value for node in part.nodes for value in node.inputs if value.node in spec.graph.by_node}
    return sum(math.prod(_whole(size) for size in sizing.shape(value)) for value in stored)


def maps_of(graph: Graph) -> frozenset[Value]:
    """The values that are as convolutions make them: [batch, channels, height, width], in whatever layout a backend has."""
    maps = {Value(name) for name, type_ in graph.inputs if len(type_.shape) == 4}
    for node in graph.nodes:
        shape = node.outputs[0].shape
        kept = node.kind in KEEPS_MAPS and all(value in maps for value in node.inputs if value.node not in graph.by_node)
        if node.kind == "add":  # of one that is broadcast it is not known
            kept = kept and all(graph.types[value].shape == shape for value in node.inputs)
        if len(shape) == 4 and (kept or node.kind.startswith("conv")):
            maps.add(Value(node.name))
    return frozenset(maps)


def _sizing(spec: GraphSpec, channels: Mapping[str, int]) -> Sizing:
    return Sizing(spec.graph, spec.groups, {**spec.groups.sizes, **channels})


def _whole(size: Size) -> int:
    return size.factor if isinstance(size, Batch) else size


def _places(sizing: Sizing, value: Value, maps: frozenset[Value]) -> tuple[int, int]:
    """Height and width of the image that a value is made of: of a map its own; else as many places as it has but for the last
    dimension, in a rectangle."""
    shape = [_whole(size) for size in sizing.shape(value)]
    if value in maps:
        return shape[2], shape[3]
    places = math.prod(shape[:-1])
    height = next(height for height in range(math.isqrt(places), 0, -1) if places % height == 0)
    return height, places // height


def _source(sheet: _Sheet, sizing: Sizing, value: Value, maps: frozenset[Value]) -> Value:
    """What a part reads: the images themselves, or made of them by a 1x1 convolution."""
    shape = sizing.shape(value)
    height, width = _places(sizing, value, maps)
    image = sheet.cut(height, width)
    if value.node in {name for name, _ in sizing.graph.inputs} and value in maps:
        return image
    if value in maps:
        return sheet.relu(sheet.conv(image, _whole(shape[1])))
    features = _whole(shape[-1]) if len(shape) > 1 else 1
    places = sheet.relu(sheet.conv(image, features))
    flat = sheet.node("view", (Batch(), features, height * width), self=places, size=(Batch(), features, height * width))
    tokens = sheet.node("permute", (Batch(), height * width, features), self=flat, dims=(0, 2, 1))
    at = next((dim for dim, size in enumerate(shape) if isinstance(size, Batch)), 0)
    front = (shape[at], *shape[:at], *shape[at + 1 :])
    result = sheet.node("view", front, self=tokens, size=front)
    if at:
        back = (*range(1, at + 1), 0, *range(at + 1, len(shape)))
        result = sheet.node("permute", shape, self=result, dims=back)
    return result


def _copied(sheet: _Sheet, sizing: Sizing, part: Part, sources: Mapping[Value, Value]) -> list[Placed]:
    """A copy of the part, with weights of its own: (what others read of it, the copy's)."""
    graph, here = sizing.graph, dict(sources)

    def placed(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(map(placed, argument))
        if not isinstance(argument, Value):
            return argument
        if argument not in here:
            parameter = graph.by_node[argument.node]
            here[argument] = sheet.stored(_tensor(sizing, parameter, sheet.draw), parameter.kind)
        return here[argument]

    for node in part.nodes:
        op, arguments = sizing.call(node)
        types = tuple(
            TensorType(sizing.shape(Value(node.name, output)), type_.dtype) for output, type_ in enumerate(node.outputs)
        )
        results = sheet.several(op, types, {name: placed(argument) for name, argument in arguments.items()}, node)
        here |= {Value(node.name, output): result for output, result in enumerate(results)}
    return [(value, here[value]) for value in part.gives]


def _tensor(sizing: Sizing, parameter: Parameter, draw: torch.Generator) -> Tensor:
    """A stored tensor at the plan: a constant as it is, anything else normal noise that keeps signals of order one."""
    value = Value(parameter.node)
    if parameter.kind == CONSTANT:
        tensor = torch.from_numpy(sizing.graph.constants[parameter.name])
        for dim, kept in enumerate(sizing.kept(value)):
            if kept is not None:
                index = torch.arange(tensor.shape[dim])[kept] if isinstance(kept, slice) else torch.from_numpy(kept)
                tensor = tensor.index_select(dim, index)
        return tensor
    shape = [_whole(size) for size in sizing.shape(value)]
    if parameter.kind == STATISTIC or (len(shape) < 2 and parameter.name.endswith("weight")):
        return torch.rand(shape, generator=draw) * 0.4 + 0.8
    scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
    return torch.randn(shape, generator=draw) * scale


class _Sheet:
    """A graph of fixed sizes under construction."""

    def __init__(self, image: tuple[int, int, int], seed: int) -> None:
        self.image = Value("images")
        self.types = {self.image: TensorType((Batch(), *image))}
        self.nodes: list[Node] = []
        self.parameters: list[Parameter] = []
        self.tensors: dict[str, Tensor] = {}
        self.draw = torch.Generator().manual_seed(seed)

    def several(self, op: str, types: tuple[TensorType, ...], arguments: Mapping[str, Argument], like: Node) -> list[Value]:
        """An operator of a network."""
        name = f"n{len(self.nodes)}"
        self.nodes.append(Node(name, op, arguments, types, like.module, like.line))
        values = [Value(name, output) for output in range(len(types))]
        self.types |= dict(zip(values, types, strict=True))
        return values

    def node(self, op: str, shape: Shape, /, **arguments: Argument) -> Value:
        """An operator of its surroundings."""
        return self.several(op, (TensorType(shape),), arguments, Node("", op, {}, ()))[0]

    def stored(self, tensor: Tensor, kind: str = "parameter") -> Value:
        name = f"p{len(self.parameters)}"
        type_ = TensorType(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        self.parameters.append(Parameter(name, name, type_, kind))
        self.tensors[name], self.types[Value(name)] = tensor, type_
        return Value(name)

    def noise(self, *shape: int, scale: float) -> Value:
        return self.stored(torch.randn(shape, generator=self.draw) * scale)

    def conv(self, source: Value, features: int, stride: tuple[int, int] = (1, 1), depthwise: bool = False) -> Value:
        """A 1x1 convolution."""
        _, inputs, *size = map(_whole, self.types[source].shape)
        per_output = 1 if depthwise else inputs
        settings: dict[str, Any] = {"stride": stride, "padding": (0, 0), "dilation": (1, 1)}
        return self.node(
            "conv2d",
            (Batch(), features, *(-(-side // step) for side, step in zip(size, stride, strict=True))),
            input=source,
            weight=self.noise(features, per_output, 1, 1, scale=1 / math.sqrt(per_output)),
            bias=self.noise(features, scale=0.5),
            groups=features if depthwise else 1,
            **settings,
        )

    def relu(self, source: Value) -> Value:
        return self.node("relu", self.types[source].shape, self=source)

    def cut(self, height: int, width: int) -> Value:
        """The upper left corner of the images."""
        result = self.image
        for dim, side in ((2, height), (3, width)):
            result = self.first(result, dim, side)
        return result

    def first(self, source: Value, dim: int, length: int) -> Value:
        shape = self.types[source].shape
        if shape[dim] == length:
            return source
        cut = (*shape[:dim], length, *shape[dim + 1 :])
        return self.node("slice.Tensor", cut, self=source, dim=dim, start=0, end=length, step=1)

    def probe(self, source: Value, mapped: bool) -> Value:
        """The cheapest that reads a value in the layout that it has: one place of each channel, [batch, features]."""
        shape = self.types[source].shape
        if mapped:
            channels, size = _whole(shape[1]), (_whole(shape[2]), _whole(shape[3]))
            if channels % ALIGNED == 0:
                place = self.conv(source, channels, size, depthwise=True)
            else:
                settings: dict[str, Argument] = {"stride": size, "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
                place = self.node("max_pool2d", (Batch(), channels, 1, 1), self=source, kernel_size=(1, 1), **settings)
            return self.node("view", (Batch(), channels), self=place, size=(Batch(), channels))
        at = next((dim for dim, size in enumerate(shape) if isinstance(size, Batch)), 0)
        for dim in range(len(shape) - 1):
            if dim != at:
                source = self.first(source, dim, 1)
        shape = self.types[source].shape
        if at:
            order = (at, *(dim for dim in range(len(shape)) if dim != at))
            shape = tuple(shape[dim] for dim in order)
            source = self.node("permute", shape, self=source, dims=order)
        features = math.prod(map(_whole, shape))
        return self.node("view", (Batch(), features), self=source, size=(Batch(), features))

    def model(self, output: Value) -> bytes:
        graph = Graph(((self.image.node, self.types[self.image]),), tuple(self.parameters), tuple(self.nodes), (output,))
        dims = {value: type_.shape for value, type_ in self.types.items()}
        return write_graph(Sizing(graph, WiredGraph(graph, dims), {}), self.tensors).SerializeToString()
