"""Calibrating on the images of a data set, drawn as a training epoch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from slimtrain.config.config import Config
from slimtrain.data.datasets import Data
from slimtrain.data.loader import training_batches
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import to_device
from slimtrain.training.inputs import train_transform_of

CALIBRATION_EPOCH = 1_000_000  # images for calibration are drawn as those of an epoch that no run reaches


def calibrate_on(
    data: Data, config: Config, processes: Processes, network: SlimmableNetwork, plans: Sequence[ChannelPlan]
) -> None:
    """Give `plans` the statistics of `config.calibration_batches` batches of training images, the same for any number of
    processes."""
    batch_size = min(config.batch_size, len(data.train))
    batches = training_batches(
        data.train,
        train_transform_of(config),
        epochs=CALIBRATION_EPOCH,
        batch_size=batch_size,
        seed=config.seed + CALIBRATION_EPOCH,
        rank=processes.rank,
        world=processes.world,
        workers=config.loaders,
        pin_memory=processes.device.type == "cuda",
    )

    def images() -> Iterator[torch.Tensor]:
        for number, batch in enumerate(batches, 1):
            yield to_device(batch, processes, config.channels_last)[0]
            if number == config.calibration_batches:
                return

    network.synchronize(processes.world > 1)
    try:
        calibrate(network, plans, images())
    finally:
        network.synchronize(config.sync_norm and processes.world > 1)
