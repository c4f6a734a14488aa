"""Whether a file still tells images apart as it should.

Most of what a network gives is the same for all images, as the biases of its last layer. A file that gives nothing else has
nearly the right outputs, at the right angle, and is worth nothing. So what differs *between* images is held against the same
of the reference: its direction, its size, and, apart from these, what all images have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.precision import Direction
from slimexport.target.proof.comparing import Pair, finite
from slimexport.target.verification import Verification


@dataclass(frozen=True)
class Differences:
    """Outputs next to the reference's: the `cosine` between what differs between images in both, its `magnitude` as a multiple
    of the reference's, and the `shift` of what all images have in common, relative to the scale. NaN where there is nothing
    to compare."""

    cosine: float
    magnitude: float
    shift: float

    def within(self, proof: Direction) -> bool:
        """False for NaN."""
        return bool(
            self.cosine >= proof.least_difference_cosine
            and 1 / proof.most_magnified <= self.magnitude <= proof.most_magnified
            and self.shift <= proof.most_shift
        )

    def figures(self) -> dict[str, Any]:
        """As manifests hold them, by their keys."""
        return {"difference_cosine": finite(self.cosine), "magnitude": finite(self.magnitude), "shift": finite(self.shift)}


NOTHING = Differences(float("nan"), float("nan"), float("nan"))


def differences(outputs: Array, reference: Array) -> Differences:
    """Of two outputs [rows, ...], the rows of at least two images."""
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        return NOTHING
    numbers, expected = outputs.astype(np.float64), reference.astype(np.float64)
    common, shared = numbers.mean(0), expected.mean(0)
    own, theirs = numbers - common, expected - shared
    sizes, scale = (float(np.linalg.norm(own)), float(np.linalg.norm(theirs))), float(np.abs(expected).max())
    if not sizes[1] or not scale:
        return NOTHING
    alike = float((own * theirs).sum() / (sizes[0] * sizes[1])) if sizes[0] else 0.0
    return Differences(alike, sizes[0] / sizes[1], float(np.abs(common - shared).max()) / scale)


def worst_differences(pairs: Sequence[Pair], names: Sequence[str], proof: Direction) -> Differences:
    """Of the outputs of these `names`: of those that are not within their bounds the first, else the one least alike."""
    those = [differences(pair.output, pair.expected) for pair in pairs if pair.name in names]
    return min(those, key=lambda one: (one.within(proof), one.cosine), default=NOTHING)


def why_apart(check: Verification) -> str:
    """Where its differences made a verification fail: what was measured, and what was expected. Else nothing."""
    proof = Direction()
    if check.least_cosine is None or check.cosine is None or check.cosine < check.least_cosine:
        return ""
    alike, size, shift = (
        float("nan") if figure is None else figure for figure in (check.difference_cosine, check.magnitude, check.shift)
    )
    if Differences(alike, size, shift).within(proof):
        return ""
    sizes = f"{1 / proof.most_magnified:.2f} to {proof.most_magnified}"
    return (
        f"it tells images apart otherwise than the network does: what differs between them has a cosine of {alike:.3f} "
        f"(expected at least {proof.least_difference_cosine}) and {size:.3g} times the size ({sizes}), what they have in "
        f"common is off by {shift:.3g} of the scale (at most {proof.most_shift})"
    )
