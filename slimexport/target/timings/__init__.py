"""How long things take on a machine: where that is kept, what runs took, and what a run of `benchmarks` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Samples: TypeAlias = Mapping[str, Mapping[int, Sequence[float]]]  # milliseconds, by label of the width and images of a run
