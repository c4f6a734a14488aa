"""Proof that an engine computes what the checkpoint computes, on the device that runs it and at the batches it is for.

fp32 to bf16 are held to the largest difference relative to the scale of the logits, as ONNX files are. int8 rounds every
activation to 255 values: there the logits' direction (cosine) and the chosen class decide, and the int8 ONNX file, which was
rounded alike, says how near they can come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimexport.target.errors import BundleError
from slimexport.target.manifest import REFERENCE, Artifact, Manifest
from slimexport.target.runners import Runner
from slimexport.target.verify import (
    FAILED,
    LEAST_COSINE,
    MAX_TOLERANCE,
    MIN_SPREAD,
    PASSED,
    TOLERANCES,
    UNVERIFIABLE,
    compare,
    cosine,
    plan_name,
    spread,
)

Array = NDArray[Any]

INT8_COSINE = 0.99
COSINE_LEEWAY = 0.01  # an engine may be this much further off than its ONNX file


@dataclass(frozen=True)
class Probes:
    """Images float32 [P, 3, H, W] and the logits [P, classes] that the slimmable network computes for them in float64."""

    images: Array
    logits: Array

    def batches(self, size: int) -> list[Array]:
        """Indices of images, in as many batches of `size` as show every image, repeated where they do not fill one."""
        count = -(-len(self.images) // size)
        return list((np.arange(count * size) % len(self.images)).reshape(count, size))


def probes_of(bundle: Path, manifest: Manifest, artifact: Artifact, reference: dict[str, Array]) -> Probes:
    """What an artifact is verified on, from a bundle's `reference.npz`. BundleError where that holds it not."""
    images = reference.get("images", np.empty(0))
    if images.ndim != 4 or images.dtype != np.float32 or not len(images):
        raise BundleError(f"{bundle / REFERENCE}: its images are {images.dtype} {list(images.shape)}. Export again.")
    key = f"logits_{plan_name(manifest, artifact)}"
    logits = reference.get(key, np.empty(0))
    if logits.ndim != 2 or len(logits) != len(images):
        raise BundleError(f"{bundle / REFERENCE}: has no {key} for {len(images)} images. Export again.")
    return Probes(images, logits)


def tolerance_for(precision: str, source: dict[str, Any]) -> float:
    """The largest relative difference that an engine may have. `source` is the verification of the ONNX file that it is
    built from: a wider tolerance that an fp32 file needed holds for the engine too."""
    recorded = source.get("tolerance")
    return max(TOLERANCES[precision], min(recorded, MAX_TOLERANCE) if isinstance(recorded, float) else 0.0)


def int8_limits(source: dict[str, Any], probes: int) -> tuple[float, float]:
    """The cosine and the top-1 agreement that an int8 engine needs: nearly those of the int8 ONNX file, whose verification
    is `source`. One image may choose another class than there: its two best may be as good as equal."""
    near, agreed = source.get("cosine"), source.get("top1_agreement")
    cosine_limit = min(INT8_COSINE, near - COSINE_LEEWAY) if isinstance(near, float) else INT8_COSINE
    return max(cosine_limit, LEAST_COSINE), max((agreed if isinstance(agreed, float) else 1.0) - 1 / probes, 0.0)


def check_engine(
    runner: Runner, probes: Probes, precision: str, batches: Sequence[int], source: dict[str, Any]
) -> dict[str, Any]:
    """The manifest's `verification` of an engine, the worst of all `batches`; each batch's own figures under `by_batch`.

    Figures that are not finite are null, and fail.
    """
    by_batch = [_figures(runner, probes, size) for size in batches]
    error = _worst(max, [figures["max_rel_error"] for figures in by_batch])
    agreement = min(figures["top1_agreement"] for figures in by_batch)
    entry: dict[str, Any] = {"status": FAILED, "backend": runner.backend, "max_rel_error": error}
    if precision == "int8":
        alike = _worst(min, [figures["cosine"] for figures in by_batch])
        least, least_agreement = int8_limits(source, len(probes.images))
        entry |= {"cosine": alike, "least_cosine": least, "least_top1_agreement": least_agreement}
        right = alike is not None and alike >= least and agreement >= least_agreement - 1e-9
    else:
        tolerance = tolerance_for(precision, source)
        wider = tolerance > TOLERANCES[precision]
        entry |= {"tolerance": tolerance, "tolerance_from": "float32 gap" if wider else "default"}
        right = error is not None and error <= tolerance
    seen = spread(probes.logits)
    entry |= {"top1_agreement": agreement, "probes": len(probes.images), "spread": seen}
    entry |= {"batches": list(batches), "by_batch": by_batch}
    if right:
        entry["status"] = PASSED if seen >= MIN_SPREAD else UNVERIFIABLE
    return entry


def _figures(runner: Runner, probes: Probes, size: int) -> dict[str, Any]:
    """All probe images in batches of `size`, against the reference."""
    indices = probes.batches(size)
    outputs = np.concatenate([runner(probes.images[index]) for index in indices])
    expected = probes.logits[np.concatenate(indices)]
    comparison = compare(outputs, expected)
    return {
        "batch": size,
        "max_rel_error": _finite(comparison.max_rel_error),
        "top1_agreement": comparison.top1_agreement,
        "cosine": _finite(cosine(outputs, expected)),
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _worst(choose: Any, values: list[float | None]) -> float | None:
    """None, which is the worst, if one is."""
    return None if None in values else choose(values)


def why_failed(entry: dict[str, Any]) -> str:
    """What a verification that did not pass found, and what was expected."""
    if entry["status"] == UNVERIFIABLE:
        return f"unverifiable, the probe images' logits differ by {entry['spread']:.1e} of their scale only"
    if entry["max_rel_error"] is None or entry.get("cosine", 1.0) is None:
        return "failed, outputs that are not finite, or not of the reference's shape"
    if "cosine" in entry:
        return (
            f"failed, cosine {entry['cosine']:.4f} and top-1 agreement {entry['top1_agreement']:.0%}, expected at least "
            f"{entry['least_cosine']:.4f} and {entry['least_top1_agreement']:.0%}"
        )
    return (
        f"failed, a difference of {entry['max_rel_error']:.1e} of the logits' scale, expected at most {entry['tolerance']:.0e}"
    )
