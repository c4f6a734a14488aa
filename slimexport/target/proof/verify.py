"""Proof that a file computes what the checkpoint computes: its outputs against the slimmable network's in float64.

A NaN fails. Of several outputs all must be right. Probe images that a network cannot tell apart prove nothing, whatever the
difference: that is `unverifiable`, and not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import BACKENDS, CPU, ONNX
from slimexport.target.errors import BundleError
from slimexport.target.inside.recorded import Inside, inside_in
from slimexport.target.manifest import MANIFEST, REFERENCE, Artifact, Manifest, artifact_path
from slimexport.target.precision import EXACT, Difference, Direction, row_of
from slimexport.target.proof.comparing import (
    Comparison,
    compare_all,
    compare_directions,
    directed,
    finite,
    least_spread,
    least_spread_output,
    worst,
)
from slimexport.target.proof.detector_verdict import TENSORRT_S, held_to_detections, is_tensorrt_s
from slimexport.target.proof.differences import worst_differences
from slimexport.target.proof.inside import held_to_inside, source_of
from slimexport.target.proof.own_detections import held_to_near_detections, held_to_own_detections, is_weighed
from slimexport.target.proof.own_outputs import SPREAD_SHARE, held_to_own
from slimexport.target.proof.running import run_apart, run_on_probes, run_probes
from slimexport.target.reference import IMAGES, Own, Probes, batches_of, more_probes_of, own_of, probes_of, read_reference
from slimexport.target.runners import OpenRunner, Runner
from slimexport.target.verification import FAILED, IN_PART, PASSED, SKIPPED, UNVERIFIABLE, Verification
from slimtrain.base.untrusted.quoting import quoted

MIN_SPREAD = 1e-2
MOST_UNREACHED = 0.05
USUAL, FLOAT32_GAP, ROUNDING_GAP, NO_DIRECTION = "default", "float32 gap", "rounding gap", "no direction"  # of a tolerance


def permitted(proof: Difference, gap: float, seen: float) -> float:
    """The tolerance of a file. `gap` is how far the slimmable network itself is off when it is computed in the file's numbers:
    untrained networks can be chaotic, and then no exporter does better. `seen` is the reference's spread: a file that answers
    all images alike is never within the tolerance."""
    if not np.isfinite(gap):
        return proof.tolerance
    return max(proof.tolerance, min(proof.factor * gap, proof.most, SPREAD_SHARE * seen))


def recorded_tolerance(proof: Difference, recorded: float | None) -> float:
    """The tolerance that a manifest records for a file, as far as it may be wider than its precision's own: a manifest that
    was edited does not make wrong files right. What an fp32 file needs, everything that is built from it may need too."""
    exact = row_of(EXACT).proof
    assert isinstance(exact, Difference)
    return max(proof.tolerance, min(recorded or 0.0, max(proof.most, exact.most)))


def verdict(
    comparison: Comparison,
    probes: Probes,
    backend: str,
    tolerance: float,
    tolerance_from: str = USUAL,
    **gap: float | None,
) -> Verification:
    """The verification of a file that is proven by a tolerance; `gap` is what that comes from, under the manifest's key."""
    seen, output = least_spread(probes), comparison.output
    status = PASSED if comparison.within(tolerance) else FAILED
    if status == PASSED and seen < MIN_SPREAD:
        status, output = UNVERIFIABLE, least_spread_output(probes)
    return Verification(
        status=status,
        backend=backend,
        max_rel_error=finite(comparison.max_rel_error),
        tolerance=tolerance,
        tolerance_from=tolerance_from,
        top1_agreement=comparison.top1_agreement,
        output=output,
        probes=len(probes.images),
        spread=seen,
        **gap,  # type: ignore[arg-type]
    )


def direction_verdict(runner: Runner, probes: Probes, proof: Direction) -> Verification:
    """The verification of a file that is proven by its outputs' direction, and by what differs between images; top-1 agreement
    and largest difference are told. The worst of images alone, in pairs and all at once.

    Logits of one class, or that all classes share, and whole numbers have no direction: then the largest difference
    decides."""
    parts, names = run_apart(runner, probes), directed(probes)
    comparison = worst([compare_all(pairs) for pairs in parts])
    if not names:
        return verdict(comparison, probes, runner.backend, proof.tolerance, NO_DIRECTION)
    seen = least_spread(probes)
    every = [pair for pairs in parts for pair in pairs]
    alike, output = compare_directions(every, names)
    apart = worst_differences(every, names, proof)
    others = [pair for pair in every if pair.name not in names]
    apart_enough = seen >= proof.least_spread  # else rounding is more than what images differ by
    right = alike >= proof.least_cosine and (not others or compare_all(others).within(proof.tolerance))
    status = PASSED if right and (apart.within(proof) or not apart_enough) else FAILED  # FAILED for NaN
    if status == PASSED and seen < MIN_SPREAD:
        status, output = UNVERIFIABLE, least_spread_output(probes)
    return Verification(
        status=status,
        backend=runner.backend,
        max_rel_error=finite(comparison.max_rel_error),
        cosine=finite(alike),
        least_cosine=proof.least_cosine,
        top1_agreement=comparison.top1_agreement,
        output=output if len(probes.expected) > 1 else None,
        probes=len(probes.images),
        spread=seen,
        **apart.figures(),
    )


def in_part(check: Verification, lacking: bool) -> Verification:
    """A verification that passed, in part only where the probe images are `lacking`: they leave more than MOST_UNREACHED of
    the channels standing still which other images move."""
    return replace(check, status=IN_PART) if lacking and check.status == PASSED else check


def prove(runner: Runner, probes: Probes, precision: str, own_gap: Callable[[], float]) -> Verification:
    """The verification of a new ONNX file. `own_gap` is asked only where it matters: for how far the slimmable network
    itself is off when it is computed in the file's numbers."""
    proof = row_of(precision).proof
    if isinstance(proof, Direction):
        return direction_verdict(runner, probes, proof)
    comparison = run_probes(runner, probes)
    if not proof.factor or comparison.within(proof.tolerance):
        return verdict(comparison, probes, runner.backend, proof.tolerance)
    gap = own_gap()
    tolerance = permitted(proof, gap, least_spread(probes))
    key = FLOAT32_GAP if row_of(precision).name == EXACT else ROUNDING_GAP
    origin = key if tolerance > proof.tolerance else USUAL
    return verdict(comparison, probes, runner.backend, tolerance, origin, **{key.replace(" ", "_"): finite(gap)})


def verify_files(bundle: Path, manifest: Manifest, backend: str = CPU) -> list[tuple[Artifact, Verification]]:
    """Verify every ONNX file of a bundle against its `reference.npz`, at the tolerances that its manifest records, in
    `backend`, one of those that run such files. One that is missing, changed or does not load is not proven, with the reason.

    Raises BundleError where no file loads, with the first reason, and for a reference that is missing or damaged;
    MissingBackend where the backend cannot run here.
    """
    reference = read_reference(bundle)
    results: list[tuple[Artifact, Verification]] = []
    refusals: list[BundleError] = []
    for artifact in manifest.of_format(ONNX):
        probes = probes_of(bundle, manifest, artifact, reference)
        own = own_of(bundle, manifest, artifact, reference)
        more, inside = more_probes_of(bundle, manifest, artifact, reference), _inside_of(bundle, manifest, artifact, reference)
        try:
            check = _verify_onnx(artifact_path(bundle, artifact), artifact, probes, own, more, inside, backend)
        except BundleError as error:  # says nothing of the files after it
            refusals.append(error)
            check = Verification(status=FAILED, reason=str(error))
        results.append((artifact, check))
    if not results:
        raise BundleError(f"{bundle}: its manifest names no ONNX file, so there is nothing to verify.")
    if len(refusals) == len(results):
        raise refusals[0]
    return results


def _inside_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: Mapping[str, Array]) -> Inside | None:
    """What a file's layers gave one by one when it was proven; None of one for which the manifest says nothing of it.
    BundleError where it does, and that is not there."""
    if (count := artifact.verification.inside) is None:
        return None
    try:
        plan, images = manifest.plan_name(artifact), len(reference[IMAGES])
        inside = inside_in(reference, plan, artifact.precision, images, artifact.activations)
    except ValueError as error:
        raise BundleError(f"{bundle / REFERENCE}: {error}. Copy the bundle again, or export again.") from error
    if inside is None or len(inside.sketches) != count:
        raise BundleError(
            f"{bundle / REFERENCE}: tells of {0 if inside is None else len(inside.sketches):,} values inside "
            f"{quoted(artifact.file)}, {MANIFEST} of {count:,}. Copy the bundle again, or export again."
        )
    return inside


def _verify_onnx(
    path: Path,
    artifact: Artifact,
    probes: Probes,
    own: Own | None,
    more: Probes | None,
    inside: Inside | None,
    backend: str,
) -> Verification:
    """One ONNX file's verification, at the tolerance of its precision, or a wider one that the manifest records; and against
    its `own` outputs, the network's of `more` images, and what its layers gave (`inside`), where the bundle tells them."""
    precision, row = artifact.precision, BACKENDS[backend]
    if reason := row.cannot_run(precision):  # a twin needs the onnx package, which targets lack
        return Verification(status=SKIPPED, reason=reason)
    if is_tensorrt_s(probes.detector):
        return Verification(status=SKIPPED, reason=TENSORRT_S)
    runner: OpenRunner = row.open(path, artifact)
    try:
        return verify_again(runner, artifact, probes, own, more, inside)
    finally:
        runner.close()


def verify_again(
    runner: Runner,
    artifact: Artifact,
    probes: Probes,
    own: Own | None,
    more: Probes | None = None,
    inside: Inside | None = None,
) -> Verification:
    """The verification of a file that was proven where it was written: against the reference, at the tolerance that its
    precision or its manifest has, in fp32 on `more` images too, and against its `own` outputs, and what its layers gave one by
    one (`inside`), where a bundle keeps them and the runner opens pieces of files."""
    check = _held_to_outputs(runner, artifact, probes, own, more)
    source = source_of(runner) if inside is not None and (check.passed or check.status == UNVERIFIABLE) else None
    if source is None or inside is None:
        return check
    return held_to_inside(source, inside, probes.images, row_of(artifact.precision), check)


def _held_to_outputs(runner: Runner, artifact: Artifact, probes: Probes, own: Own | None, more: Probes | None) -> Verification:
    recorded = artifact.verification
    check = replace(_held_to_reference(runner, probes, artifact), unexercised=recorded.unexercised, watched=recorded.watched)
    check = in_part(check, recorded.status == IN_PART)
    if check.passed and more is not None and row_of(artifact.precision).name == EXACT:
        check = held_to_more(runner, more, check)
    if not check.passed or own is None or recorded.own_tolerance is None:  # as of earlier versions
        return check
    if probes.detector is not None:
        return held_to_own_detections(runner, own, probes, row_of(artifact.precision), check, recorded)
    return held_to_own(runner, own, row_of(artifact.precision), check, recorded)


def held_to_more(runner: Runner, more: Probes, check: Verification) -> Verification:
    """A verification that passed within a tolerance, once the file also gives of more images what the network does."""
    comparison = compare_all(run_on_probes(runner, more, batches_of(len(more.images))))
    if comparison.within(check.tolerance or 0.0):
        return check
    reason = f"of {len(more.images)} images that are no probe images it is off by up to {comparison.max_rel_error:.3g}"
    return replace(check, status=FAILED, max_rel_error=finite(comparison.max_rel_error), reason=reason)


def _held_to_reference(runner: Runner, probes: Probes, artifact: Artifact) -> Verification:
    proof, recorded = row_of(artifact.precision).proof, artifact.verification
    if probes.detector is not None and is_weighed(row_of(artifact.precision)):
        return held_to_near_detections(runner, probes, row_of(artifact.precision))
    if probes.detector is not None and isinstance(proof, Difference):
        tolerance = recorded_tolerance(proof, recorded.tolerance)
        return held_to_detections(runner, probes, probes.detector, tolerance, recorded.ties or 0)
    if isinstance(proof, Direction):
        return direction_verdict(runner, probes, proof)
    tolerance = recorded_tolerance(proof, recorded.tolerance)
    return verdict(run_probes(runner, probes), probes, runner.backend, tolerance, recorded.tolerance_from or USUAL)
