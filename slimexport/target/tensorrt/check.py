"""Proof that an engine computes what the checkpoint computes, on the device that runs it and at the batches it is for.

Most precisions are held to the largest difference relative to the scale of the logits, as ONNX files are. int8 rounds every
activation to 255 values: there the logits' direction (cosine) and the chosen class decide, and the int8 ONNX file, which was
rounded alike, says how near they can come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from slimexport.target.manifest import FAILED, PASSED, SKIPPED, UNVERIFIABLE, BatchFigures, Verification
from slimexport.target.precision import PRECISIONS, Direction
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.verify import (
    MIN_SPREAD,
    NO_DIRECTION,
    USUAL,
    compare,
    cosine,
    finite,
    has_direction,
    recorded_tolerance,
    spread,
)

COSINE_LEEWAY = 0.01  # an engine may be this much further off than its ONNX file
NOTHING = Verification(status=SKIPPED)  # what is known of an ONNX file that is not there


def direction_limits(proof: Direction, source: Verification, probes: int) -> tuple[float, float]:
    """The cosine and the top-1 agreement that an engine needs: nearly those of its ONNX file, whose verification is `source`.
    One image may choose another class than there: its two best may be as good as equal."""
    near, agreed = source.cosine, source.top1_agreement
    limit = proof.engine_cosine if near is None else min(proof.engine_cosine, near - COSINE_LEEWAY)
    return max(limit, proof.least_cosine), max((1.0 if agreed is None else agreed) - 1 / probes, 0.0)


def check_engine(
    runner: Runner, probes: Probes, precision: str, batches: Sequence[int], source: Verification = NOTHING
) -> Verification:
    """The verification of an engine, the worst of all `batches`; each batch's own figures under `by_batch`.

    Figures that are not finite are None, and fail.
    """
    by_batch = tuple(_figures(runner, probes, size) for size in batches)
    error = _worst(max, [figures.max_rel_error for figures in by_batch])
    agreement = min(figures.top1_agreement for figures in by_batch)
    seen = spread(probes.logits)
    check = Verification(
        status=FAILED,
        backend=runner.backend,
        max_rel_error=error,
        top1_agreement=agreement,
        probes=len(probes.images),
        spread=seen,
        batches=tuple(batches),
        by_batch=by_batch,
    )
    proof = PRECISIONS[precision].proof
    if isinstance(proof, Direction) and not has_direction(probes.logits):
        check = replace(check, tolerance=proof.tolerance, tolerance_from=NO_DIRECTION)
        right = error is not None and error <= proof.tolerance
    elif isinstance(proof, Direction):
        alike = _worst(min, [figures.cosine for figures in by_batch])
        least, least_agreement = direction_limits(proof, source, len(probes.images))
        check = replace(check, cosine=alike, least_cosine=least, least_top1_agreement=least_agreement)
        right = alike is not None and alike >= least and agreement >= least_agreement - 1e-9
    else:
        tolerance = recorded_tolerance(proof, source.tolerance)
        wider = tolerance > proof.tolerance
        check = replace(check, tolerance=tolerance, tolerance_from=(source.tolerance_from if wider else None) or USUAL)
        right = error is not None and error <= tolerance
    if not right:
        return check
    return replace(check, status=PASSED if seen >= MIN_SPREAD else UNVERIFIABLE)


def _figures(runner: Runner, probes: Probes, size: int) -> BatchFigures:
    """All probe images in batches of `size`, against the reference."""
    indices = probes.batches(size)
    outputs = np.concatenate([runner(probes.images[index]) for index in indices])
    expected = probes.logits[np.concatenate(indices)]
    comparison = compare(outputs, expected)
    return BatchFigures(
        batch=size,
        max_rel_error=finite(comparison.max_rel_error),
        top1_agreement=comparison.top1_agreement,
        cosine=finite(cosine(outputs, expected)),
    )


def _worst(choose: Callable[[list[float]], float], values: list[float | None]) -> float | None:
    """None, which is the worst, if one is."""
    known = [value for value in values if value is not None]
    return choose(known) if len(known) == len(values) else None


def why_failed(check: Verification) -> str:
    """What a verification that did not pass found, and what was expected."""
    if check.status == UNVERIFIABLE:
        return f"unverifiable, the probe images' logits differ by {check.spread:.1e} of their scale only"
    if check.max_rel_error is None or (check.least_cosine is not None and check.cosine is None):
        return "failed, outputs that are not finite, or not of the reference's shape"
    if check.least_cosine is not None:
        return (
            f"failed, cosine {check.cosine:.4f} and top-1 agreement {check.top1_agreement:.0%}, expected at least "
            f"{check.least_cosine:.4f} and {check.least_top1_agreement:.0%}"
        )
    return f"failed, a difference of {check.max_rel_error:.1e} of the logits' scale, expected at most {check.tolerance:.0e}"
