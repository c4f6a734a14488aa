"""The order of a group's slots: the most important first, so that the leading ones, which every plan keeps, are those.

Permuting the slots of one group changes nothing that a network computes: they occupy the same parameter dimensions equally
often (`groups.Group`). The criterion is that of sorted networks: the norm of the weights that *read* a channel
(once-for-all, arXiv 1908.09791, sec. 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slimtrain.graph.graph import PARAMETER, Graph, Parameter, Value
from slimtrain.graph.pieces import FIXED, Pieces
from slimtrain.groups.groups import Groups

Floats = NDArray[np.float64]
POWERS = {"l1": 1, "l2": 2}


def slot_orders(graph: Graph, groups: Groups, arrays: Mapping[str, Floats], order: str) -> dict[str, NDArray[np.int64]]:
    """Group -> its slots, the most important first; of equally important ones the first. `arrays`: parameters by name."""
    if order == "none":
        return {}
    scores = {group.name: np.zeros(group.slots) for group in groups.groups}
    for parameter in graph.parameters:
        extents = groups.dims[Value(parameter.node)]
        if parameter.kind != PARAMETER or len(extents) < 2:
            continue
        reads = _reading_dims(graph, parameter, len(extents))
        powers = np.abs(arrays[parameter.name]) ** POWERS[order]
        for dim, extent in enumerate(extents):
            if dim not in reads or not isinstance(extent, Pieces):
                continue
            along = powers.sum(tuple(d for d in range(powers.ndim) if d != dim))
            for name, slots, positions in slots_along(extent):
                np.add.at(scores[name], slots, along[positions])
    return {name: np.argsort(-score, kind="stable") for name, score in scores.items() if score.any()}


def _reading_dims(graph: Graph, parameter: Parameter, rank: int) -> set[int]:
    """The dimensions of a weight along which it reads: of most all but the first, which it makes."""
    dims = set(range(1, rank))
    for node in graph.nodes:
        if Value(parameter.node) in node.inputs:
            if "transpose" in node.kind or node.arguments.get("transposed"):
                dims = {0}
            elif node.kind in ("matmul", "mm", "bmm") and node.arguments.get("self") != Value(parameter.node):
                dims = {rank - 2}
    return dims


def slots_along(extent: Pieces) -> list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """For every piece that belongs to a group: the group, and slot and position of everything in it."""
    parts = []
    at = 0
    for piece in extent.pieces:
        if piece.group != FIXED:
            slots = np.repeat(np.arange(piece.start, piece.start + piece.count), piece.repeat)
            parts.append((piece.group, slots, np.arange(at, at + piece.full)))
        at += piece.full
    return parts


def permutation(extent: Pieces, orders: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """Where the positions of a dimension come from once its groups' slots stand in `orders`; None where all stay."""
    source = np.arange(extent.full)
    places: dict[tuple[str, int], list[int]] = {}
    for name, slots, positions in slots_along(extent):
        if name in orders:
            for slot, position in zip(slots.tolist(), positions.tolist(), strict=True):
                places.setdefault((name, slot), []).append(position)
    for (name, slot), targets in places.items():
        source[targets] = places[name, int(orders[name][slot])]
    return None if (source == np.arange(extent.full)).all() else source
