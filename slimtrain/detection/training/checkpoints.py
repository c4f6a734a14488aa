"""Testing and calibrating a detector's checkpoint on a configuration's images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config
from slimtrain.data.detection.coco import DetectionData
from slimtrain.detection.halves import Halves
from slimtrain.detection.opening import open_checkpoint
from slimtrain.detection.training.inputs import DetectionImages, data_of, detector_of
from slimtrain.detection.training.testing import DetectionResult, evaluate_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.training.distributed import Processes
from slimtrain.training.testing import Opened, check_same_classes, placed

log = logging.getLogger(__name__)


def opened_detector(config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> Opened[DetectionResult]:
    """A detector's checkpoint with what it is tested and calibrated with. Raises CheckpointError or UserError where checkpoint
    and data do not fit."""
    checkpoint, settings, images = open_with_images(config, processes, ckpt, weights)
    network, config = checkpoint.network, images.config

    def precisions(plans: Sequence[ChannelPlan]) -> list[DetectionResult]:
        layout = bool(config.channels_last)
        return evaluate_detector(network, settings, plans, images.testing(), processes, amp=config.amp, channels_last=layout)

    return Opened(checkpoint, images, precisions, Halves(network).first)


def open_with_images(
    config: Config, processes: Processes, ckpt: str, weights: str | None = None
) -> tuple[Checkpoint, DetectorSettings, DetectionImages]:
    """A detector's checkpoint (of several sets of `weights` in it the one that is named), its settings, and the images that
    it takes, with the configuration that says so."""
    checkpoint = open_checkpoint(ckpt, weights=weights)
    settings = detector_settings(checkpoint, detector_of(config).kind)
    images = {"image_size": checkpoint.image_size, "mean": checkpoint.mean, "std": checkpoint.std}
    if any(getattr(config, key) != value for key, value in images.items()):
        log.warning("%s says which images it takes: %s", checkpoint.file, images)
        config = dataclasses.replace(config, **images)  # type: ignore[arg-type]
    data: DetectionData = data_of(config)
    check_same_classes(checkpoint, data.classes)
    config = placed(checkpoint, config, processes)
    return checkpoint, settings, DetectionImages(config, data, processes, settings.image_stride)


def detector_settings(checkpoint: Checkpoint, kind: str) -> DetectorSettings:
    """What the detector in a file is beside its graph. UserError where it is none, or one of another kind."""
    spec = checkpoint.spec
    settings = spec.detector if isinstance(spec, GraphSpec) else None
    if settings is None:
        raise UserError(
            f"{checkpoint.file}: is a {spec.name}, no detector, and the configuration is of a {kind}. Name a classifier's "
            "configuration, or a detector's file."
        )
    if settings.kind != kind:
        raise UserError(
            f"{checkpoint.file}: is a {settings.kind}, the configuration is of a {kind}. Set network: "
            f"--set network={spec.family}_{settings.kind}."
        )
    return settings
