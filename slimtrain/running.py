"""What is done with a configuration, whether it is of a classifier or of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimtrain.models.spec import IMAGENET_CLASSES

if TYPE_CHECKING:
    from slimtrain.config.config import Config
    from slimtrain.training.distributed import Processes
    from slimtrain.training.testing import Opened


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


def opened(config: Config, processes: Processes, ckpt: str, weights: str | None = None) -> Opened[Any]:
    """A checkpoint, of several sets of `weights` in it the one that is named, with what it is tested and calibrated with.
    CheckpointError or UserError where it does not fit the configuration or its data."""
    if config.detector is not None:
        from slimtrain.detection.training.checkpoints import opened_detector

        return opened_detector(config, processes, ckpt, weights)
    from slimtrain.training.testing import opened_classifier

    return opened_classifier(config, processes, ckpt, weights)


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
