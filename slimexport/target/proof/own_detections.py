"""Detections of a file of fewer bits: as a whole next to other ones, and next to what the file gave when it was proven.

Fewer bits rank near-equal boxes otherwise, and so choose others, each of which is right. What such a file computes is proven
layer by layer where it is written. Here its detections are weighed as a whole: how far those of both sides cover each other,
by score and overlap (`likeness`). Where the same runtime runs it on the same processor, they are the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.errors import BundleError
from slimexport.target.precision import EXACT, Precision
from slimexport.target.proof.comparing import Pair, finite
from slimexport.target.proof.detections import Rules, agreement_of, overlaps_of, rules_of
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.proof.plugin_detections import as_detections
from slimexport.target.proof.running import partitions, run_apart, run_on_probes
from slimexport.target.reference import Own, Probes
from slimexport.target.runners import Runner
from slimexport.target.tensors import BOXES, COUNT, LABELS, SCORES
from slimexport.target.verification import FAILED, IN_PART, PASSED, Verification

# How far a file's detections are like those of the network in float64. What is wrong is found by layers, and by what the file
# gave itself: this says that the number format is fit for the network at all.
LEAST_ALIKE = {"float32": 0.9, "float16": 0.9, "bfloat16": 0.7, "int8": 0.6}  # float32: TF32, of as many bits as float16
LEAST_OVERLAP = 0.5  # of two boxes that may be one detection
THE_SAME = 1e-4  # of scores and of the images' side, where the same runtime runs a file
LEEWAY = 4.0  # times what roundings that fall otherwise were seen to change
ODD = "its detections are not finite, or not of the reference's shape"
NOTHING = "nothing is detected on the probe images: what chooses detections was seen on drawn values alone"


def is_weighed(row: Precision) -> bool:
    """Whether detections in these numbers are held to others as a whole, and not one by one."""
    return row.name != EXACT


def likeness(pairs: Sequence[Pair]) -> float:
    """How far detections [B, ...] of both sides cover each other, the worst of all images: 1 where they are the same, or there
    are none. Each counts by its score, with one of its class on the other side as far as both overlap; NaN of another
    shape, or where something is not finite."""
    given = {pair.name: pair.output for pair in pairs}
    expected = {pair.name: pair.expected for pair in pairs}
    for name, values in expected.items():
        if given[name].shape != values.shape or not np.isfinite(given[name].astype(np.float64)).all():
            return float("nan")
    shared = np.array([_shared(_rows(given, image), _rows(expected, image)) for image in range(len(expected[COUNT]))])
    common, scores = shared.sum(0)
    return float(2 * common / scores) if scores else 1.0


def near_detections(pairs: Sequence[Pair], rules: Rules, row: Precision, check: Verification) -> Verification:
    """A verification that passed, of a file whose detections are in `pairs` next to the network's in float64, once these are
    alike as far as its number format permits."""
    alike, least = likeness(pairs), LEAST_ALIKE[row.number]
    detections = int(sum(pair.expected.sum() for pair in pairs if pair.name == COUNT))
    held = replace(check, alike=finite(alike), least_alike=least, detections=detections)
    fault = ODD if np.isnan(alike) else _ill_formed(pairs, rules)
    if fault:
        return replace(held, status=FAILED, reason=fault)
    if not alike >= least:
        reason = (
            f"its detections are like the network's to {alike:.2f}, expected at least {least}: {row.name} is too coarse for it"
        )
        return replace(held, status=FAILED, reason=reason)
    if not detections:
        return replace(held, status=IN_PART if check.status == PASSED else check.status, reason=NOTHING)
    return held


def held_to_near_detections(
    runner: Runner, probes: Probes, row: Precision, ways: Sequence[Sequence[Array]] = ()
) -> Verification:
    """The verification of a detector's file of fewer bits by what it detects, on images in batches of each of these `ways`, by
    default alone, in pairs and all at once: the worst counts."""
    rules = _rules(probes)
    check = Verification(status=PASSED, backend=runner.backend, probes=len(probes.images))
    runs = [run_on_probes(runner, probes, batches) for batches in ways or partitions(len(probes.images))]
    held = [near_detections(as_detections(pairs), rules, row, check) for pairs in runs]
    last = min(held, key=lambda one: (one.passed, one.alike or 0.0))
    lacking = None if last.alike is None else 1 - last.alike
    return replace(last, max_rel_error=lacking, tolerance=1 - LEAST_ALIKE[row.number])


def held_to_own_detections(
    runner: Runner, own: Own, probes: Probes, row: Precision, check: Verification, recorded: Verification
) -> Verification:
    """A verification that passed, once the file also detects, on images alone, in pairs and all at once, what it did itself
    when it was proven (`recorded`)."""
    together = run_on_probes(runner, own.whole, own.batches)
    permitted = own_likeness(row, (recorded.own_tolerance or 0.0) / LEEWAY)
    error = max(1 - likeness(pairs) for pairs in (*run_apart(runner, own.probes), together))
    held = replace(check, own_tolerance=permitted, own_error=finite(error))
    if not error <= permitted:
        return replace(held, status=FAILED, reason=_why(f"they differ by {error:.3g} (at most {permitted:.3g})"))
    if recorded.own_runtime is not None and recorded.own_runtime == own_runtime(runner.backend):
        agreement = agreement_of(together, _rules(probes), THE_SAME)
        if not agreement.right:
            return replace(held, status=FAILED, reason=_why(agreement.why))
    return held


def own_likeness(row: Precision, moved: float) -> float:
    """How far a file's detections may differ elsewhere, where roundings that fall otherwise changed them that far."""
    least, most = row.steady
    return min(max(least, LEEWAY * moved), most)


def _rules(probes: Probes) -> Rules:
    """BundleError of a detector whose files choose nothing: they have fp32 numbers alone."""
    height, width = probes.images.shape[2:]
    rules = None if probes.detector is None else rules_of(probes.detector, (height, width))
    if rules is None:
        raise BundleError("a detector's file of fewer bits that gives no detections cannot be verified. Export again.")
    return rules


def _ill_formed(pairs: Sequence[Pair], rules: Rules) -> str:
    """Why a file's own rows are no detections, whatever they should be; nothing where they are."""
    alone = agreement_of([replace(pair, expected=pair.output) for pair in pairs], rules, THE_SAME)
    return alone.why if alone.faults else ""


def _why(what: str) -> str:
    return (
        f"it gives other detections than when it was proven, {what}: the file was changed, or this runtime computes it wrongly"
    )


def _rows(values: Mapping[str, Array], image: int) -> tuple[Array, Array, Array]:
    """Boxes, scores and labels of an image."""
    boxes, scores, labels = (values[name][image] for name in (BOXES, SCORES, LABELS))
    count = min(max(int(values[COUNT][image]), 0), len(scores))
    return boxes[:count].astype(np.float64), scores[:count].astype(np.float64), labels[:count]


def _shared(own: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> tuple[float, float]:
    """What both sides of an image have in common, and the sum of all scores."""
    (boxes, scores, labels), (others, their_scores, their_labels) = own, other
    free, common = np.ones(len(others), bool), 0.0
    for place in np.argsort(-scores, kind="stable"):
        overlap = np.where(free & (their_labels == labels[place]), overlaps_of(boxes[place], others), 0.0)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] >= LEAST_OVERLAP:
            free[best] = False
            common += overlap[best] * min(scores[place], their_scores[best])
    return common, float(scores.sum() + their_scores.sum())
