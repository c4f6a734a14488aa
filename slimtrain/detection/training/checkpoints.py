"""Testing and calibrating a detector's checkpoint on a configuration's images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from slimtrain.base.errors import UserError
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_configured
from slimtrain.config.config import Config
from slimtrain.data.detection.coco import DetectionData
from slimtrain.detection.halves import Halves
from slimtrain.detection.training.inputs import DetectionImages, data_of, detector_of
from slimtrain.detection.training.testing import DetectionResult, evaluate_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.detector import DetectorSettings
from slimtrain.training.distributed import Processes
from slimtrain.training.testing import (
    REMEDY,
    calibrate_with,
    calibrated_path,
    check_same_classes,
    chosen_plans,
    placed,
    write_calibrated,
)

log = logging.getLogger(__name__)


def test_detector(
    config: Config,
    processes: Processes,
    ckpt: str,
    widths: str | None = None,  # noqa: PT028  # it is no test
    channels: Sequence[str] = (),  # noqa: PT028
    weights: str | None = None,  # noqa: PT028
) -> tuple[list[ChannelPlan], list[DetectionResult]]:
    """Plans of a checkpoint and their average precision on `config`'s test images; without `widths` all that have statistics,
    or, of a configuration that is for testing only, those that it names, calibrated where they have none.

    Raises CheckpointError, WidthError or UserError where checkpoint, widths or data do not fit.
    """
    checkpoint, settings, images = open_with_images(config, processes, ckpt, weights)
    config, network = images.config, checkpoint.network
    usual = sorted({*checkpoint.spec.range, *config.test_widths})
    plans = chosen_plans(checkpoint, widths, channels, usual, calibrated=not (config.test_only and config.test_widths))
    missing = [plan for plan in plans if not network.has_statistics(plan)]
    if missing and config.test_only and config.calibration_batches:
        calibrate_with(images, network, missing, Halves(network).first)
    elif missing:
        raise missing_statistics(network, missing[0], checkpoint.file, REMEDY)
    layout = bool(config.channels_last)
    results = evaluate_detector(network, settings, plans, images.testing(), processes, amp=config.amp, channels_last=layout)
    return plans, results


test_detector.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


def calibrate_checkpoint(
    config: Config,
    processes: Processes,
    ckpt: str,
    widths: str | None,
    channels: Sequence[str] = (),
    output: str | None = None,
    weights: str | None = None,
) -> tuple[Path, list[ChannelPlan]]:
    """Write a checkpoint in which the plans asked for have statistics of `config`'s training images; its path and the
    plans. Without `widths`: the ends of a US network's range and `config.test_widths`, or all switches."""
    checkpoint, _, images = open_with_images(config, processes, ckpt, weights)
    path = Path(output) if output else calibrated_path(Path(ckpt))
    return path, write_calibrated(checkpoint, images, widths, channels, path, Halves(checkpoint.network).first)


def open_with_images(
    config: Config, processes: Processes, ckpt: str, weights: str | None = None
) -> tuple[Checkpoint, DetectorSettings, DetectionImages]:
    """A detector's checkpoint (of several sets of `weights` in it the one that is named), its settings, and the images that
    it takes, with the configuration that says so."""
    checkpoint = open_configured(ckpt, config, weights=weights)
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
