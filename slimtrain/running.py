"""A training run of whatever its configuration says: a classifier or a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimtrain.config.config import Config
    from slimtrain.training.distributed import Processes


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
