"""One step of a configuration on fake data: does it fit, does it run?"""

from __future__ import annotations

import dataclasses
import time

import torch

from slimtrain.config.config import Config
from slimtrain.data.catalog import FAKE
from slimtrain.training.distributed import Processes
from slimtrain.training.inputs import data_of
from slimtrain.training.report import describe_losses
from slimtrain.training.run import Run

CLASSES = 10  # where neither the configuration nor its data tells


def dry_run(config: Config, processes: Processes) -> str:
    """Train one step on random images of the configuration's size, number of classes and batch; what happened, as a
    line. Nothing is written."""
    fake = dataclasses.replace(
        config,
        data=FAKE,
        classes=config.known_classes or CLASSES,
        augmentation="none",
        workers=0,
        holdout=0,
        pretrained="",
        resume="none",
        test_only=False,
        tensorboard=False,
    )
    run = Run(fake, processes, data_of(fake))
    batch = next(run.images.training())
    began = time.perf_counter()
    losses = run.train_step(batch)
    run.health.check_losses()
    seconds = time.perf_counter() - began
    memory = ""
    if processes.device.type == "cuda":
        memory = f", peak memory {torch.cuda.max_memory_allocated(processes.device) / 2**20:.0f} MiB"
    return (
        f"# dry run: one step of {config.batch_size} fake images on {processes.describe()} in {seconds:.2f} s{memory}; "
        f"loss {describe_losses(run.trainer.sampler, losses.tolist())}"
    )
