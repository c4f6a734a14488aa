"""Labels in place of numbers: what a graph is run on to find out which channels exist or vanish together.

Every position of every parameter's dimensions has an id of its own. Operators move ids (views, concatenations, splits do to
them what they do to channels) or *tie* them (a sum ties what it adds). What is tied together is one *slot*. Ids that are
*pinned* never vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slimtrain.graph.graph import Node, Value
from slimtrain.graph.policy import Policy

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """The ids along one dimension. `tied`: a view tied several dimensions to make these, as a channel shuffle does. `free`: of
    what is the same number everywhere, and met nothing yet."""

    ids: Ids
    tied: bool = False
    free: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Labels:
    """A tensor: its shape (with `BATCH` images), and for every dimension its ids, None where no parameter stands behind it."""

    shape: tuple[int, ...]
    axes: tuple[Axis | None, ...]

    @staticmethod
    def none(shape: Sequence[int]) -> Labels:
        return Labels(tuple(shape), (None,) * len(shape))

    @staticmethod
    def along(shape: Sequence[int], axes: dict[int, Axis | None]) -> Labels:
        """Ids along some dimensions (a negative one counts from the end); dimensions of one position have none."""
        rank = len(shape)
        axes = {dim % rank: axis for dim, axis in axes.items()}
        return Labels(tuple(shape), tuple(axes.get(dim) if size > 1 else None for dim, size in enumerate(shape)))

    def axis(self, dim: int) -> Axis | None:
        return self.axes[dim]

    @property
    def labelled(self) -> bool:
        return any(axis is not None for axis in self.axes)


BATCH = 2  # images that labels are run with; ids along a batch would be the same for every image


@dataclass(frozen=True)
class Pin:
    """Ids that never vanish, the node at which that turned out, and why."""

    ids: Ids
    node: Node | None
    reason: str


@dataclass
class Labelling:
    """The labels of all values so far, and what was tied and pinned on the way. Rules read `node`, and call the rest.

    `parts`: ids that were taken out of their dimension: what is done to a part alone makes its slots others than the rest's,
    whatever parameters they share. `notes`: what a report should say of the network. `reordered`: nodes
    whose shuffled order is taken for another one.
    """

    policy: Policy
    labels: dict[Value, Labels] = field(default_factory=dict)
    ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    parts: list[Ids] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    reordered: set[str] = field(default_factory=set)
    node: Node | None = None
    ids: int = 0

    def fresh(self, count: int) -> Axis:
        """`count` ids that nothing else has."""
        self.ids += count
        return Axis(np.arange(self.ids - count, self.ids))

    def tie(self, first: Ids, second: Ids) -> None:
        """Ids that exist or vanish together; of any two shapes that broadcast."""
        if first is not second:
            a, b = np.broadcast_arrays(first, second)
            self.ties.append((a.reshape(-1), b.reshape(-1)))

    def pin(self, ids: Ids, reason: str) -> None:
        self.pins.append(Pin(np.unique(ids), self.node, reason))

    def pin_axis(self, axis: Axis | None, reason: str) -> None:
        """Pin a dimension, if it has ids."""
        if axis is not None:
            self.pin(axis.ids, reason)

    def pin_all(self, labels: Labels, reason: str) -> None:
        for axis in labels.axes:
            self.pin_axis(axis, reason)

    def match(self, axes: Iterable[Axis | None], reason: str) -> Axis | None:
        """Dimensions that run along each other: all tied, and pinned where one of them has no ids. What the result has."""
        axes = list(axes)
        known = [axis for axis in axes if axis is not None]
        if not known:
            return None
        first, *others = sorted(known, key=lambda axis: axis.free)
        for other in others:
            self.tie(first.ids, other.ids)
        if len(known) < len(axes):
            self.pin(first.ids, reason)
            return None
        return Axis(first.ids, any(axis.tied for axis in known), first.free)

    def broadcast(self, operands: Iterable[Labels], shape: Sequence[int], reason: str) -> Labels:
        """Operands that are combined element by element, aligned at their last dimensions."""
        operands = list(operands)
        axes: dict[int, Axis | None] = {}
        for dim in range(-len(shape), 0):
            met = [op.axes[dim] for op in operands if len(op.shape) >= -dim and op.shape[dim] > 1]
            axes[dim] = self.match(met, reason)
        return Labels.along(shape, axes)
