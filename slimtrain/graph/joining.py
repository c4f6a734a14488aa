"""Several graphs as one: what one gives out is what another takes, in any order and as often as they please.

A graph may run in pieces: what of a detector needs images alone runs first, then what chooses regions, then what of the detector
reads those. So nodes are ordered anew, by what they read.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

from slimtrain.graph.extents import HasDims, Slimmed, WiredGraph
from slimtrain.graph.graph import Argument, Graph, Node, TensorType, Value
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

    `wires`: an input of a part -> the result of a part that it is; `inputs`: a name -> the input of a part that whoever runs it
    all gives. The names of the first part's nodes and parameters stay as they are; another part's begin with what it is called,
    its results are known by the names that they have in files.

    ValueError for an input that is nothing or two things, a wire between different shapes or number types or from what a plan
    narrows, and parts that wait for each other.
    """
    names = {part: "" if place == 0 else f"{part}." for place, part in enumerate(parts)}
    given = {end: Value(name) for name, end in inputs.items()}
    _check_ends(parts, wires, given)
    known: dict[tuple[str, Value], Value] = {}
    for part, held in parts.items():
        own = (Value(node.name, output) for node in held.graph.nodes for output in range(len(node.outputs)))
        for value in (*own, *(Value(parameter.node) for parameter in held.graph.parameters)):
            known[part, value] = Value(_node_name(names[part], value.node), value.output)
    for (part, name), value in given.items():
        known[part, Value(name)] = value
    for end, source in wires.items():
        known[end[0], Value(end[1])] = known[_result(parts, *source)]
    for part, held in parts.items():  # an input that is given out as it is
        known |= {(part, value): known[part, value] for value in held.graph.outputs}
    nodes = [
        replace(
            node,
            name=_node_name(names[part], node.name),
            arguments=_renamed(node, part, known),
            module=_path(part, names, node),
        )
        for part, held in parts.items()
        for node in held.graph.nodes
    ]
    parameters = tuple(
        replace(p, node=_node_name(names[part], p.node), name=names[part] + p.name)
        for part, held in parts.items()
        for p in held.graph.parameters
    )
    graph = Graph(
        tuple((name, _type(parts, end)) for name, end in inputs.items()),
        parameters,
        _ordered(nodes, {Value(name) for name in inputs} | {Value(p.node) for p in parameters}),
        tuple(known[_result(parts, *end)] for end in outputs.values()),
        {names[part] + name: array for part, held in parts.items() for name, array in held.graph.constants.items()},
        Structure(DICTIONARY, (Structure(),) * len(outputs), tuple(outputs)),
    )
    _check_names(graph)
    dims = {value: tuple(type_.shape) for value, type_ in graph.types.items()}
    narrowed = {
        known[part, value]: extents
        for part, held in parts.items()
        if held.groups is not None
        for value, extents in held.groups.dims.items()
        if (part, value) in known
    }
    reordered = {
        _node_name(names[part], node)
        for part, held in parts.items()
        if held.groups is not None
        for node in held.groups.reordered
    }
    return WiredGraph(graph, {**dims, **narrowed}, frozenset(reordered))


def _node_name(prefix: str, name: str) -> str:
    return prefix.replace(".", "_") + name


def _path(part: str, names: Mapping[str, str], node: Node) -> str:
    """The module that a node is of: of a part with a name, it stands within that."""
    return ".".join(filter(None, (part if names[part] else "", node.module)))


def _type(parts: Mapping[str, Part], end: End) -> TensorType:
    part, name = end
    return dict(parts[part].graph.inputs)[name]


def _result(parts: Mapping[str, Part], part: str, name: str) -> tuple[str, Value]:
    graph = parts[part].graph
    return part, graph.outputs[graph.form.names.index(name)]


def _check_ends(parts: Mapping[str, Part], wires: Mapping[End, End], given: Mapping[End, Value]) -> None:
    for part, held in parts.items():
        for name, type_ in held.graph.inputs:
            end = part, name
            if (end in wires) == (end in given):
                raise ValueError(
                    f"input {name} of {part} is {'two things' if end in wires else 'nothing'}: expected one thing"
                )
            if end in wires:
                _check_wire(parts, wires[end], f"input {name} of {part}", type_)


def _check_wire(parts: Mapping[str, Part], source: End, what: str, type_: TensorType) -> None:
    part, name = source
    held = parts[part]
    if name not in held.graph.form.names:
        raise ValueError(f"{what} is to be {name} of {part}, which gives {', '.join(held.graph.form.names)}")
    _, value = _result(parts, part, name)
    there = held.graph.types[value]
    if there != type_:
        raise ValueError(
            f"{what} is {type_.dtype} {list(type_.shape)}, and {name} of {part} {there.dtype} {list(there.shape)}: "
            "expected the same"
        )
    if held.groups is not None and any(isinstance(extent, Slimmed) for extent in held.groups.dims[value]):
        raise ValueError(f"{name} of {part} has channels that a plan drops: what {what} reads has all of them at every plan")


def _check_names(graph: Graph) -> None:
    names = [
        *(name for name, _ in graph.inputs),
        *(parameter.node for parameter in graph.parameters),
        *(node.name for node in graph.nodes),
    ]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"{', '.join(twice)}: stands twice. Call a part or an input otherwise.")


def _renamed(node: Node, part: str, known: Mapping[tuple[str, Value], Value]) -> dict[str, Argument]:
    def renamed(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(map(renamed, argument))
        return known[part, argument] if isinstance(argument, Value) else argument

    return {name: renamed(argument) for name, argument in node.arguments.items()}


def _ordered(nodes: list[Node], there: set[Value]) -> tuple[Node, ...]:
    """Nodes after what they read, otherwise in the order in which they stand."""
    places = {node.name: place for place, node in enumerate(nodes)}
    waiting = {}
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        sources = {value.node for value in node.inputs if value not in there}
        waiting[place] = len(sources)
        for source in sources:
            readers.setdefault(source, []).append(place)
    ready = [place for place, count in waiting.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(nodes[place])
        for reader in readers.get(nodes[place].name, []):
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = min(places.keys() - {node.name for node in order}, key=places.__getitem__)
        raise ValueError(f"{stuck} waits for what is computed from it: parts may not read each other in a circle")
    return tuple(order)
