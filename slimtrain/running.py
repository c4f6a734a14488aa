"""What is done with a configuration, whether it is of a classifier or of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtrain.models.spec import IMAGENET_CLASSES

if TYPE_CHECKING:
    from slimtrain.config.config import Config
    from slimtrain.models.channels import ChannelPlan
    from slimtrain.training.distributed import Processes
    from slimtrain.training.evaluate import Result


def train(config: Config, processes: Processes | None = None, notes: Sequence[str] = ()) -> Path:
    """Train what `config` says, calibrate and test it, as `python -m slimtrain train` does; the finished checkpoint's path.

    Without `processes` the run is that which `torchrun` set up, or one process. `notes` are lines for the log, of what the
    configuration was made of.

    >>> import slimtrain
    >>> changes = ["data=fake", "batch_size=8", "epochs=3", "width_range=[0.1, 0.2]", "test_widths="]
    >>> config = slimtrain.read_config("digits", changes, output_dir="runs/try")
    >>> path = slimtrain.train(config)  # doctest: +ELLIPSIS
    us_mobilenet_v1, widths 0.1 to 0.2: 32 images to train, 16 to test, 10 classes
    ...
    >>> str(path)
    'runs/try/us_mbv1.pt'

    Raises UserError and its subclasses for anything wrong with configuration, data or files, TrainingError where the
    loss is no longer finite.
    """
    from slimtrain.training import distributed

    if processes is None:
        with distributed.processes(config.device) as joined:
            return train(config, joined, notes)
    if config.detector is not None:
        from slimtrain.detection.training.run import train_detector

        return train_detector(config, processes, notes)
    from slimtrain.training.run import train as train_classifier

    return train_classifier(config, processes, notes)


def dry_run(config: Config, processes: Processes) -> list[str]:
    """A configuration tried in seconds, without writing anything; what came out, as lines. Errors as of a run."""
    if config.detector is not None:
        from slimtrain.detection.training.dry_run import dry_run as try_detector

        return try_detector(config, processes)
    from slimtrain.training.dry_run import dry_run as try_classifier

    return try_classifier(config, processes)


def test_checkpoint(
    config: Config,
    processes: Processes,
    ckpt: str,
    widths: str | None,
    channels: Sequence[str],
    weights: str | None = None,  # noqa: PT028  # it is no test
) -> tuple[list[ChannelPlan], Sequence[Result]]:
    """Plans of a checkpoint and what they are worth on `config`'s test images; without `widths` all that have statistics.
    CheckpointError, WidthError or UserError where checkpoint, widths or data do not fit."""
    if config.detector is not None:
        from slimtrain.detection.training.checkpoints import test_detector

        return test_detector(config, processes, ckpt, widths, channels, weights)
    from slimtrain.training.testing import test_checkpoint as test_classifier

    return test_classifier(config, processes, ckpt, widths, channels, weights)


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
    plans."""
    if config.detector is not None:
        from slimtrain.detection.training.checkpoints import calibrate_checkpoint as calibrate_detector

        return calibrate_detector(config, processes, ckpt, widths, channels, output, weights)
    from slimtrain.training.testing import calibrate_checkpoint as calibrate_classifier

    return calibrate_classifier(config, processes, ckpt, widths, channels, output, weights)


def costs_of(config: Config, widths: Sequence[float] | None) -> tuple[list[dict[str, Any]], bool]:
    """What the widths of a configuration's network cost, as of `slimtrain.costs.profiling.costs`, and whether these were
    published."""
    if config.detector is not None:
        from slimtrain.detection.training.profiling import detector_costs

        return detector_costs(config, widths), False
    from slimtrain.costs.profiling import costs, is_published, usual_widths

    spec = config.spec(config.known_classes or IMAGENET_CLASSES)
    shown = widths or usual_widths(spec, config.test_widths)
    return costs(spec, config.image_size, shown), is_published(spec, config.image_size, shown)
