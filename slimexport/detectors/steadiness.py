"""What a detector's file of fewer bits detects, and how far that changes where roundings fall otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slimexport.onnx_files.layer_proof.steadiness import nearly_the_same
from slimexport.onnx_files.runner import onnx_runner
from slimexport.target.proof.comparing import Pair
from slimexport.target.proof.own_detections import likeness
from slimexport.target.proof.own_runtime import own_runtime
from slimexport.target.proof.running import outputs_of
from slimexport.target.reference import Expected, Own, Probes


def steady_detections(path: Path, precision: str, probes: Probes) -> tuple[Own, float, str | None]:
    """What a file gives of the probe images; how unlike that its detections were at the most where roundings fell otherwise;
    the runtime that gives the same each time, if it does."""
    images = probes.images
    batches = [np.arange(len(images))]
    runner = onnx_runner(path, precision)
    given = outputs_of(runner, images, probes.expected, batches)
    own = tuple(Expected(part.name, values, part.places) for part, values in zip(probes.expected, given, strict=True))
    others = nearly_the_same(path, precision, runner, images, own, batches)
    tried = [[Pair(part.name, values, part.values) for part, values in zip(own, other, strict=True)] for other in others]
    moved = max(1 - likeness(pairs) for pairs in tried)
    runtime = own_runtime(runner.backend)
    if runtime is not None:
        again = outputs_of(onnx_runner(path, precision), images, own, batches)
        runtime = runtime if all(map(np.array_equal, again, given)) else None
    return Own(images, len(images), own), float(np.nan_to_num(moved, nan=1.0)), runtime
