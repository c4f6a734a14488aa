"""Testing and calibrating a checkpoint on a configuration's images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.options import parse_widths
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_configured
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config
from slimtrain.data.datasets import Data
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.slimmable.layout import memory_format, takes_channels_last
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result, Scores, calibrate_on, evaluate
from slimtrain.training.fitting import fitted_for_testing
from slimtrain.training.inputs import Images, RunImages, data_of
from slimtrain.training.resume import finished_content

Forward = Callable[[Tensor], Any]
AnyResult = TypeVar("AnyResult", bound=Result)
log = logging.getLogger(__name__)

REMEDY = "Calibrate with `python -m slimtrain calibrate`"


@dataclass(frozen=True)
class Opened(Generic[AnyResult]):
    """A checkpoint with the images of a configuration that says what it takes. `evaluate`: what plans are worth on the test
    images; `forward`: as of `calibrate`."""

    checkpoint: Checkpoint
    images: Images
    evaluate: Callable[[Sequence[ChannelPlan]], list[AnyResult]]
    forward: Forward | None = None


def opened_classifier(config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> Opened[Scores]:
    """Errors as of `open_with_data`."""
    checkpoint, config, data = open_with_data(config, processes, ckpt, weights)
    images = RunImages(config, data, processes)

    def scores(plans: Sequence[ChannelPlan]) -> list[Scores]:
        batches = (batch.labeled for batch in images.testing())
        layout = bool(config.channels_last)
        return evaluate(checkpoint.network, plans, batches, processes, amp=config.amp, channels_last=layout)

    return Opened(checkpoint, images, scores)


def results_of(
    opened: Opened[AnyResult], widths: str | None = None, channels: Sequence[str] = ()
) -> tuple[list[ChannelPlan], list[AnyResult]]:
    """Plans of a checkpoint and what they are worth on test images; without `widths` all that have statistics, or, of a
    configuration that is for testing only, those that it names, calibrated where they have none.

    WidthError or UserError where widths do not fit.
    """
    checkpoint, config = opened.checkpoint, opened.images.config
    network = checkpoint.network
    usual = sorted({*checkpoint.spec.range, *config.test_widths})
    plans = _plans(checkpoint, widths, channels, usual, calibrated=not (config.test_only and config.test_widths))
    missing = [plan for plan in plans if not network.has_statistics(plan)]
    if missing and config.test_only and config.calibration_batches:  # what a published file for testing asks for
        _calibrate(opened, missing)
    elif missing:
        raise missing_statistics(network, missing[0], checkpoint.file, REMEDY)
    return plans, opened.evaluate(plans)


def write_calibrated(
    opened: Opened[Any], path: Path, widths: str | None = None, channels: Sequence[str] = ()
) -> list[ChannelPlan]:
    """Write a checkpoint in which the plans asked for have statistics of training images; these plans. Without `widths`: the
    ends of a US network's range and the configuration's `test_widths`, or all switches."""
    checkpoint, images = opened.checkpoint, opened.images
    config, spec = images.config, checkpoint.spec
    if not config.calibration_batches:
        raise UserError("calibration_batches is 0: set it to the number of batches, as in --set calibration_batches=5.")
    usual = [*spec.range, *config.test_widths] if spec.family == "us" else list(spec.switches)
    plans = _plans(checkpoint, widths, channels, usual, calibrated=False)
    _calibrate(opened, plans)
    if images.processes.first:
        content = (checkpoint.network, config, images.data.classes, checkpoint.settings, checkpoint.probe_images)
        save(finished_content(*content, averaged=checkpoint.averaged), path)
    return plans


def calibrated_path(ckpt: Path) -> Path:
    """Where a calibrated checkpoint is written unless somebody says: `NAME_calibrated.pt` beside it."""
    return ckpt.with_name(f"{ckpt.name.split('.')[0]}_calibrated.pt")


def _calibrate(opened: Opened[Any], plans: Sequence[ChannelPlan]) -> None:
    images, config = opened.images, opened.images.config
    if images.processes.first:
        log.info("calibrating %s over %s", ", ".join(plan.name for plan in plans), images.describe_calibration())
    last, synchronized = bool(config.channels_last), config.sync_norm
    calibrate_on(
        opened.checkpoint.network,
        plans,
        images.calibrating(),
        images.processes,
        channels_last=last,
        sync_norm=synchronized,
        forward=opened.forward,
    )


def _plans(
    checkpoint: Checkpoint, widths: str | None, files: Sequence[str], usual: Sequence[float], calibrated: bool
) -> list[ChannelPlan]:
    """The plans asked for, each once: widths, then plan files; with neither, `usual` or those that are known."""
    spec, network = checkpoint.spec, checkpoint.network
    chosen = parse_widths(widths) if widths else None
    if chosen is not None:
        plans = [spec.plan(width) for width in chosen]
    elif files and not widths:
        plans = []
    elif calibrated or widths:  # all
        plans = [plan for plan in network.known_plans if not calibrated or network.has_statistics(plan)]
        plans = sorted(plans or spec.plans, key=lambda plan: plan.width or 0)
    else:
        plans = [spec.plan(width) for width in usual]
    return list(dict.fromkeys([*plans, *(read_plan_file(Path(file), spec) for file in files)]))


def open_with_data(
    config: Config, processes: Processes, ckpt: str, weights: str | None = None
) -> tuple[Checkpoint, Config, Data]:
    """A checkpoint (of several sets of `weights` in it the one that is named), the configuration with the images that it
    takes, in the layout that they take here, and these."""
    checkpoint = open_configured(ckpt, config, network=config.network, weights=weights)
    spec = checkpoint.spec
    if isinstance(spec, GraphSpec) and spec.detector is not None:
        raise UserError(
            f"{checkpoint.file}: is a detector, a {spec.detector.kind}, and network {config.network} a classifier. Name a "
            "detector's configuration, such as detect_digits, or another file."
        )
    spec.check_classifier(checkpoint.file, "work on labeled images")
    images: dict[str, Any] = {"image_size": checkpoint.image_size, "mean": checkpoint.mean, "std": checkpoint.std}
    images["in_channels"] = spec.in_channels
    described = checkpoint.described or spec.in_channels != config.in_channels
    if "exif_orientation" in checkpoint.settings:
        images["exif_orientation"] = checkpoint.settings["exif_orientation"]
    if described and any(getattr(config, key) != value for key, value in images.items()):
        log.warning("%s says which images it takes: %s", checkpoint.file, images)
        config = dataclasses.replace(config, **images)
    spec.check_image_size(config.image_size)
    data = data_of(config)
    check_same_classes(checkpoint, data.classes)
    return checkpoint, placed(checkpoint, config, processes), data


def check_same_classes(checkpoint: Checkpoint, classes: Sequence[str]) -> None:
    """UserError where the data has another number of classes than a checkpoint, CheckpointError where it has others."""
    if len(classes) != checkpoint.spec.classes:
        raise UserError(
            f"{checkpoint.file}: has {checkpoint.spec.classes} classes, the data has {len(classes)}. Test it on the images "
            "that it was trained for."
        )
    if checkpoint.class_names and checkpoint.class_names != tuple(classes):
        pairs = zip(checkpoint.class_names, classes, strict=True)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        raise CheckpointError(
            f"{checkpoint.file}: has a class {theirs!r} where the data has {ours!r}: labels would not mean the same. Test it "
            "on the images that it was trained for."
        )


def placed(checkpoint: Checkpoint, config: Config, processes: Processes) -> Config:
    """Move a checkpoint's network to where it is computed with, in the layout that is faster there; the configuration with
    that and with batches that fit."""
    config = fitted_for_testing(config, checkpoint.spec, processes)
    channels_last = takes_channels_last(checkpoint.network, processes.device, config.amp, config.channels_last)
    checkpoint.network.to(processes.device, memory_format=memory_format(channels_last))  # type: ignore[call-overload]
    return dataclasses.replace(config, channels_last=channels_last)
