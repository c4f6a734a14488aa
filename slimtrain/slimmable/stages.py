"""A network as a list of stages, so that plans that begin alike can share what is computed before they differ.

Two plans that differ in some channel groups compute the same up to the first layer that reads or writes one of these. So the
part of a network before a stage can run once, at one plan, and the part after it many times, at many plans. Stages are the
same operators in the same order on tensors of the same shapes as in the network's own forward pass: the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class StageInput:
    """What passes from one stage to the next: between the first and the last the slots of all values (`graph/order.py`), and
    the images."""

    x: Any
    images: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """`run` computes what the next stage reads, at the network's active plan. `groups`: those that occur here for the first
    time. A stage leaves its input as it is, so that several plans can go on from there."""

    run: Callable[[StageInput], StageInput]
    groups: frozenset[str] = frozenset()
