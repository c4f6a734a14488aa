"""Views: the same elements under another shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from slimtrain.graph.labels.labelling import Axis, Ids, Labelling, Labels
from slimtrain.graph.labels.registry import Call, rule

JOINED = "a view joins it with another dimension that has channels"
# What a report may say of a network: views that split channels, and views of what was split before.
SPLIT, SHUFFLED = "split channels", "shuffled channels"
FEW = (
    4  # a factor of so few positions (query, key, value; two halves) is not what a view is narrowed along, if there is another
)


@rule(
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"),
    *("_reshape_alias", "atleast_1d", "ravel"),
)
def view(call: Call) -> list[Labels]:
    x = call.labels("self", "input")
    shape = call.shape
    if math.prod(x.shape) != math.prod(shape) or not math.prod(shape):
        call.run.pin_all(x, "a view of no elements, or of others")
        return [Labels.none(shape)]
    axes: dict[int, Axis | None] = {}
    for old, new in blocks(x.shape, shape):
        labelled = [(dim, axis) for dim in old if (axis := x.axes[dim]) is not None]
        if any(not axis.free for _, axis in labelled):  # these can be followed where those of one number stay as many
            for axis in (axis for _, axis in labelled if axis.free):
                call.run.pin(axis.ids, JOINED)
            labelled = [(dim, axis) for dim, axis in labelled if not axis.free]
        if len(labelled) > 1:  # none of them can be followed alone
            for _, axis in labelled:
                call.run.pin(axis.ids, JOINED)
        elif labelled:
            ((dim, axis),) = labelled
            spread = _spread(axis.ids, [x.shape[d] for d in old], old.index(dim), [shape[d] for d in new])
            place, narrowed = _narrowed(call.run, spread, axis.tied)
            if place is not None:
                axes[new[place]] = narrowed
    return [Labels.along(shape, axes)]


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The dimensions of two shapes of equally many elements, in the smallest parts that hold the same elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = old[i : i + 1], new[j : j + 1]
        while math.prod(left) != math.prod(right):
            if math.prod(left) < math.prod(right):
                left = old[i : i + len(left) + 1]
            else:
                right = new[j : j + len(right) + 1]
        yield list(range(i, i + len(left))), list(range(j, j + len(right)))
        i, j = i + len(left), j + len(right)


def _spread(ids: Ids, old: Sequence[int], dim: int, new: Sequence[int]) -> Ids:
    """The ids of dimension `dim` of a block of shape `old` over all of the block, in its new shape."""
    line = ids.reshape([-1 if d == dim else 1 for d in range(len(old))])
    return np.broadcast_to(line, old).reshape(new)


def _varying(ids: Ids) -> list[int]:
    """The dimensions along which ids are not all the same."""
    return [d for d in range(ids.ndim) if ids.shape[d] > 1 and not (ids == np.take(ids, [0], d)).all()]


def _narrowed(run: Labelling, ids: Ids, tied: bool) -> tuple[int | None, Axis | None]:
    """Where a block's ids go: to one of its new dimensions; those along the others are tied."""
    varying = _varying(ids)
    if not varying:
        return None, None
    free = varying[0]
    if len(varying) > 1:
        run.notes.add(SPLIT)
        wide = [d for d in varying if ids.shape[d] > FEW] or varying
        free = wide[0] if run.policy.heads == "outer" else wide[-1]
    line = ids[tuple(slice(None) if d == free else 0 for d in range(ids.ndim))]
    if len(varying) > 1:
        run.tie(ids, line.reshape([-1 if d == free else 1 for d in range(ids.ndim)]))
        tied = True
    elif tied and run.policy.shuffles == "exact":
        run.notes.add(SHUFFLED)
    elif tied:
        turned = _in_turn(line)
        if turned is not line and run.node is not None:
            run.reordered.add(run.node.name)
        line = turned
    return free, Axis(line, tied)


def _in_turn(ids: Ids) -> Ids:
    """a a b b c c as a b c a b c: a shuffled order taken for any order."""
    repeat = len(ids) // max(len(np.unique(ids)), 1)
    rows = ids.reshape(-1, repeat) if repeat > 1 and len(ids) % repeat == 0 else None
    if rows is None or not (rows == rows[:, :1]).all():
        return ids
    return np.tile(rows[:, 0], repeat)
