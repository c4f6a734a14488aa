"""Proof that a file computes what the checkpoint computes: its outputs against the slimmable network's in float64.

Differences are relative to the largest absolute value of the reference's output (the *scale*), so one tolerance fits all
networks. A NaN fails. Of several outputs all must be right. Probe images that a network cannot tell apart prove nothing,
whatever the difference: that is `unverifiable`, and not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import CPU, ONNX
from slimexport.target.errors import BundleError
from slimexport.target.manifest import FAILED, PASSED, SKIPPED, UNVERIFIABLE, Artifact, Manifest, Verification, artifact_path
from slimexport.target.precision import EXACT, Difference, Direction, row_of
from slimexport.target.reference import Probes, probes_of, read_reference
from slimexport.target.runners import Given, OnnxRuntimeRunner, Runner, runs_on_cpu

MIN_SPREAD = 1e-2
USUAL, FLOAT32_GAP, ROUNDING_GAP, NO_DIRECTION = "default", "float32 gap", "rounding gap", "no direction"  # of a tolerance
SPREAD_SHARE = 0.5  # a tolerance is not widened beyond this share of what sets the probe images apart


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
    scale = np.abs(reference).max()
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(outputs.astype(np.float64) - reference).max()
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


def run_on_probes(run: Callable[[Array], Given], probes: Probes, batches: Sequence[Array]) -> list[Pair]:
    """What `run` gives for the probe images, in batches of these indices, next to what it should, output by output."""
    parts: list[list[Array]] = [[] for _ in probes.expected]
    for chosen in batches:
        given = run(np.ascontiguousarray(probes.images[chosen]))
        for arrays, expected in zip(parts, probes.expected, strict=True):
            arrays.append(expected.picked(_output(given, expected.name)))
    chosen = np.concatenate(batches)
    return [
        Pair(expected.name, _joined(arrays), expected.of(len(probes.images), chosen))
        for arrays, expected in zip(parts, probes.expected, strict=True)
    ]


def _output(given: Given, name: str) -> Array:
    """An output by its name. BundleError where a file has no such output."""
    if not isinstance(given, dict):
        return np.asarray(given)
    if name not in given:
        raise BundleError(f"a file gives {', '.join(given)}, its manifest names {name}. Export again.")
    return np.asarray(given[name])


def _joined(arrays: Sequence[Array]) -> Array:
    """Batches after each other; nothing where they do not fit each other, which equals no reference."""
    alike = {array.shape[1:] for array in arrays}
    return np.concatenate(arrays) if len(alike) == 1 and all(array.ndim for array in arrays) else np.empty(0)


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


def run_probes(runner: Runner, probes: Probes) -> Comparison:
    """The worse of two runs: each probe image alone, and all in one batch."""
    every = np.arange(len(probes.images))
    return worst([compare_all(run_on_probes(runner, probes, batches)) for batches in (list(every[:, None]), [every])])


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


def direction_verdict(runner: Runner, probes: Probes, proof: Direction) -> Verification:
    """The verification of a file that is proven by its outputs' direction; top-1 agreement and largest difference are told.

    Logits of one class, or that all classes share, and whole numbers have no direction: then the largest difference
    decides."""
    pairs = run_on_probes(runner, probes, [np.arange(len(probes.images))])
    comparison, names = compare_all(pairs), directed(probes)
    if not names:
        return verdict(comparison, probes, runner.backend, proof.tolerance, NO_DIRECTION)
    seen = least_spread(probes)
    alike, output = compare_directions(pairs, names)
    others = [pair for pair in pairs if pair.name not in names]
    right = alike >= proof.least_cosine and (not others or compare_all(others).within(proof.tolerance))
    status = PASSED if right else FAILED  # FAILED for NaN
    if status == PASSED and seen < MIN_SPREAD:
        status, output = UNVERIFIABLE, least_spread_output(probes)
    return Verification(
        status=status,
        backend=runner.backend,
        max_rel_error=finite(comparison.max_rel_error),
        cosine=finite(alike),
        least_cosine=proof.least_cosine,
        top1_agreement=comparison.top1_agreement,
        output=output,
        probes=len(probes.images),
        spread=seen,
    )


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
        return direction_verdict(runner, probes, proof)
    tolerance = recorded_tolerance(proof, recorded.tolerance)
    comparison = run_probes(runner, probes)
    return verdict(comparison, probes, runner.backend, tolerance, recorded.tolerance_from or USUAL)
