"""What is gathered of one cell while it is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.cells.cell import INTERRUPTED, MEASURED, NOT_MEASURED, Cell, CellRunner, Result, Round, Timing, milliseconds
from benchmarks.cells.statistics import warnings
from benchmarks.measure.rounds import Turn, join_states


@dataclass
class Track:
    """A cell with its open runner and what was gathered of it."""

    place: int
    cell: Cell
    runner: CellRunner
    closer: ExitStack
    notes: list[str]
    samples: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    states: dict[int, dict[str, Any]] = field(default_factory=dict)
    next_input: int = 0
    rounds_done: float = 0
    is_open: bool = True

    def close(self) -> None:
        self.is_open = False
        self.closer.close()

    def keep(self, turn: Turn, timings: list[Timing], state: Mapping[str, Any]) -> None:
        """Add a turn to its round."""
        self.next_input += len(timings)
        if not timings:
            return
        samples = self.samples.setdefault(turn.round, {})
        for kind, values in milliseconds(timings).items():
            samples.setdefault(kind, []).extend(values)
        before = self.states.get(turn.round)
        self.states[turn.round] = dict(state) if before is None else join_states(before, state)

    def result(self, repeats: int) -> Result:
        """What came out of it; NOT_MEASURED where a time is none."""
        settings = dict(self.runner.settings)
        times = [value for samples in self.samples.values() for values in samples.values() for value in values]
        if not all(0 < value < math.inf for value in times):
            return Result(self.cell, NOT_MEASURED, "a clock gave a time of zero or less, or none at all", settings=settings)
        rounds = tuple(Round(self.samples[number], self.states[number]) for number in sorted(self.samples))
        complete = self.rounds_done >= repeats
        reason = "" if complete else f"interrupted in round {int(self.rounds_done) + 1} of {repeats}"
        result = Result(self.cell, MEASURED if complete else INTERRUPTED, reason, rounds, settings)
        return replace(result, warnings=(*self.notes, *warnings(result)))
