"""The layers of a traced network, read off its graph: what runs from one operator that multiplies to the next. No torch.

A layer begins with a convolution, a linear layer, a product, an attention or a concatenation, and holds everything that is
computed from it up to the next one: norm, activation, sum, gate, pool, views. Whatever reads several of them belongs to the
last. So every operator that runs for an image is in exactly one layer.

What a layer costs depends on two numbers of channels, as in published networks. `out`: of the groups that what it makes has;
`inp`: of those that it only reads. Where it reads no others than it makes (depthwise, attention, concatenation) both are one.
A group counts with the positions that one slot of it has: a head with its channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimtrain.graph.extents import Extent, Slimmed
from slimtrain.graph.graph import Argument, Batch, Graph, Node, Value
from slimtrain.graph.pieces import Pieces
from slimtrain.groups.costs import MACS
from slimtrain.groups.spec import GraphSpec, shape_text
from slimtrain.models.channels import Dim

BEGINS = frozenset({*MACS, "cat", "stack"})
INPUT = "input"  # the layer of what is done to the images before


@dataclass(frozen=True)
class GraphLayer:
    """One layer. `name`: the module's that it begins with. `kind`: what it begins with: `conv2d 3x3 stride 2`. `reads`: the
    shape of what that reads at the widest, `Nx64x14x14`. `operators`: all of it, in order. `shape`: a digest of its operators,
    arguments and sizes at the widest: two layers of one shape, and of the same range of channels, take the same time."""

    name: str
    kind: str
    reads: str
    operators: tuple[str, ...]
    shape: str
    inp: Dim | int
    out: Dim | int

    @property
    def single(self) -> bool:
        """Whether its inputs are its outputs."""
        return self.inp == self.out

    @property
    def alike(self) -> tuple[object, ...]:
        """What layers that are computed alike have in common."""
        return (self.kind,)

    @property
    def content(self) -> dict[str, Any]:
        """It in a file, but for its dimensions."""
        return {**{key: getattr(self, key) for key in ("name", "kind", "reads")}, "operators": list(self.operators)} | {
            "shape": self.shape
        }

    @staticmethod
    def of(content: Mapping[str, Any], inp: Dim | int, out: Dim | int) -> GraphLayer:
        """It from its `content`."""
        name, kind, reads, shape = (str(content[key]) for key in ("name", "kind", "reads", "shape"))
        return GraphLayer(name, kind, reads, tuple(map(str, content["operators"])), shape, inp, out)


@dataclass(frozen=True)
class Part:
    """A layer and its share of the graph. `nodes`: in their order, what they need of stored tensors among them. `reads`:
    values that the images or others give it; `gives`: those that others read. `inputs`, `outputs`: the groups that `inp` and
    `out` count, both the same where these are one."""

    layer: GraphLayer
    nodes: tuple[Node, ...]
    reads: tuple[Value, ...]
    gives: tuple[Value, ...]
    inputs: frozenset[str]
    outputs: frozenset[str]


def graph_layers(spec: GraphSpec) -> tuple[GraphLayer, ...]:
    """The layers of a traced network, in the order in which they run."""
    return tuple(part.layer for part in graph_parts(spec))


def graph_parts(spec: GraphSpec) -> tuple[Part, ...]:
    """The layers of a traced network with their shares of its graph."""
    graph = spec.graph
    place = {name: 0 for name, _ in graph.inputs}  # of what is computed from images: the number of its layer
    members: list[list[Node]] = [[]]
    for node in graph.nodes:
        sources = [place[value.node] for value in node.inputs if value.node in place]
        if not sources:
            continue
        if node.kind in BEGINS:
            members.append([])
        place[node.name] = len(members) - 1 if node.kind in BEGINS else max(sources)
        members[place[node.name]].append(node)
    outside = {value for node in graph.nodes for value in node.inputs if place.get(node.name) != place.get(value.node)}
    outside |= set(graph.outputs)
    taken: dict[str, int] = {}
    return tuple(_part(spec, nodes, place, outside, taken) for nodes in members if nodes)


def _part(spec: GraphSpec, own: Sequence[Node], place: Mapping[str, int], outside: set[Value], taken: dict[str, int]) -> Part:
    graph, dims = spec.graph, spec.dims
    nodes = _with_stored(graph, own, place)
    names = {node.name for node in nodes}
    reads = tuple(
        dict.fromkeys(value for node in nodes for value in node.inputs if value.node in place and value.node not in names)
    )
    results = [Value(node.name, output) for node in own for output in range(len(node.outputs))]
    gives = tuple(value for value in results if value in outside) or (results[-1],)
    read, given = (_groups(dims[value] for value in values) for values in (reads, results))
    weights = _positions(spec, (*reads, *results))
    inputs = read - given or given
    out = _dim(given, weights) if given else _channels(dims[gives[0]])
    inp: Dim | int = _dim(inputs, weights)
    if not read:  # the images, or what no plan slims
        inp, inputs = _channels(dims[reads[0]] if reads else ()), frozenset()
    first = own[0]
    name = (first.module or first.name) if first.kind in BEGINS else INPUT
    taken[name] = taken.get(name, 0) + 1
    name = name if taken[name] == 1 else f"{name}#{taken[name]}"
    whole = shape_text(graph.types[reads[0]].shape) if reads else ""
    shape = _digest(graph, nodes, reads, dims, inputs, given)
    layer = GraphLayer(name, _kind(graph, first), whole, tuple(node.kind for node in own), shape, inp, out)
    return Part(layer, nodes, reads, gives, inputs, given)


def _with_stored(graph: Graph, own: Sequence[Node], place: Mapping[str, int]) -> tuple[Node, ...]:
    """`own` with what they read that is computed from stored tensors alone; whole numbers that come from the images (which
    windows are masked) are computed again too."""
    names = {node.name for node in own}
    waiting = [value for node in own for value in node.inputs]
    while waiting:
        value = waiting.pop()
        node = graph.by_name.get(value.node)
        if node is not None and node.name not in names and (node.name not in place or not graph.types[value].floating):
            names.add(node.name)
            waiting += node.inputs
    return tuple(node for node in graph.nodes if node.name in names)


def _groups(several: Iterable[tuple[Extent, ...]]) -> frozenset[str]:
    return frozenset(
        group for extents in several for extent in extents if isinstance(extent, Slimmed) for group in extent.groups
    )


def _positions(spec: GraphSpec, values: Iterable[Value]) -> dict[str, int]:
    """Group -> positions that one slot has: the most in any dimension of these values, on average over slots."""
    most: dict[str, int] = {}
    extents = {extent for value in values for extent in spec.dims[value] if isinstance(extent, Pieces)}
    for extent in extents:
        for group in extent.groups:
            positions = sum(piece.full for piece in extent.pieces if piece.group == group)
            most[group] = max(most.get(group, 1), round(positions / spec.groups.sizes[group]))
    return most


def _dim(groups: frozenset[str], weights: Mapping[str, int]) -> Dim:
    return Dim(tuple((group, weights[group]) for group in sorted(groups)))


def _channels(extents: Sequence[Extent]) -> int:
    """What no plan slims: channels of a map stand in the second place, of anything else in the last."""
    extent = extents[1] if len(extents) > 3 else extents[-1] if extents else 1
    return extent if isinstance(extent, int) else 1


def _kind(graph: Graph, node: Node) -> str:
    weight = node.arguments.get("weight")
    if not node.kind.startswith("conv") or not isinstance(weight, Value):
        return node.kind
    shape = graph.types[weight].shape
    form = "" if node.arguments.get("groups", 1) == 1 else "depthwise " if shape[1] == 1 else "grouped "
    stride = node.arguments.get("stride") or 1
    steps = stride if isinstance(stride, tuple) else (stride,)
    stepping = "" if all(step == 1 for step in steps) else f" stride {'x'.join(map(str, dict.fromkeys(steps)))}"
    x = graph.types[node.inputs[0]].shape[2:]
    pooled = "pooled " if all(size == 1 for size in x) else ""  # where no place is shared, and it is a linear layer in fact
    return f"{pooled}{form}{node.kind} {'x'.join(map(str, shape[2:]))}{stepping}"


def _digest(
    graph: Graph,
    nodes: Sequence[Node],
    reads: Sequence[Value],
    dims: Mapping[Value, tuple[Extent, ...]],
    inputs: frozenset[str],
    outputs: frozenset[str],
) -> str:
    """The same for layers that differ in names and numbers alone."""
    numbers: dict[str, str] = {}

    def sized(value: Value) -> str:
        marks = []
        for extent, size in zip(dims[value], graph.types[value].shape, strict=True):
            groups = extent.groups if isinstance(extent, Slimmed) else frozenset()
            marks.append(f"{shape_text([size])}{'i' * bool(groups & inputs)}{'o' * bool(groups & outputs)}")
        return f"{graph.types[value].dtype}[{' '.join(marks)}]"

    def shown(argument: Argument) -> str:
        if isinstance(argument, tuple):
            return f"({' '.join(map(shown, argument))})"
        if isinstance(argument, Batch):
            return f"N{argument.factor}"
        if not isinstance(argument, Value):
            return repr(argument)
        number = numbers.setdefault(argument.node, f"v{len(numbers)}")
        return f"{number}.{argument.output}{sized(argument) if argument in reads or argument.node in graph.by_node else ''}"

    lines = []
    for node in nodes:
        arguments = " ".join(f"{name}={shown(argument)}" for name, argument in sorted(node.arguments.items()))
        results = " ".join(sized(Value(node.name, output)) for output in range(len(node.outputs)))
        numbers.setdefault(node.name, f"v{len(numbers)}")
        lines.append(f"{node.op} {arguments} -> {numbers[node.name]} {results}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
