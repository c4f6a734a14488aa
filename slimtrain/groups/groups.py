"""Channel groups of a graph, found by running it on labels (the idea of dependency graphs, arXiv 2301.12900, without their
index maps: every position of every dimension is followed by itself)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slimtrain.graph.extents import Dims, Extent
from slimtrain.graph.graph import STATISTIC, Batch, Graph, Node, TensorType, Value
from slimtrain.graph.labels import (  # noqa: F401  they enter rules
    convolutions,
    moves,
    norms,
    pointwise,
    products,
    recurrent,
    reductions,
    views,
)
from slimtrain.graph.labels.labelling import BATCH, Axis, Ids, Labelling, Labels
from slimtrain.graph.labels.registry import RULES, Call
from slimtrain.graph.pieces import Pieces, pieces_of
from slimtrain.graph.policy import Policy

FIXED = "it is kept as it is"
KERNEL_FROM = 2  # the dimension of a convolution's weight that its kernel begins with
Places = tuple[tuple[str, int, int], ...]  # (parameter's name, dimension, positions there) that one slot occupies


@dataclass(frozen=True)
class Group:
    """Slots that are alike: each occupies the same parameter dimensions as often. `slots`: how many there are. `dims`: the
    (parameter, dimension)s that they occupy, with the positions that one slot has there."""

    name: str
    slots: int
    dims: Places


@dataclass(frozen=True)
class PinnedDim:
    """Positions of a parameter's dimension that no plan slims, the node at which that turned out, and why."""

    parameter: str
    dim: int
    positions: int
    place: str
    op: str
    reason: str


@dataclass(frozen=True)
class Groups:
    """The channel groups of a graph under one policy. `dims`: the extents of every value's dimensions. `reordered`: nodes
    after which a narrow network's channels stand in another order than the wide one's (`Policy.shuffles`)."""

    policy: Policy
    groups: tuple[Group, ...]
    dims: Dims
    pinned: tuple[PinnedDim, ...] = ()
    notes: frozenset[str] = frozenset()
    reordered: frozenset[str] = frozenset()

    @property
    def sizes(self) -> dict[str, int]:
        """Group -> slots: the channels of the widest plan."""
        return {group.name: group.slots for group in self.groups}


def find_groups(graph: Graph, policy: Policy | None = None) -> Groups:
    """The channel groups of `graph`. An operator without a rule pins what it reads, and `pinned` says so."""
    run = Labelling(policy or Policy())
    _label(graph, run)
    component, pins = _components(run)
    alike = _alike(graph, run, component, pins)
    names = _group_names(graph, [places for places, _ in alike])
    which = np.full(len(pins), -1)
    ranks = np.zeros(len(pins), np.int64)
    for index, (_, slots) in enumerate(alike):
        which[slots], ranks[slots] = index, np.arange(len(slots))
    known: dict[tuple[bytes, bool], Extent | None] = {}  # most dimensions are like others: everything along one group is

    def extent(axis: Axis | None, size: int | Batch) -> Extent:
        if axis is None:
            return size
        slots, batch = component[axis.ids], isinstance(size, Batch)
        key = slots.tobytes(), batch
        if key not in known:
            known[key] = None
            if (which[slots] >= 0).any():
                if batch:  # the same for every image, the images outermost (`_label` saw to that)
                    slots = slots[: len(slots) // BATCH]
                known[key] = Pieces(pieces_of(names, ranks[slots], which[slots]), batch)
        pieces = known[key]
        return size if pieces is None else pieces

    dims = {
        value: tuple(extent(axis, size) for axis, size in zip(run.labels[value].axes, type_.shape, strict=True))
        for value, type_ in graph.types.items()
    }
    groups = tuple(Group(name, len(slots), places) for name, (places, slots) in zip(names, alike, strict=True))
    return Groups(
        run.policy, groups, dims, _pinned_dims(graph, run, component, pins), frozenset(run.notes), frozenset(run.reordered)
    )


def _label(graph: Graph, run: Labelling) -> None:
    for name, type_ in graph.inputs:
        run.labels[Value(name)] = Labels.none(type_.at(BATCH))
    kernels = _kernels(graph)
    for parameter in graph.parameters:
        shape = parameter.type.at(BATCH)
        labelled = parameter.type.floating and len(shape) > 0
        dims = range(KERNEL_FROM if parameter.node in kernels else len(shape)) if labelled else ()
        axes = {dim: run.fresh(shape[dim]) for dim in dims if shape[dim] > 1}
        run.labels[Value(parameter.node)] = Labels.along(shape, dict(axes))
        if parameter.name.startswith(run.policy.fixed):
            run.pin_axis(axes.get(0), FIXED)
    for node in graph.nodes:
        run.node = node
        for index, labels in enumerate(_labels_of(Call(run, node))):
            run.labels[Value(node.name, index)] = _same_for_all(run, labels, node.outputs[index])
    run.node = None
    for (name, _), value in zip(graph.results, graph.outputs, strict=True):
        if not name.startswith(run.policy.inner):
            run.pin_all(run.labels[value], "the network gives it out")


def _kernels(graph: Graph) -> set[str]:
    """The stored tensors that become convolutions' weights, as they are or computed with. Their last dimensions are places and
    no channels: they get no ids, so that a view of all that an output reads still shows its channels."""
    sources = {node.name: node.inputs for node in graph.nodes}
    pending = [node.arguments.get("weight") for node in graph.nodes if node.kind.startswith("conv")]
    seen: set[str] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, Value) and value.node not in seen:
            seen.add(value.node)
            pending += sources.get(value.node, ())
    return {name for name in seen if name in graph.by_node and len(graph.by_node[name].type.shape) > KERNEL_FROM + 1}


def _labels_of(call: Call) -> list[Labels]:
    if not any(labels.labelled for labels in call.inputs) and call.node.kind not in pointwise.UNIFORM:
        return [Labels.none(shape) for shape in call.shapes]
    function, reason = RULES.get(call.node.kind), f"{call.node.op} has no rule here"
    if function is not None:
        try:
            labels = function(call)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
            reason = f"{call.node.op} is used in a way that has no rule here"
        else:
            if [part.shape for part in labels] == call.shapes and all(map(_well_formed, labels)):
                return labels
            reason = f"{call.node.op} is used in a way that has no rule here"
    for part in call.inputs:
        call.run.pin_all(part, reason)
    return [Labels.none(shape) for shape in call.shapes]


def _well_formed(labels: Labels) -> bool:
    """Whether there are as many ids as positions."""
    return all(axis is None or len(axis) == size for axis, size in zip(labels.axes, labels.shape, strict=True))


def _same_for_all(run: Labelling, labels: Labels, type_: TensorType) -> Labels:
    """Labels that are alike for every image: others are pinned."""
    axes = list(labels.axes)
    for dim, (axis, size) in enumerate(zip(axes, type_.shape, strict=True)):
        if axis is None:
            continue
        if isinstance(size, Batch):
            rows = axis.ids.reshape(BATCH, -1)
            if not (rows == rows[:1]).all():
                run.pin(axis.ids, "it differs from image to image")
                axes[dim] = None
    return Labels(labels.shape, tuple(axes))


def _components(run: Labelling) -> tuple[Ids, Ids]:
    """id -> component, and component -> index of the first pin that hit it, -1 where it is free."""
    from scipy.sparse import coo_matrix  # half a second that nothing else here needs
    from scipy.sparse.csgraph import connected_components

    first = np.concatenate([tie[0] for tie in run.ties] or [np.zeros(0, np.int64)])
    second = np.concatenate([tie[1] for tie in run.ties] or [np.zeros(0, np.int64)])
    ties = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(run.ids, run.ids))
    count, component = connected_components(ties, directed=False)
    pins = np.full(count, -1)
    for index in range(len(run.pins) - 1, -1, -1):
        pins[component[run.pins[index].ids]] = index
    return component, pins


def _alike(graph: Graph, run: Labelling, component: Ids, pins: Ids) -> list[tuple[Places, Ids]]:
    """The free components in groups of those that occupy the same dimensions equally often. Groups, and components within
    them, stand in order of first occurrence."""
    used = {value.node for node in graph.nodes for value in node.inputs} | {value.node for value in graph.outputs}
    rows: list[tuple[str, int, Ids, Ids]] = []  # a parameter's dimension: the components along it, how often each occurs
    counted: dict[bytes, tuple[Ids, Ids]] = {}
    kind = np.zeros(len(pins), np.int64)  # components of one kind are alike in all dimensions so far
    new, order = np.ones(len(pins), bool), [np.zeros(0, np.int64)]
    for parameter in graph.parameters:
        if parameter.node not in used:
            continue
        for dim, axis in enumerate(run.labels[Value(parameter.node)].axes):
            if axis is None:
                continue
            slots = component[axis.ids]
            key = slots.tobytes()
            if key not in counted:  # what occupies the same again tells nothing apart
                counted[key] = slots, counts = _counted(slots[pins[slots] < 0])
                _refine(kind, slots, counts)
                order.append(slots[new[slots]])
                new[slots] = False
            rows.append((parameter.name, dim, *counted[key]))
    for ids in run.parts:
        _refine(kind, *_counted(component[ids]))
    slots = np.concatenate(order)
    _, firsts, inverse, sizes = np.unique(kind[slots], return_index=True, return_inverse=True, return_counts=True)
    members = np.split(slots[np.argsort(inverse, kind="stable")], np.cumsum(sizes)[:-1]) if len(slots) else []
    groups = [members[index] for index in np.argsort(firsts)]
    example = np.full(len(pins), -1)  # a group's first component -> the group
    example[[group[0] for group in groups]] = np.arange(len(groups))
    places: list[list[tuple[str, int, int]]] = [[] for _ in groups]
    for name, dim, slots, counts in rows:
        indices = example[slots]
        for index, count in zip(indices[indices >= 0].tolist(), counts[indices >= 0].tolist(), strict=True):
            places[index].append((name, dim, count))
    return [(tuple(sorted(places[index])), group) for index, group in enumerate(groups)]


def _refine(kind: Ids, slots: Ids, counts: Ids) -> None:
    """Tell apart what occurs differently often."""
    _, inverse = np.unique(np.stack([kind[slots], counts]), axis=1, return_inverse=True)
    kind[slots] = kind.max(initial=0) + 1 + inverse.reshape(-1)


def _counted(slots: Ids) -> tuple[Ids, Ids]:
    """Which there are, in order of first occurrence, and how often."""
    names, starts, counts = np.unique(slots, return_index=True, return_counts=True)
    order = np.argsort(starts)
    return names[order], counts[order]


def _group_names(graph: Graph, ordered: Iterable[Places]) -> list[str]:
    """A group is called after the module whose outputs it is: that of the first parameter which it occupies in dimension 0."""
    order = {parameter.name: index for index, parameter in enumerate(graph.parameters)}
    names: list[str] = []
    for places in ordered:
        makers = [(order[name], name) for name, dim, _ in places if dim == 0] or [(order[name], name) for name, _, _ in places]
        name = min(makers)[1].rpartition(".")[0] or min(makers)[1]
        taken = sum(other == name or other.rpartition("#")[0] == name for other in names)
        names.append(f"{name}#{taken + 1}" if taken else name)
    return names


def _pinned_dims(graph: Graph, run: Labelling, component: Ids, pins: Ids) -> tuple[PinnedDim, ...]:
    rows = []
    counted: dict[bytes, list[tuple[int, int]]] = {}
    for parameter in graph.parameters:
        if parameter.kind == STATISTIC:
            continue
        for dim, axis in enumerate(run.labels[Value(parameter.node)].axes):
            if axis is None:
                continue
            slots = component[axis.ids]
            key = slots.tobytes()
            if key not in counted:
                causes, counts = np.unique(pins[slots], return_counts=True)
                counted[key] = [pair for pair in zip(causes.tolist(), counts.tolist(), strict=True) if pair[0] >= 0]
            for cause, count in counted[key]:
                pin = run.pins[cause]
                place, op = _place(pin.node)
                rows.append(PinnedDim(parameter.name, dim, count, place, op, pin.reason))
    return tuple(rows)


def _place(node: Node | None) -> tuple[str, str]:
    return (node.place, node.op) if node else ("the network's output", "output")
