"""Proof that an engine computes what the checkpoint computes, on the device that runs it and at the batches it is for.

Most precisions are held to the largest difference relative to the scale of the logits, as ONNX files are. int8 rounds every
activation to 255 values: there the logits' direction (cosine) and the chosen class decide, and the int8 ONNX file, which was
rounded alike, says how near they can come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from slimexport.target.precision import PRECISIONS, Direction
from slimexport.target.proof.comparing import Pair, compare_all, compare_directions, directed, finite, least_spread, worst
from slimexport.target.proof.differences import why_apart, worst_differences
from slimexport.target.proof.running import run_on_probes
from slimexport.target.proof.verify import MIN_SPREAD, NO_DIRECTION, USUAL, in_part, recorded_tolerance
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.tensorrt.check_detections import check_detections
from slimexport.target.verification import FAILED, IN_PART, PASSED, SKIPPED, UNVERIFIABLE, BatchFigures, Verification

ROUNDING = 1e-9  # of a share
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

    Figures that are not finite are None, and fail. Detectors are held to their detections.
    """
    if probes.detector is not None:
        return check_detections(runner, probes, probes.detector, precision, batches, source)
    names = directed(probes)
    pairs = [run_on_probes(runner, probes, probes.batches(size)) for size in batches]
    comparisons = [compare_all(outputs) for outputs in pairs]
    by_batch = tuple(_figures(size, outputs, names) for size, outputs in zip(batches, pairs, strict=True))
    error = _worst(max, [figures.max_rel_error for figures in by_batch])
    agreement = min((f.top1_agreement for f in by_batch if f.top1_agreement is not None), default=None)
    seen = least_spread(probes)
    check = Verification(
        status=FAILED,
        backend=runner.backend,
        max_rel_error=error,
        top1_agreement=agreement,
        output=worst(comparisons).output,
        probes=len(probes.images),
        spread=seen,
        batches=tuple(batches),
        by_batch=by_batch,
    )
    proof = PRECISIONS[precision].proof
    if isinstance(proof, Direction) and not names:
        check = replace(check, tolerance=proof.tolerance, tolerance_from=NO_DIRECTION)
        right = error is not None and error <= proof.tolerance
    elif isinstance(proof, Direction):
        alike = _worst(min, [figures.cosine for figures in by_batch])
        least, least_agreement = direction_limits(proof, source, len(probes.images))
        _, output = min((compare_directions(outputs, names) for outputs in pairs), key=lambda one: (one[0] == one[0], one[0]))
        agrees = agreement is None or agreement >= least_agreement - ROUNDING
        known = None if agreement is None else least_agreement
        apart = worst_differences([pair for outputs in pairs for pair in outputs], names, proof)
        check = replace(check, cosine=alike, least_cosine=least, least_top1_agreement=known, output=output, **apart.figures())
        others = [compare_all(rest).within(proof.tolerance) for outputs in pairs if (rest := _without(outputs, names))]
        right = (
            alike is not None
            and alike >= least
            and agrees
            and all(others)
            and (apart.within(proof) or seen < proof.least_spread)
        )
    else:
        tolerance = recorded_tolerance(proof, source.tolerance)
        wider = tolerance > proof.tolerance
        check = replace(check, tolerance=tolerance, tolerance_from=(source.tolerance_from if wider else None) or USUAL)
        right = error is not None and error <= tolerance
    if not right:
        return check
    status = PASSED if seen >= MIN_SPREAD else UNVERIFIABLE
    proven = replace(check, status=status, unexercised=source.unexercised, watched=source.watched)
    return in_part(proven, source.status == IN_PART)


def _without(pairs: Sequence[Pair], names: Sequence[str]) -> list[Pair]:
    return [pair for pair in pairs if pair.name not in names]


def _figures(size: int, pairs: Sequence[Pair], names: Sequence[str]) -> BatchFigures:
    """All probe images in batches of `size`, against the reference; the cosine is that of the outputs of these `names`."""
    comparison = compare_all(pairs)
    return BatchFigures(
        batch=size,
        max_rel_error=finite(comparison.max_rel_error),
        top1_agreement=comparison.top1_agreement,
        cosine=finite(compare_directions(pairs, names)[0]),
    )


def _worst(choose: Callable[[list[float]], float], values: list[float | None]) -> float | None:
    """None, which is the worst, if one is."""
    known = [value for value in values if value is not None]
    return choose(known) if len(known) == len(values) else None


def why_failed(check: Verification) -> str:
    """What a verification that did not pass found, and what was expected."""
    if check.reason is not None:
        return f"{check.status}, {check.reason}"
    if check.status == UNVERIFIABLE:
        return f"unverifiable, the probe images' logits differ by {check.spread:.1e} of their scale only"
    if check.max_rel_error is None or (check.least_cosine is not None and check.cosine is None):
        return "failed, outputs that are not finite, or not of the reference's shape"
    agreed, least = check.top1_agreement, check.least_top1_agreement
    if (agreed is None or least is None or agreed >= least - ROUNDING) and (apart := why_apart(check)):
        return f"failed, {apart}"
    if check.least_cosine is not None:
        of = "" if check.output is None else f" of {check.output}"
        alike, expected = f"cosine{of} {check.cosine:.4f}", f"{check.least_cosine:.4f}"
        if check.top1_agreement is not None and check.least_top1_agreement is not None:
            alike += f" and top-1 agreement {check.top1_agreement:.0%}"
            expected += f" and {check.least_top1_agreement:.0%}"
        return f"failed, {alike}, expected at least {expected}"
    owner = "the logits' scale" if check.output is None else f"the scale of {check.output}"
    return f"failed, a difference of {check.max_rel_error:.1e} of {owner}, expected at most {check.tolerance:.0e}"
