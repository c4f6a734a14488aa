"""What comes of a proof in parts, and how values of few bits are weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimexport.detector_proof.exact import Exact
from slimexport.target.proof.comparing import Pair


@dataclass
class Parts:
    """What came of it: `ties` of so many `rows` that were chosen, the largest `error` of values, relative to their scale, in
    `part`, the `tolerance` that this was held to, or the least `cosine` with what they should be, and the first `fault`, if
    any. `exact`: what it was held against."""

    rows: int = 0
    ties: int = 0
    error: float = 0.0
    tolerance: float = 0.0
    cosine: float = 1.0
    part: str = ""
    fault: str = ""
    exact: Exact | None = None

    @property
    def right(self) -> bool:
        return not self.fault

    def refuse(self, fault: str) -> None:
        self.fault = self.fault or fault


def likeness(pairs: Sequence[Pair]) -> float:
    """The cosine of outputs [rows, channels, ...] with what they should be, all together, both less the mean of each channel
    there; NaN of another shape, and where something is not finite. Channels that are the same everywhere have no direction.

    Levels of a pyramid are taken together: the last ones have a few places, whose differences may be less than a step."""
    products = np.zeros(3)
    for pair in pairs:
        given, expected = pair.output.astype(np.float64), pair.expected.astype(np.float64)
        if given.shape != expected.shape:
            return float("nan")
        common = expected.mean((0, *range(2, expected.ndim)), keepdims=True)
        given, expected = given - common, expected - common
        products += [(given * expected).sum(), (given * given).sum(), (expected * expected).sum()]
    norms = float(np.sqrt(products[1] * products[2]))
    return float(products[0] / norms) if norms else float(not products[1])
