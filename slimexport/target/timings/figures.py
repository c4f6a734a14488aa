"""What many runs of one network at one batch come down to: the figures that a choice of widths needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from slimexport.target.records import Record, Within

Milliseconds = Annotated[float, Within(1e-6, 1e9)]
USUAL, HIGH = 0.5, 0.95


@dataclass(frozen=True, kw_only=True)
class Figures(Record):
    """Milliseconds of one run: the median, and what 95 of 100 runs do not exceed."""

    usual_ms: Milliseconds
    high_ms: Milliseconds


Timings = Mapping[str, Mapping[int, Figures]]  # by label of the width, then by images of a run


def percentile(samples: Sequence[float], share: float = HIGH) -> float:
    """The smallest sample that at least `share` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def figures_of(samples_ms: Sequence[float]) -> Figures:
    """Of some samples, at least one; of few the high one is the longest."""
    return Figures(usual_ms=percentile(samples_ms, USUAL), high_ms=percentile(samples_ms, HIGH))
