"""Proof that a file computes what the checkpoint computes: its logits against the slimmable network's in float64.

Differences are relative to the largest absolute reference logit (the *scale*), so one tolerance fits all networks. A
NaN fails. Probe images that a network cannot tell apart prove nothing, whatever the difference: that is
`unverifiable`, and not passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Artifact, Manifest, artifact_path, read_reference
from slimexport.target.runners import OnnxRuntimeRunner, Runner

FP32_TOLERANCE = 1e-4
GAP_FACTOR = 20  # an fp32 file may be off by this many times what fp32 itself costs the slimmable network
MAX_TOLERANCE = 1e-2
MIN_SPREAD = 1e-2

PASSED, FAILED, UNVERIFIABLE, SKIPPED = "passed", "failed", "unverifiable", "skipped"


@dataclass(frozen=True)
class Comparison:
    """Logits of a file next to the reference's. Relative to the scale; NaN where something is not finite."""

    max_rel_error: float
    top1_agreement: float

    def within(self, tolerance: float) -> bool:
        return bool(self.max_rel_error <= tolerance)  # False for NaN


def spread(reference: NDArray[Any]) -> float:
    """How far logits [P, classes] differ between probe images, relative to their scale: the largest over classes."""
    scale = np.abs(reference).max()
    if not 0 < scale < np.inf:  # a reference of zeros, NaN or infinities tells nothing apart
        return 0.0
    return float((reference.max(0) - reference.min(0)).max() / scale)


def compare(outputs: NDArray[Any], reference: NDArray[Any]) -> Comparison:
    """`outputs` against `reference`, both [P, classes]. Another shape counts as wholly wrong."""
    if outputs.shape != reference.shape:
        return Comparison(float("inf"), 0.0)
    scale = np.abs(reference).max()
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(outputs.astype(np.float64) - reference).max()
        error = 0.0 if difference == 0 else float(difference / scale)
    return Comparison(error, float((outputs.argmax(1) == reference.argmax(1)).mean()))


def fp32_tolerance(gap: float | None) -> float:
    """The tolerance of an fp32 file. `gap` is the slimmable network's own float32-float64 difference, where known:
    untrained networks can be chaotic, and then no exporter does better than float32 does."""
    if gap is None or not np.isfinite(gap):
        return FP32_TOLERANCE
    return min(max(FP32_TOLERANCE, GAP_FACTOR * gap), MAX_TOLERANCE)


def run_probes(runner: Runner, images: NDArray[Any], reference: NDArray[Any]) -> Comparison:
    """The worse of two runs: each probe image alone, and all in one batch."""
    alone = compare(np.concatenate([runner(images[i : i + 1]) for i in range(len(images))]), reference)
    together = compare(runner(images), reference)
    errors = (alone.max_rel_error, together.max_rel_error)
    worst = float("nan") if any(np.isnan(errors)) else max(errors)
    return Comparison(worst, min(alone.top1_agreement, together.top1_agreement))


def verdict(
    comparison: Comparison, reference: NDArray[Any], backend: str, tolerance: float, gap: float | None = None
) -> dict[str, Any]:
    """The manifest's `verification` entry. `max_rel_error` is null where outputs were not finite."""
    seen = spread(reference)
    status = PASSED if comparison.within(tolerance) else FAILED
    if status == PASSED and seen < MIN_SPREAD:
        status = UNVERIFIABLE
    finite = np.isfinite(comparison.max_rel_error)
    return {
        "status": status,
        "backend": backend,
        "max_rel_error": comparison.max_rel_error if finite else None,
        "tolerance": tolerance,
        "tolerance_from": "float32 gap" if tolerance > FP32_TOLERANCE else "default",
        "float32_gap": gap if gap is not None and np.isfinite(gap) else None,
        "top1_agreement": comparison.top1_agreement,
        "probes": len(reference),
        "spread": seen,
    }


def verify_bundle(bundle: Path, manifest: Manifest) -> list[tuple[Artifact, dict[str, Any]]]:
    """Verify every ONNX file of a bundle against its `reference.npz`, at the tolerances that its manifest records.

    Raises BundleError for a missing, changed or unreadable file, MissingBackend without onnxruntime.
    """
    reference = read_reference(bundle)
    images = reference.get("images", np.empty(0))
    if images.ndim != 4 or images.dtype != np.float32 or not len(images):
        raise BundleError(f"{bundle / REFERENCE}: its images are {images.dtype} {list(images.shape)}. Export again.")
    results = []
    for artifact in manifest["artifacts"]:
        _check_entry(bundle, manifest, artifact)
        if artifact["format"] != "onnx":
            continue
        key = f"logits_{plan_name(manifest, artifact)}"
        logits = reference.get(key, np.empty(0))
        if logits.ndim != 2 or len(logits) != len(images):
            raise BundleError(f"{bundle / REFERENCE}: has no {key} for {len(images)} images. Export again.")
        runner = OnnxRuntimeRunner(artifact_path(bundle, artifact))
        recorded = artifact["verification"].get("tolerance")
        tolerance = min(recorded, MAX_TOLERANCE) if isinstance(recorded, float) else FP32_TOLERANCE
        results.append((artifact, verdict(run_probes(runner, images, logits), logits, runner.backend, tolerance)))
    if not results:
        raise BundleError(f"{bundle}: its manifest names no ONNX file, so there is nothing to verify.")
    return results


ENTRY: dict[str, type] = {
    **dict.fromkeys(("name", "file", "sha256", "format"), str),
    **dict.fromkeys(("macs", "params", "size_bytes"), int),
    "verification": dict,
}


def _check_entry(bundle: Path, manifest: Manifest, artifact: Artifact) -> None:
    """BundleError unless an artifact has what verifying and showing it needs."""
    wrong = [key for key, kind in ENTRY.items() if not isinstance(artifact.get(key), kind)]
    if "width" not in artifact:
        wrong.append("width")
    if not isinstance(manifest.get("source"), dict) or "network" not in manifest["source"]:
        wrong.append("source")
    if wrong:
        raise BundleError(f"{bundle}: its manifest was edited or damaged, {', '.join(wrong)} cannot be used. Export again.")


def plan_name(manifest: Manifest, artifact: Artifact) -> str:
    """An artifact's plan: its name without the network's."""
    return str(artifact["name"]).removeprefix(manifest["source"]["network"] + "_")
