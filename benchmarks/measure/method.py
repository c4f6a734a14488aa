"""How long cells are measured, and how long that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells.cell import Cell
from benchmarks.measure.rounds import schedule
from slimtrain.base.errors import UserError


class BadMethod(UserError):
    """A duration, count or warm-up that nothing can be measured with."""


@dataclass(frozen=True)
class Method:
    """How long a cell is measured: `duration_s` and `least_iterations` over all its `repeats` rounds, and `warmup_s` before
    each turn. Raises BadMethod for values that make no sense."""

    duration_s: float = 3.0
    repeats: int = 3
    warmup_s: float = 0.2
    least_iterations: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < math.inf:
            raise BadMethod(f"duration {self.duration_s:g} s: expected seconds above 0, as in 3.")
        if not 0 <= self.warmup_s < math.inf:
            raise BadMethod(f"warm-up {self.warmup_s:g} s: expected seconds, 0 or more, as in 0.2.")
        for name, value in (("repeats", self.repeats), ("least iterations", self.least_iterations)):
            if value < 1:
                raise BadMethod(f"{name} {value}: expected 1 or more.")


def by_group(cells: Sequence[Cell]) -> list[list[int]]:
    """The places of the cells in `cells`, group by group, in order of appearance."""
    groups: dict[tuple[str, str, str, int], list[int]] = {}
    for place, cell in enumerate(cells):
        groups.setdefault(cell.group, []).append(place)
    return list(groups.values())


def expected_seconds(cells: Sequence[Cell], method: Method) -> float:
    """What measuring takes, warm-ups included. A lower bound: loading comes on top, and so does what a network that takes
    longer than `duration_s / least_iterations` for an iteration needs beyond `duration_s`."""
    turns = sum(len(schedule(len(places), method.repeats)) for places in by_group(cells))
    return len(cells) * method.duration_s + turns * method.warmup_s
