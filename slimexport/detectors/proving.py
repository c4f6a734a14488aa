"""A detector's file held against the slimmable network: part by part, and from image to boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from slimexport.detector_proof.kinds import near_equals_of, prove_detector
from slimexport.detector_proof.plugin import NOT_RUN
from slimexport.detector_proof.proof import Parts
from slimexport.detectors.form import TRT
from slimexport.onnx_files.runner import onnx_runner
from slimexport.target.backends import CPU
from slimexport.target.near_equals import NearEquals
from slimexport.target.proof.comparing import finite
from slimexport.target.proof.detections import Agreement, agreement_of, rules_of
from slimexport.target.proof.running import run_on_probes
from slimexport.target.reference import Probes
from slimexport.target.tensors import DetectorEntry
from slimexport.target.verification import FAILED, IN_PART, PASSED, Verification
from slimtrain.base.image_size import ImageSize
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork

NOTHING = "nothing is detected on the probe images: what chooses detections was seen on drawn values alone"


def verify_detector(
    path: Path,
    precision: str,
    network: SlimmableNetwork,
    plan: ChannelPlan,
    settings: DetectorSettings,
    entry: DetectorEntry,
    image_size: ImageSize,
    probes: Probes,
) -> tuple[Verification, NearEquals | None]:
    """The verification of the file at `path`: its parts each on what the file has before it, with `network`, the dense
    slimmable detector in float64, and what it detects on the probe images next to what the whole network does. With what of
    these hangs on roundings, where the file is right and chooses any.

    Where near-equals decide a proposal otherwise, what depends on it may be another detection: those count as ties, too.
    """
    parts = prove_detector(path, network, plan, settings, image_size, probes.images, precision, entry.nms)
    check = Verification(
        status=PASSED if parts.right else FAILED,
        backend=CPU,
        max_rel_error=finite(parts.error),
        tolerance=parts.tolerance,
        output=parts.part or None,
        probes=len(probes.images),
        ties=parts.ties,
        reason=parts.fault or None,
    )
    if entry.nms == TRT and parts.right:
        return replace(check, status=IN_PART, reason=NOT_RUN), None
    rules = rules_of(entry, image_size)
    if rules is None or not parts.right:
        return check, None
    assert parts.exact is not None
    expected = {part.name: part.values for part in probes.expected}
    near = near_equals_of(parts.exact, settings, image_size, expected, parts.tolerance)
    pairs = run_on_probes(onnx_runner(path, precision), probes, [np.arange(len(probes.images))])
    return _with_detections(check, parts, agreement_of(pairs, rules, parts.tolerance, near)), near


def _with_detections(check: Verification, parts: Parts, agreement: Agreement) -> Verification:
    """A verification that passed part by part, with what came of the detections."""
    status = FAILED if not agreement.right else PASSED if agreement.detections else IN_PART
    return Verification(
        **{
            **{name: getattr(check, name) for name in ("backend", "max_rel_error", "tolerance", "output", "probes")},
            "status": status,
            "reason": NOTHING if status == IN_PART else agreement.why or None,
            "detections": agreement.matched,
            "ties": parts.ties + agreement.ties,
            "box_error": finite(agreement.box_error),
            "score_error": finite(agreement.score_error),
        }
    )
