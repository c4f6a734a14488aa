"""Outputs next to what they should be: differences relative to the largest absolute value of the latter (the *scale*), so that
one tolerance fits all networks, and the angle between both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.reference import Probes

BLOCK = 2**20  # numbers that are compared at a time: of a pyramid's maps, differences in float64 are gigabytes


@dataclass(frozen=True)
class Comparison:
    """Outputs of a file next to the reference's. Relative to the scale; NaN where something is not finite. Of several outputs
    it is the worst, and `output` says which. No `top1_agreement` where outputs name no classes."""

    max_rel_error: float
    top1_agreement: float | None
    output: str | None = None

    def within(self, tolerance: float) -> bool:
        return bool(self.max_rel_error <= tolerance)  # False for NaN


@dataclass(frozen=True)
class Pair:
    """An output of a file, and what it should be, both [rows, ...]."""

    name: str
    output: Array
    expected: Array


def spread(reference: Array, images: int | None = None) -> float:
    """How far outputs [P, ...] differ between probe images, relative to their scale: the largest over classes and places. The
    rows are those of `images` images, if not one of each."""
    values = reference.reshape(len(reference) if images is None else images, -1)
    scale = np.abs(values).max()
    if not 0 < scale < np.inf:  # a reference of zeros, NaN or infinities tells nothing apart
        return 0.0
    return float((values.max(0) * 1.0 - values.min(0)).max() / scale)


def least_spread(probes: Probes) -> float:
    """That of the output which differs least."""
    return min(spread(part.values, len(probes.images)) for part in probes.expected)


def least_spread_output(probes: Probes) -> str | None:
    """Its name, where there are several."""
    least = min(probes.expected, key=lambda part: spread(part.values, len(probes.images)))
    return least.name if len(probes.expected) > 1 else None


def has_classes(shape: Sequence[int]) -> bool:
    """Whether the second size of [N, C] or [N, C, H, W] counts classes: dense outputs of one channel are numbers."""
    return len(shape) == 2 or (len(shape) == 4 and shape[1] > 1)


def compare(outputs: Array, reference: Array) -> Comparison:
    """`outputs` against `reference`, both [P, classes] or of any other shape. Another shape counts as wholly wrong. Of whole
    numbers, such as classes, the error is the share that differs."""
    if outputs.shape != reference.shape:
        return Comparison(float("inf"), 0.0)
    agreement = float((outputs.argmax(1) == reference.argmax(1)).mean()) if has_classes(reference.shape) else None
    if reference.dtype.kind != "f":
        differs = float((outputs != reference).mean())
        return Comparison(differs, 1 - differs)
    given, expected = outputs.reshape(-1), reference.reshape(-1)
    blocks = [slice(start, start + BLOCK) for start in range(0, len(expected), BLOCK)]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.max([np.abs(expected[block]).max() for block in blocks])
        difference = np.max([np.abs(given[block].astype(np.float64) - expected[block]).max() for block in blocks])
        error = 0.0 if difference == 0 else float(difference / scale)
    return Comparison(error, agreement)


def compare_all(pairs: Sequence[Pair]) -> Comparison:
    """The worst of all outputs; of agreements the least."""
    named = len(pairs) > 1
    return worst([replace(compare(pair.output, pair.expected), output=pair.name if named else None) for pair in pairs])


def worst(comparisons: Sequence[Comparison]) -> Comparison:
    """The largest error, one that is not finite before all, and the least agreement."""
    largest = max(comparisons, key=lambda one: (np.isnan(one.max_rel_error), one.max_rel_error))
    agreements = [one.top1_agreement for one in comparisons if one.top1_agreement is not None]
    return replace(largest, top1_agreement=min(agreements, default=None))


def finite(value: float) -> float | None:
    """A figure as manifests hold it: None where it is not finite."""
    return value if np.isfinite(value) else None


def cosine(outputs: Array, reference: Array) -> float:
    """The cosine between two sets of outputs, what decides nothing taken off: of logits, also of every place, what all classes
    share, of others the image's mean."""
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        return float("nan")
    axes = _shared(reference.shape)
    a, b = (values.astype(np.float64) - values.mean(axes, keepdims=True) for values in (outputs, reference))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if norms else float("nan")


def _shared(shape: Sequence[int]) -> tuple[int, ...]:
    return (1,) if has_classes(shape) else tuple(range(1, len(shape)))


def has_direction(reference: Array) -> bool:
    """Whether outputs [P, ...] differ from what `cosine` takes off, so that their cosine with others says something."""
    axes = _shared(reference.shape)
    return bool(axes) and reference.dtype.kind == "f" and bool(np.ptp(reference, axis=axes).max() > 0)


def directed(probes: Probes) -> list[str]:
    """The outputs that have a direction."""
    return [part.name for part in probes.expected if has_direction(part.values)]


def compare_directions(pairs: Sequence[Pair], names: Sequence[str]) -> tuple[float, str | None]:
    """The least cosine of the outputs of these `names`, and, of several, whose it is; NaN where something is not finite."""
    cosines = [(cosine(pair.output, pair.expected), pair.name) for pair in pairs if pair.name in names]
    least, name = min(cosines, key=lambda one: (not np.isnan(one[0]), one[0]), default=(float("nan"), ""))
    return least, name if len(pairs) > 1 else None
