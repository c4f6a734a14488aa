"""A configuration tried in seconds: are data and checkpoint there, does the batch fit, does a step run? Nothing is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from slimtrain.base.text import count, some
from slimtrain.checkpoints.checkpoint import Checkpoint
from slimtrain.config.config import Config
from slimtrain.data.catalog import CATALOG, FAKE
from slimtrain.data.datasets import Data, ImageSets
from slimtrain.data.samples import Pictures
from slimtrain.tracing.starting import spec_of, starting
from slimtrain.training.distributed import Processes
from slimtrain.training.fitting import fitted, resumed, started
from slimtrain.training.inputs import data_of, spread_indices, test_transform_of, train_transform_of
from slimtrain.training.report import describe_losses
from slimtrain.training.resume import read_run, run_to_resume
from slimtrain.training.run import NO_FEATURES, Run, open_pretrained
from slimtrain.training.testing import open_with_data

Last = tuple[Path, dict[str, Any]]  # of a run that goes on
CLASSES = 10  # where neither the configuration nor its data tells
FEW = 4  # images of a part, at most
OPENED = 8  # images of the data, of training and of testing each
MANY = 1000  # batches of training images, where it is not known how many there are


def dry_run(config: Config, processes: Processes) -> list[str]:
    """Look at the data where a folder is named and at the checkpoint that the run starts from or goes on with, tell whether
    the batch fits, and train one step on a few random images of the configuration's size and number of classes; what came
    out, as lines. Errors as of a run."""
    config, last = going_on(config)
    data = None if CATALOG[config.data].source == "data_dir" and not config.data_dir else data_of(config)
    lines = [f"data_dir is not set: {config.data} is not looked at"] if data is None else describe_data(config, data)
    checkpoint = None if last else _pretrained(config, processes, data)
    known = 0 if checkpoint is None or config.reset_classifier else checkpoint.spec.classes
    classes = config.known_classes or known or CLASSES if data is None else len(data.classes)
    images = MANY * config.batch_size if data is None else len(data.train)
    start = starting(config, classes, None if last is None else last[1])
    if start is not None and config.pretrained and last is None and not start.loaded:
        checkpoint = open_pretrained(config)
    spec = spec_of(config, classes, start)
    whole, fits = fitted(config, spec, images, processes)
    if last is not None and data is not None:
        read_run(*last, whole, spec, data)
    lines += describe_last(last)
    whole, slower = started(whole)
    tried = dataclasses.replace(tried_with(whole, processes), data=FAKE, classes=classes, augmentation="none", holdout=0)
    run = Run(tried, processes, data_of(tried), start)
    if start is not None and start.loaded:
        lines.append(start.line)
    if checkpoint is not None and not config.test_only:
        lines.append(run.start_from(checkpoint, () if data is None else data.classes))
    if checkpoint is not None:
        theirs = checkpoint.spec
        described = (
            f"{checkpoint.file}: {theirs.name}, {theirs.describe_widths()}, {count(theirs.classes, 'class', 'classes')}"
        )
        lines.append(f"{'tests' if config.test_only else 'starts from'} {described}")
    elif config.reset_classifier and last is None:
        lines.append(NO_FEATURES)
    step = tried_step(run, processes)
    return [f"# {line}" for line in filter(None, (*lines, *fits, slower, step))]


def going_on(config: Config) -> tuple[Config, Last | None]:
    """The checkpoint that a run would go on with, and its content, where there is one, and the configuration as it does so."""
    last = None if config.test_only else run_to_resume(config.resume, Path(config.output_dir), config.pretrained)
    return (config, None) if last is None else (resumed(config, last[1]["training"]["config"]), last)


def describe_last(last: Last | None) -> list[str]:
    """What a run goes on with, as a line."""
    return [] if last is None else [f"goes on with {last[0]}, after step {last[1]['training'].get('step')}"]


def tried_with(config: Config, processes: Processes) -> Config:
    """The configuration with a batch of a few images, alone and without files."""
    parts = processes.world * config.accumulate
    few = min(parts * max(1, min(FEW, config.batch_size // parts)), config.batch_size)
    return dataclasses.replace(config, batch_size=few, workers=0, resume="none", test_only=False, tensorboard=False)


def tried_step(run: Run, processes: Processes) -> str:
    """Do one step; what came out, as a line."""
    batch = next(run.images.training())
    began = time.perf_counter()
    losses = run.train_step(batch)
    run.health.check_losses()
    seconds = time.perf_counter() - began
    memory = ""
    if processes.device.type == "cuda":
        memory = f", peak memory {torch.cuda.max_memory_allocated(processes.device) / 2**20:.0f} MiB"
    return (
        f"dry run: one step of {count(batch.total, 'fake image')} on {processes.describe()} in {seconds:.2f} s{memory}; "
        f"loss {describe_losses(run.trainer.sampler, losses.tolist(), batch.step)}"
    )


def _pretrained(config: Config, processes: Processes, data: Data | None) -> Checkpoint | None:
    """The checkpoint that a run starts from, or that it tests, then with what its data must be; None where there is none."""
    if not config.pretrained or config.model:  # of a model the weights may be its own, see `starting`
        return None
    if config.test_only and data is not None:
        return open_with_data(config, processes, config.pretrained, config.pretrained_weights or None)[0]
    return open_pretrained(config)


def held_by(data: ImageSets) -> str:
    """What a data set holds, as a line."""
    return (
        f"data: {count(len(data.classes), 'class', 'classes')} ({some(data.classes)}), "
        f"{count(len(data.train), 'image')} to train, {len(data.test):,} to test"
    )


def describe_data(config: Config, data: Data) -> list[str]:
    """What the data holds, and whether a few of its images can be read and transformed, as lines."""
    lines = [held_by(data)]
    train, test = train_transform_of(config), test_transform_of(config)
    lines += unreadable(data.train, lambda index: train(data.train.image(index)))
    return lines + unreadable(data.test, lambda index: test(data.test.image(index)))


def unreadable(samples: Pictures, opened: Callable[[int], Any]) -> list[str]:
    """Warnings of those of a few images from all over a set that cannot be `opened` and transformed."""
    lines = []
    for index in spread_indices(len(samples), OPENED):
        try:
            opened(index)
        except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
            lines.append(f"warning: {samples.name(index)}: cannot be read ({type(error).__name__})")
    return lines
