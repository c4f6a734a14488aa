"""One step of a configuration on fake data: does it fit, does it run?"""

from __future__ import annotations

import dataclasses
import time

import torch

from slimtrain.config.config import Config
from slimtrain.data.loader import training_batches
from slimtrain.training.distributed import Processes
from slimtrain.training.inputs import data_of, train_transform_of
from slimtrain.training.run import Run

CLASSES = 10  # where neither the configuration nor its data tells


def dry_run(config: Config, processes: Processes) -> str:
    """Train one step on random images of the configuration's size, number of classes and batch; what happened, as a
    line. Nothing is written."""
    fake = dataclasses.replace(
        config,
        data="fake",
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
    batch = next(
        training_batches(
            run.data.train,
            train_transform_of(fake),
            epochs=1,
            batch_size=fake.batch_size,
            seed=fake.seed,
            rank=processes.rank,
            world=processes.world,
        )
    )
    began = time.perf_counter()
    losses = run.train_step(batch)
    run.check_losses()
    seconds = time.perf_counter() - began
    memory = ""
    if processes.device.type == "cuda":
        memory = f", peak memory {torch.cuda.max_memory_allocated(processes.device) / 2**20:.0f} MiB"
    return (
        f"# dry run: one step of {config.batch_size} fake images on {processes.describe()} in {seconds:.2f} s{memory}; "
        f"loss {run.shown(losses.tolist())}"
    )
