"""Proof that a file computes what the checkpoint computes: its logits against the slimmable network's in float64.

Differences are relative to the largest absolute reference logit (the *scale*), so one tolerance fits all networks. A
NaN fails. Probe images that a network cannot tell apart prove nothing, whatever the difference: that is
`unverifiable`, and not passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU, ONNX
from slimexport.target.errors import BundleError
from slimexport.target.manifest import FAILED, PASSED, SKIPPED, UNVERIFIABLE, Artifact, Manifest, Verification, artifact_path
from slimexport.target.precision import EXACT, Difference, Direction, row_of
from slimexport.target.reference import Probes, probes_of, read_reference
from slimexport.target.runners import OnnxRuntimeRunner, Runner, runs_on_cpu

MIN_SPREAD = 1e-2
USUAL, FLOAT32_GAP, ROUNDING_GAP, NO_DIRECTION = "default", "float32 gap", "rounding gap", "no direction"  # of a tolerance
SPREAD_SHARE = 0.5  # a tolerance is not widened beyond this share of what sets the probe images apart


@dataclass(frozen=True)
class Comparison:
    """Logits of a file next to the reference's. Relative to the scale; NaN where something is not finite."""

    max_rel_error: float
    top1_agreement: float

    def within(self, tolerance: float) -> bool:
        return bool(self.max_rel_error <= tolerance)  # False for NaN


def spread(reference: Array) -> float:
    """How far logits [P, classes] differ between probe images, relative to their scale: the largest over classes."""
    scale = np.abs(reference).max()
    if not 0 < scale < np.inf:  # a reference of zeros, NaN or infinities tells nothing apart
        return 0.0
    return float((reference.max(0) - reference.min(0)).max() / scale)


def compare(outputs: Array, reference: Array) -> Comparison:
    """`outputs` against `reference`, both [P, classes]. Another shape counts as wholly wrong."""
    if outputs.shape != reference.shape:
        return Comparison(float("inf"), 0.0)
    scale = np.abs(reference).max()
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(outputs.astype(np.float64) - reference).max()
        error = 0.0 if difference == 0 else float(difference / scale)
    return Comparison(error, float((outputs.argmax(1) == reference.argmax(1)).mean()))


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


def run_probes(runner: Runner, images: Array, reference: Array) -> Comparison:
    """The worse of two runs: each probe image alone, and all in one batch."""
    alone = compare(np.concatenate([runner(images[i : i + 1]) for i in range(len(images))]), reference)
    together = compare(runner(images), reference)
    errors = (alone.max_rel_error, together.max_rel_error)
    worst = float("nan") if any(np.isnan(errors)) else max(errors)
    return Comparison(worst, min(alone.top1_agreement, together.top1_agreement))


def verdict(
    comparison: Comparison,
    reference: Array,
    backend: str,
    tolerance: float,
    tolerance_from: str = USUAL,
    **gap: float | None,
) -> Verification:
    """The verification of a file that is proven by a tolerance; `gap` is what that comes from, under the manifest's key."""
    seen = spread(reference)
    status = PASSED if comparison.within(tolerance) else FAILED
    if status == PASSED and seen < MIN_SPREAD:
        status = UNVERIFIABLE
    return Verification(
        status=status,
        backend=backend,
        max_rel_error=finite(comparison.max_rel_error),
        tolerance=tolerance,
        tolerance_from=tolerance_from,
        top1_agreement=comparison.top1_agreement,
        probes=len(reference),
        spread=seen,
        **gap,  # type: ignore[arg-type]
    )


def finite(value: float) -> float | None:
    """A figure as manifests hold it: None where it is not finite."""
    return value if np.isfinite(value) else None


def cosine(outputs: Array, reference: Array) -> float:
    """The cosine between two sets of logits, each image's mean taken off: what all classes share decides nothing."""
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        return float("nan")
    a, b = (logits.astype(np.float64) - logits.mean(1, keepdims=True) for logits in (outputs, reference))
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norms) if norms else float("nan")


def direction_verdict(runner: Runner, images: Array, reference: Array, proof: Direction) -> Verification:
    """The verification of a file that is proven by its logits' direction; top-1 agreement and largest difference are told.

    Logits of one class, or that all classes share, have no direction: then the largest difference decides."""
    outputs = runner(images)
    comparison = compare(outputs, reference)
    if not has_direction(reference):
        return verdict(comparison, reference, runner.backend, proof.tolerance, NO_DIRECTION)
    seen = spread(reference)
    alike = cosine(outputs, reference)
    status = PASSED if alike >= proof.least_cosine else FAILED  # FAILED for NaN
    if status == PASSED and seen < MIN_SPREAD:
        status = UNVERIFIABLE
    return Verification(
        status=status,
        backend=runner.backend,
        max_rel_error=finite(comparison.max_rel_error),
        cosine=finite(alike),
        least_cosine=proof.least_cosine,
        top1_agreement=comparison.top1_agreement,
        probes=len(reference),
        spread=seen,
    )


def has_direction(reference: Array) -> bool:
    """Whether logits [P, classes] differ between classes, so that their cosine with others says something."""
    return bool(np.ptp(reference, axis=1).max() > 0)


def prove(runner: Runner, probes: Probes, precision: str, own_gap: Callable[[], float]) -> Verification:
    """The verification of a new ONNX file. `own_gap` is asked only where it matters: for how far the slimmable network
    itself is off when it is computed in the file's numbers."""
    proof = row_of(precision).proof
    if isinstance(proof, Direction):
        return direction_verdict(runner, probes.images, probes.logits, proof)
    comparison = run_probes(runner, probes.images, probes.logits)
    if not proof.factor or comparison.within(proof.tolerance):
        return verdict(comparison, probes.logits, runner.backend, proof.tolerance)
    gap = own_gap()
    tolerance = permitted(proof, gap, spread(probes.logits))
    key = FLOAT32_GAP if row_of(precision).name == EXACT else ROUNDING_GAP
    origin = key if tolerance > proof.tolerance else USUAL
    return verdict(comparison, probes.logits, runner.backend, tolerance, origin, **{key.replace(" ", "_"): finite(gap)})


def verify_files(bundle: Path, manifest: Manifest, device: str = CPU) -> list[tuple[Artifact, Verification]]:
    """Verify every ONNX file of a bundle against its `reference.npz`, at the tolerances that its manifest records, in
    onnxruntime on `device`.

    Raises BundleError for a missing, changed or unreadable file, MissingBackend without onnxruntime.
    """
    reference = read_reference(bundle)
    results = []
    for artifact in manifest.of_format(ONNX):
        probes = probes_of(bundle, manifest, artifact, reference)
        path = artifact_path(bundle, artifact)
        results.append((artifact, _verify_onnx(path, artifact, probes, device)))
    if not results:
        raise BundleError(f"{bundle}: its manifest names no ONNX file, so there is nothing to verify.")
    return results


def _verify_onnx(path: Path, artifact: Artifact, probes: Probes, device: str) -> Verification:
    """One ONNX file's verification, at the tolerance of its precision, or a wider one that the manifest records."""
    precision = artifact.precision
    if device == CPU and not runs_on_cpu(precision):  # a twin needs the onnx package, which targets lack
        return Verification(status=SKIPPED, reason=f"this onnxruntime's CPU has no kernels for {precision}, or wrong ones")
    runner = OnnxRuntimeRunner(path, device=device)
    proof, recorded = row_of(precision).proof, artifact.verification
    if isinstance(proof, Direction):
        return direction_verdict(runner, probes.images, probes.logits, proof)
    tolerance = recorded_tolerance(proof, recorded.tolerance)
    comparison = run_probes(runner, probes.images, probes.logits)
    return verdict(comparison, probes.logits, runner.backend, tolerance, recorded.tolerance_from or USUAL)
