"""The order of a group's slots: the most important first, so that the leading ones, which every plan keeps, are those.

Permuting the slots of one group changes nothing that a network computes: they occupy the same parameter dimensions equally
often (`groups.Group`). The criterion is that of sorted networks: the norm of the weights that *read* a channel
(once-for-all, arXiv 1908.09791, sec. 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimtrain.graph.graph import PARAMETER, Graph, Node, Value
from slimtrain.graph.pieces import FIXED, Pieces
from slimtrain.groups.groups import Groups

Floats = NDArray[np.floating[Any]]
POWERS = {"l1": 1, "l2": 2}
BLOCK = 2**16  # numbers that are added up at a time, so that they stay near the processor


def slot_orders(graph: Graph, groups: Groups, arrays: Mapping[str, Floats], order: str) -> dict[str, NDArray[np.int64]]:
    """Group -> its slots, the most important first; of equally important ones the first. `arrays`: parameters by name."""
    if order == "none":
        return {}
    scores = {group.name: np.zeros(group.slots) for group in groups.groups}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value.node, []).append(node)
    for parameter in graph.parameters:
        extents = groups.dims[Value(parameter.node)]
        if parameter.kind != PARAMETER or len(extents) < 2:
            continue
        reads = _reading_dims(readers.get(parameter.node, []), Value(parameter.node), len(extents))
        slimmed = [(dim, extents[dim]) for dim in sorted(reads) if isinstance(extents[dim], Pieces)]
        sums = _sums(arrays[parameter.name], [dim for dim, _ in slimmed], POWERS[order])
        for (_, extent), along in zip(slimmed, sums, strict=True):
            assert isinstance(extent, Pieces)
            for name, slots, positions in slots_along(extent):
                scores[name] += np.bincount(slots, along[positions], len(scores[name]))
    return {name: np.argsort(-score, kind="stable") for name, score in scores.items() if score.any()}


def _reading_dims(readers: Iterable[Node], weight: Value, rank: int) -> set[int]:
    """The dimensions of a weight along which it reads: of most all but the first, which it makes."""
    dims = set(range(1, rank))
    for node in readers:
        if "transpose" in node.kind or node.arguments.get("transposed"):
            dims = {0}
        elif node.kind in ("matmul", "mm", "bmm") and node.arguments.get("self") != weight:
            dims = {rank - 2}
    return dims


def _sums(array: Floats, dims: Sequence[int], power: int) -> list[Floats]:
    """Sums of powers of absolute values in float64, along each of `dims`. Where the first is none of them, it is added up
    before the others, in one pass through the memory as it lies."""
    if not dims:
        return []
    if 0 in dims:
        powers = _powers(array, power)
    else:
        powers = np.zeros((1, *array.shape[1:]))
        rows = max(1, BLOCK * len(array) // max(array.size, 1))
        for start in range(0, len(array), rows):
            powers += _powers(array[start : start + rows], power).sum(0, keepdims=True, dtype=np.float64)
    return [powers.sum(tuple(d for d in range(powers.ndim) if d != dim), dtype=np.float64) for dim in dims]


def _powers(array: Floats, power: int) -> Floats:
    return np.abs(array) if power == 1 else np.abs(array.astype(np.float64)) ** power


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
    parts: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    for name, slots, positions in slots_along(extent):
        if name in orders:
            parts.setdefault(name, []).append((slots, positions))
    for name, several in parts.items():
        slots, positions = (np.concatenate(arrays) for arrays in zip(*several, strict=True))
        of_slots = positions[np.argsort(slots, kind="stable")].reshape(len(orders[name]), -1)  # [slots, positions of one]
        source[of_slots] = of_slots[orders[name]]
    return None if (source == np.arange(extent.full)).all() else source
