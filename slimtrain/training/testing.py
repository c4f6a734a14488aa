"""Testing and calibrating a checkpoint on a configuration's images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.options import parse_widths
from slimtrain.checkpoints.checkpoint import Checkpoint, missing_statistics, open_configured
from slimtrain.checkpoints.writing import save
from slimtrain.config.config import Config
from slimtrain.data.datasets import Data
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.plan_file import read_plan_file
from slimtrain.slimmable.layout import memory_format, takes_channels_last
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Scores, calibrate_on, evaluate
from slimtrain.training.fitting import fitted_for_testing
from slimtrain.training.inputs import RunImages, data_of
from slimtrain.training.resume import finished_content

log = logging.getLogger(__name__)

REMEDY = "Calibrate with `python -m slimtrain calibrate`"


def test_checkpoint(
    config: Config,
    processes: Processes,
    ckpt: str,
    widths: str | None,
    channels: Sequence[str],
    weights: str | None = None,  # noqa: PT028  # it is no test
) -> tuple[list[ChannelPlan], list[Scores]]:
    """Plans of a checkpoint and their scores on `config`'s test images; without `widths` all that have statistics, or, of
    a configuration that is for testing only, those that it names, calibrated where they have none.

    Raises CheckpointError, WidthError or UserError where checkpoint, widths or data do not fit.
    """
    checkpoint, config, data = open_with_data(config, processes, ckpt, weights)
    network = checkpoint.network
    usual = sorted({*checkpoint.spec.range, *config.test_widths})
    plans = _plans(checkpoint, widths, channels, usual, calibrated=not (config.test_only and config.test_widths))
    missing = [plan for plan in plans if not network.has_statistics(plan)]
    if missing and config.test_only and config.calibration_batches:  # what a published file for testing asks for
        _calibrate(RunImages(config, data, processes), network, missing)
    elif missing:
        raise missing_statistics(network, missing[0], checkpoint.file, REMEDY)
    batches = (batch.labeled for batch in RunImages(config, data, processes).testing())
    return plans, evaluate(network, plans, batches, processes, amp=config.amp, channels_last=bool(config.channels_last))


test_checkpoint.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


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
    checkpoint, config, data = open_with_data(config, processes, ckpt, weights)
    if not config.calibration_batches:
        raise UserError("calibration_batches is 0: set it to the number of batches, as in --set calibration_batches=5.")
    spec = checkpoint.spec
    usual = [*spec.range, *config.test_widths] if spec.family == "us" else list(spec.switches)
    plans = _plans(checkpoint, widths, channels, usual, calibrated=False)
    path = Path(output) if output else Path(ckpt).with_name(f"{Path(ckpt).name.split('.')[0]}_calibrated.pt")
    _calibrate(RunImages(config, data, processes), checkpoint.network, plans)
    if processes.first:
        probes = checkpoint.probe_images
        save(finished_content(checkpoint.network, config, data.classes, checkpoint.settings, probes), path)
    return path, plans


def _calibrate(images: RunImages, network: SlimmableNetwork, plans: Sequence[ChannelPlan]) -> None:
    config = images.config
    if images.processes.first:
        log.info("calibrating %s over %s", ", ".join(plan.name for plan in plans), images.describe_calibration())
    last, synchronized = bool(config.channels_last), config.sync_norm
    batches = images.calibrating()
    calibrate_on(network, plans, batches, images.processes, channels_last=last, sync_norm=synchronized)


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
    if len(data.classes) != spec.classes:
        raise UserError(
            f"{checkpoint.file}: has {spec.classes} classes, the data has {len(data.classes)}. Test it on the images that it "
            "was trained for."
        )
    if checkpoint.class_names and checkpoint.class_names != data.classes:
        pairs = zip(checkpoint.class_names, data.classes, strict=True)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        raise CheckpointError(
            f"{checkpoint.file}: has a class {theirs!r} where the data has {ours!r}: labels would not mean the same. Test it "
            "on the images that it was trained for."
        )
    config = fitted_for_testing(config, spec, processes)
    channels_last = takes_channels_last(checkpoint.network, processes.device, config.amp, config.channels_last)
    checkpoint.network.to(processes.device, memory_format=memory_format(channels_last))  # type: ignore[call-overload]
    return checkpoint, dataclasses.replace(config, channels_last=channels_last), data
