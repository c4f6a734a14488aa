"""Proof that a detector's engine detects what the checkpoint detects, at the batches that it is for.

In fp32 detections are matched one to one, as those of the ONNX file are; TF32, fp16, bf16 and int8 rank near-equal boxes
otherwise, and are weighed as a whole. An ONNX file is proven part by part where it is written; an engine is run whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from slimexport.target.precision import EXACT, PRECISIONS, Difference
from slimexport.target.proof.detections import rules_of
from slimexport.target.proof.detector_verdict import held_to_detections, is_tensorrt_s
from slimexport.target.proof.own_detections import NOTHING, held_to_near_detections
from slimexport.target.proof.verify import recorded_tolerance
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.tensors import DetectorEntry
from slimexport.target.verification import IN_PART, PASSED, Verification


def check_detections(
    runner: Runner,
    probes: Probes,
    detector: DetectorEntry,
    precision: str,
    batches: Sequence[int],
    source: Verification,
) -> Verification:
    """The verification of an engine of `detector` by what it detects, the worst of all `batches`; `source` is its ONNX file's.

    `partly` where nothing is detected on the probe images, and where the file was proven in part: but not of files that end
    in EfficientNMS_TRT, since the engine is the first to run it.
    """
    row, ways = PRECISIONS[precision], [probes.batches(size) for size in batches]
    if isinstance(row.proof, Difference) and (precision == EXACT or rules_of(detector, probes.images.shape[2:]) is None):
        tolerance = recorded_tolerance(row.proof, source.tolerance)
        check = held_to_detections(runner, probes, detector, tolerance, source.ties or 0, ways)
    else:
        check = held_to_near_detections(runner, probes, row, ways)
    check = replace(check, batches=tuple(batches), unexercised=source.unexercised, watched=source.watched)
    if check.status != PASSED:
        return check
    if check.detections == 0:
        return replace(check, status=IN_PART, reason=NOTHING)
    if source.status == IN_PART and not is_tensorrt_s(detector):
        return replace(check, status=IN_PART, reason=source.reason)
    return check
