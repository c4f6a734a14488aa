"""The verdict on a detector's file where there is no torch: what it detects on the probe images, next to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.proof.comparing import compare_all, finite
from slimexport.target.proof.detections import agreement_of, rules_of
from slimexport.target.proof.plugin_detections import as_detections
from slimexport.target.proof.running import partitions, run_on_probes
from slimexport.target.reference import Probes
from slimexport.target.runners import Runner
from slimexport.target.tensors import PLUGIN, DetectorEntry
from slimexport.target.verification import FAILED, PASSED, Verification

TENSORRT_S = "ends in EfficientNMS_TRT, which TensorRT alone runs. Build engines: --bundle DIR --format trt"


def is_tensorrt_s(detector: DetectorEntry | None) -> bool:
    """Whether ONNX files of a bundle's `detector` end in TensorRT's plugin, which nothing else runs."""
    return detector is not None and detector.nms == PLUGIN


def held_to_detections(
    runner: Runner,
    probes: Probes,
    detector: DetectorEntry,
    tolerance: float,
    known_ties: int,
    ways: Sequence[Sequence[Array]] = (),
) -> Verification:
    """The verification of a file of `detector`, on images in batches of each of these `ways`, by default alone, in pairs and
    all at once: the worst counts. Rows may be others where the reference says that roundings decide on them; of earlier
    versions, whose references do not say it, as many as near-equals decided otherwise where the file was proven part by part
    (`known_ties`). Files that choose nothing give the reference's numbers."""
    height, width = probes.images.shape[2:]
    rules = rules_of(detector, (height, width))
    ways = ways or partitions(len(probes.images))
    runs = [run_on_probes(runner, probes, batches) for batches in ways]
    if rules is None:
        worst = max((compare_all(pairs) for pairs in runs), key=lambda one: (np.isnan(one.max_rel_error), one.max_rel_error))
        return Verification(
            status=PASSED if worst.within(tolerance) else FAILED,
            backend=runner.backend,
            max_rel_error=finite(worst.max_rel_error),
            tolerance=tolerance,
            output=worst.output,
            probes=len(probes.images),
        )
    known_ties = known_ties if probes.near is None else 0
    agreements = [
        agreement_of(as_detections(pairs), rules, tolerance, probes.near_of(batches))
        for pairs, batches in zip(runs, ways, strict=True)
    ]
    last = max(agreements, key=lambda one: (not one.is_explained(known_ties), one.mismatches, one.ties, one.box_error))
    right = last.is_explained(known_ties)
    return Verification(
        status=PASSED if right else FAILED,
        backend=runner.backend,
        max_rel_error=finite(max(last.box_error / max(height, width), last.score_error)),
        tolerance=tolerance,
        probes=len(probes.images),
        detections=last.matched,
        ties=last.ties + last.mismatches if right else last.ties,
        box_error=finite(last.box_error),
        score_error=finite(last.score_error),
        reason=None if right else last.why,
    )
