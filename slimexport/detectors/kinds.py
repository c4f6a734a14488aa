"""The proof of a detector's file, of whichever kind."""

from __future__ import annotations

from pathlib import Path

import onnx

from slimexport.detector_proof.exact import Exact
from slimexport.detector_proof.inside import Inside
from slimexport.detector_proof.near.anchors import near_anchors
from slimexport.detector_proof.near.regions import near_equals
from slimexport.detector_proof.parts import Parts
from slimexport.detector_proof.plugin import without_plugin
from slimexport.detector_proof.proof import Proving
from slimexport.detector_proof.single_stage import SingleStageProving
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.near_equals import NearEquals
from slimexport.target.precision import EXACT
from slimexport.target.runners import runs_on_cpu
from slimtrain.base.image_size import ImageSize
from slimtrain.detection.fixed.whole import FIXED, TRT
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork


def prove_detector(
    file: Path | onnx.ModelProto,
    network: SlimmableNetwork,
    plan: ChannelPlan,
    settings: DetectorSettings,
    image_size: ImageSize,
    images: Array,
    precision: str = EXACT,
    nms: str = FIXED,
) -> Parts:
    """The parts of `file`, of a detector of `settings`, with its own thresholds, on float32 `images`
    [P, 3, H, W], alone, in pairs and all at once. `network`: the dense slimmable detector in float64. `nms`: what the file
    ends with; of TensorRT's plugin it is what that reads and what it is told.

    BundleError for a file that does not tell its inner values.
    """
    kind = SingleStageProving if settings.single_stage else Proving
    model = onnx.load(file) if isinstance(file, Path) else file
    if not runs_on_cpu(precision):
        model = cast_twin(model)
    if nms == TRT:
        model, fault = without_plugin(model, settings)
        if fault:
            return Parts(fault=fault)
    return kind(Inside(model), network, plan, settings, image_size, images, precision).prove()


def near_equals_of(
    exact: Exact, settings: DetectorSettings, image_size: ImageSize, expected: dict[str, Array], tolerance: float
) -> NearEquals:
    """What hangs on roundings of the images of `exact`, whose detections are `expected` (`boxes` [P, D, 4], ...).
    `tolerance`: of maps relative to their scale, of scores, and of boxes as a share of the images' longer side; within
    a share of it two are near-equal."""
    follow = near_anchors if settings.single_stage else near_equals
    return follow(exact, settings, image_size, expected, tolerance)
