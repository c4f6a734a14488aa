"""Several graphs as one: what one gives out is what another takes, in any order and as often as they please.

A graph may run in pieces: what of a detector needs images alone runs first, then what chooses regions, then what of the
detector reads those. So nodes are ordered anew, by what they read.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

from slimtrain.graph.extents import HasDims, Slimmed, WiredGraph
from slimtrain.graph.graph import Argument, Graph, Node, Parameter, TensorType, Value
from slimtrain.graph.structure import DICTIONARY, Structure

End = tuple[str, str]  # a part, and an input or a result of it, by name


@dataclass(frozen=True)
class Part:
    """A graph of several. `groups`: the extents of its dimensions, where a plan decides on some."""

    graph: Graph
    groups: HasDims | None = None


def joined(
    parts: Mapping[str, Part], wires: Mapping[End, End], inputs: Mapping[str, End], outputs: Mapping[str, End]
) -> WiredGraph:
    """`parts` as one graph, which gives a dictionary `outputs`: a name -> the result that it is.

    `wires`: an input of a part -> the result of a part that it is; `inputs`: a name -> the input of a part that it is. Results
    are known by the names that they have in files. The names of the first part's nodes and parameters stay as they are;
    another part's begin with what it is called.

    ValueError for an input that is nothing or two things, a wire between different shapes or number types or from what a plan
    narrows, names that stand twice, and parts that wait for each other.
    """
    joining = _Joining(parts, wires, {end: Value(name) for name, end in inputs.items()})
    joining.check()
    nodes = [joining.node(part, node) for part, held in parts.items() for node in held.graph.nodes]
    parameters = tuple(joining.parameter(part, p) for part, held in parts.items() for p in held.graph.parameters)
    types = [dict(parts[part].graph.inputs)[name] for part, name in inputs.values()]
    _check_names([*inputs, *(p.node for p in parameters), *(node.name for node in nodes)])
    graph = Graph(
        tuple(zip(inputs, types, strict=True)),
        parameters,
        _ordered(nodes),
        tuple(joining.result(end) for end in outputs.values()),
        {joining.name(part, name): array for part, held in parts.items() for name, array in held.graph.constants.items()},
        Structure(DICTIONARY, (Structure(),) * len(outputs), tuple(outputs)),
    )
    dims = {value: type_.shape for value, type_ in graph.types.items()}
    planned = [(part, held.groups) for part, held in parts.items() if held.groups is not None]
    narrowed = {joining.value(part, value): extents for part, groups in planned for value, extents in groups.dims.items()}
    reordered = frozenset(joining.node_name(part, name) for part, groups in planned for name in groups.reordered)
    return WiredGraph(graph, {**dims, **narrowed}, reordered)


@dataclass(frozen=True)
class _Joining:
    parts: Mapping[str, Part]
    wires: Mapping[End, End]
    given: Mapping[End, Value]

    # -- names in the whole

    def name(self, part: str, name: str) -> str:
        return name if part == next(iter(self.parts)) else f"{part}.{name}".rstrip(".")

    def node_name(self, part: str, name: str) -> str:
        return name if part == next(iter(self.parts)) else f"{part}_{name}"

    def value(self, part: str, value: Value) -> Value:
        """A value of a part: of an input what it is wired to, or what is given."""
        end = part, value.node
        if end in self.given:
            return self.given[end]
        return self.result(self.wires[end]) if end in self.wires else Value(self.node_name(part, value.node), value.output)

    def result(self, end: End) -> Value:
        part, _ = end
        return self.value(part, self._result(end))

    def _result(self, end: End) -> Value:
        """A result, as its own part calls it."""
        part, name = end
        graph = self.parts[part].graph
        return graph.outputs[graph.form.names.index(name)]

    def node(self, part: str, node: Node) -> Node:
        def renamed(argument: Argument) -> Argument:
            if isinstance(argument, tuple):
                return tuple(map(renamed, argument))
            return self.value(part, argument) if isinstance(argument, Value) else argument

        arguments = {name: renamed(argument) for name, argument in node.arguments.items()}
        return replace(node, name=self.node_name(part, node.name), arguments=arguments, module=self.name(part, node.module))

    def parameter(self, part: str, parameter: Parameter) -> Parameter:
        return replace(parameter, node=self.node_name(part, parameter.node), name=self.name(part, parameter.name))

    # -- whether they fit

    def check(self) -> None:
        for part, held in self.parts.items():
            for name, type_ in held.graph.inputs:
                end = part, name
                if (end in self.wires) == (end in self.given):
                    what = "two things" if end in self.wires else "nothing"
                    raise ValueError(f"input {name} of {part} is {what}: expected one thing")
                if end in self.wires:
                    self._check_wire(self.wires[end], f"input {name} of {part}", type_)

    def _check_wire(self, source: End, what: str, type_: TensorType) -> None:
        part, name = source
        held = self.parts[part]
        names = held.graph.form.names
        if name not in names:
            raise ValueError(f"{what} is to be {name} of {part}, which gives {', '.join(names)}")
        value = self._result(source)
        there = held.graph.types[value]
        if there != type_:
            raise ValueError(
                f"{what} is {type_.dtype} {list(type_.shape)}, and {name} of {part} {there.dtype} {list(there.shape)}: "
                "expected the same"
            )
        if held.groups is not None and any(isinstance(extent, Slimmed) for extent in held.groups.dims[value]):
            raise ValueError(f"{name} of {part} has channels that a plan drops: {what} has all of them at every plan")


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{', '.join(twice)}: stands twice. Call a part or an input otherwise.")


def _ordered(nodes: list[Node]) -> tuple[Node, ...]:
    """Nodes after what they read, otherwise in the order in which they stand."""
    names = {node.name for node in nodes}
    waiting: dict[int, int] = {}
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        sources = {value.node for value in node.inputs} & names
        waiting[place] = len(sources)
        for source in sources:
            readers.setdefault(source, []).append(place)
    ready = [place for place, count in waiting.items() if not count]
    order = []
    while ready:
        place = heapq.heappop(ready)
        del waiting[place]
        order.append(nodes[place])
        for reader in readers.get(nodes[place].name, []):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if waiting:
        raise ValueError(f"{nodes[min(waiting)].name} waits for what is computed from it: parts read each other in a circle")
    return tuple(order)
