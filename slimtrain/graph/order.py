"""In which order a graph's tensors come and go when it runs: their slots, when each is loaded and let go, what may be changed
in place, and where plans can begin to differ. The same for all plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from slimtrain.graph.extents import Dims, Slimmed
from slimtrain.graph.graph import Graph, Node, Value

# Activations that can change their input in place; of the first, whose gradient needs its result alone, gradients may be asked
# for nevertheless. The others would have to keep a copy.
BY_RESULT = ("relu",)
IN_PLACE = (*BY_RESULT, "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid")
# Whose results are in memory of their own, and not needed for gradients.
MAKERS = ("batch_norm", "conv1d", "conv2d", "conv3d", "convolution", "add", "group_norm", "layer_norm")


@dataclass(frozen=True)
class Span:
    """Nodes that run one after the other, `begin` to `end`. `groups`: those that occur here for the first time."""

    begin: int
    end: int
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Order:
    """The order in which `graph` runs. `dims`: the extents of every value's dimensions; `norms`: nodes that read
    what they store from elsewhere."""

    graph: Graph
    dims: Dims
    norms: frozenset[str]

    def __deepcopy__(self, memo: object) -> Order:
        return self  # nothing changes it

    @cached_property
    def slots(self) -> dict[Value, int]:
        """A number for every value; the images have the first ones."""
        return {value: slot for slot, value in enumerate(self.graph.types)}

    @cached_property
    def reads(self) -> list[tuple[Value, ...]]:
        """What every node reads from slots."""
        return [node.inputs[:1] if node.name in self.norms else node.inputs for node in self.graph.nodes]

    @cached_property
    def loads(self) -> list[list[Value]]:
        """For every node the stored tensors that it is the first to read."""
        first = {value: index for index in reversed(range(len(self.reads))) for value in self.reads[index]}
        loads: list[list[Value]] = [[] for _ in self.graph.nodes]
        for value, index in first.items():
            if value.node in self.graph.by_node:
                loads[index].append(value)
        return loads

    @cached_property
    def drops(self) -> list[list[int]]:
        """For every node the slots that nothing reads after it: those that it is the last to read, and its own that nothing
        reads at all."""
        drops: list[list[int]] = [[] for _ in self.graph.nodes]
        last = {value: index for index, node in enumerate(self.graph.nodes) for value in results(node)}
        last |= {value: index for index, values in enumerate(self.reads) for value in values}
        for value in last.keys() - set(self.graph.outputs):
            drops[last[value]].append(self.slots[value])
        return drops

    @cached_property
    def in_place(self) -> frozenset[str]:
        """The nodes that may change their input: made by the node before, which does not need its result for gradients, and
        read by nothing else. So no plan can go on from between the two."""
        readers: dict[Value, int] = dict.fromkeys(self.graph.outputs, 1)
        for values in self.reads:
            for value in values:
                readers[value] = readers.get(value, 0) + 1
        return frozenset(
            node.name
            for before, node in zip(self.graph.nodes, self.graph.nodes[1:], strict=False)
            if node.op in IN_PLACE
            and before.kind in MAKERS
            and node.inputs == (Value(before.name),)
            and readers[node.inputs[0]] == 1
        )

    @cached_property
    def spans(self) -> list[Span]:
        """The nodes, taken apart where groups occur that did not before: there plans can first differ."""
        spans: list[Span] = []
        begin, seen, new = 0, frozenset[str](), frozenset[str]()
        for index, node in enumerate(self.graph.nodes):
            extents = (extent for value in (*node.inputs, *results(node)) for extent in self.dims[value])
            groups = frozenset[str]().union(*(extent.groups for extent in extents if isinstance(extent, Slimmed)))
            if groups - seen:
                spans.append(Span(begin, index, new))
                begin, new, seen = index, groups - seen, seen | groups
        return [*spans, Span(begin, len(self.graph.nodes), new)]


def results(node: Node) -> Iterator[Value]:
    """What a node makes."""
    return (Value(node.name, output) for output in range(len(node.outputs)))


def added_branches(graph: Graph) -> Iterator[Value]:
    """The values that are added to one that they were computed from: the ends of residual branches."""
    places = {Value(name): -1 for name, _ in graph.inputs}
    places |= {value: index for index, node in enumerate(graph.nodes) for value in results(node)}
    for node in graph.nodes:
        if node.kind == "add" and len(node.inputs) == 2 and all(value in places for value in node.inputs):
            x, branch = sorted(node.inputs, key=places.__getitem__)
            if _leads_to(graph, places, x, branch):
                yield branch


def _leads_to(graph: Graph, places: Mapping[Value, int], x: Value, end: Value) -> bool:
    """Whether `end` was computed from `x`."""
    waiting, seen = [end], set[Value]()
    while waiting:
        value = waiting.pop()
        if value == x:
            return value != end
        if value in seen or places.get(value, -1) <= places[x]:
            continue
        seen.add(value)
        waiting.extend(graph.nodes[places[value]].inputs)
    return False
