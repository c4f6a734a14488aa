"""The batch that a run can have: told from an estimate before anything is allocated.

Packaged configurations are for batches of hundreds of images on GPUs. Where `fit_batch` allows it, the batch that fits the
memory and the images is taken, and the learning rate follows it; where the batch was asked for, a run that cannot fit is
refused with the one that can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from slimtrain.base.errors import ResourceError
from slimtrain.base.free_memory import free_memory, gib
from slimtrain.base.image_size import format_size, pixels
from slimtrain.config.config import FROZEN, Config
from slimtrain.config.reading import following_lr, lr_line
from slimtrain.costs.training_memory import TrainingMemory, testing_memory, training_memory
from slimtrain.data.catalog import ALL_DATA
from slimtrain.models.width_spec import WidthSpec
from slimtrain.training.distributed import Processes

CERTAIN = 1.25  # times the free memory: what is estimated higher cannot fit, see costs/training_memory.py
FILLED = 0.8  # of the free memory: others take some meanwhile
EPOCH_STEPS = 4  # an epoch of fewer teaches little: a batch that is chosen here leaves so many
FINE = 0.1  # of the learning rate for random weights, for pretrained ones
EVEN = 8  # a batch that is chosen here is a multiple of it
PREFETCHED = 2  # batches that every process that loads images holds
UNKNOWN = 2**62  # bytes, where it is not known how many are free
LOADER = 100 * 2**20  # bytes of such a process beside its images


def fitted(config: Config, spec: WidthSpec, images: int, processes: Processes) -> tuple[Config, list[str]]:
    """The configuration with batches that fit the memory and the training `images`, and what is to be said of it, as lines.
    Images that are made up are as many as a few batches, however large.

    ResourceError where a batch that was asked for does not fit the memory, and where no batch does.
    """
    memory, free = _training(config, spec, processes), free_bytes(processes)
    parts = processes.world * config.accumulate
    most = None if free is None else memory.images(free) * parts
    if free is not None and memory(2) > CERTAIN * free:
        raise ResourceError(
            f"{spec.name} at {format_size(config.image_size)} pixels needs about {gib(memory(2))} for a batch of {2 * parts}, "
            f"{gib(free)} are free{_where(processes)}. No batch fits: lower image_size, take a smaller network, or free "
            "memory."
        )
    lines: list[str] = []
    if ALL_DATA[config.data].source == "generator":
        images = EPOCH_STEPS * config.batch_size
    batch = min(config.batch_size, images)
    why = f"there are {images} training images"
    if config.fit_batch:
        few = _even(max(images // EPOCH_STEPS, min(images, 2 * EVEN), parts))
        if few < batch:
            batch, why = few, f"for {images:,} training images"
        room = None if free is None else _even(max(memory.images(int(FILLED * free)) * parts, 2 * parts))
        if room is not None and room < batch:
            batch, why = room, f"which fits the {gib(free or 0)} that are free{_where(processes)}"
    elif most is not None and batch > most:
        assert free is not None
        message = _too_large(config, spec, batch, most, free, processes)
        if memory(math.ceil(batch / parts)) > CERTAIN * free:
            raise ResourceError(message)
        lines.append(f"warning: {message}")
    if batch == config.batch_size:
        return _with_test_batch(config, spec, free, processes), lines
    changes: dict[str, Any] = {"batch_size": batch, "fit_batch": False}
    lines.append(f"batch_size is {batch} in place of {config.batch_size}, {why}. Set batch_size to choose another.")
    if config.scale_lr:
        changes["lr"] = following_lr(config.lr, config.batch_size, batch)
        lines.append(lr_line(changes["lr"], config.lr, config.batch_size, batch))
    if config.calibration_batches and config.fit_batch:  # over as many images, as far as there are so many
        wanted = math.ceil(config.calibration_batches * config.batch_size / batch)
        changes["calibration_batches"] = min(wanted, max(config.calibration_batches, math.ceil(images / batch)))
    return _with_test_batch(dataclasses.replace(config, **changes), spec, free, processes), lines


def started(config: Config) -> tuple[Config, str]:
    """The configuration of a run that begins, with the learning rate of its start, and a line where that is another.

    Trained weights are fine-tuned with smaller steps than they were trained with: once-for-all networks with 2.5e-3 and 7.5e-3
    where their first stage took 3e-2 (the code of arXiv 1908.09791). Here a tenth, where lr was left open and all layers
    are trained ones: a new classifier learns as from scratch.
    """
    settled = dataclasses.replace(config, scratch_lr=False)
    if not config.scratch_lr or not config.pretrained or config.reset_classifier:
        return settled, ""
    lr = float(f"{config.lr * FINE:.4g}")
    line = f"lr is {lr:g}: a tenth of {config.lr:g}, as weights are pretrained ones. Set lr to choose another."
    return dataclasses.replace(settled, lr=lr), line


def resumed_batch(config: Config, before: Mapping[str, Any]) -> Config:
    """A configuration whose batch was left open, with the one that its run began with: its settings were `before`."""
    keys = ["batch_size", *(["lr"] if config.scale_lr else []), "calibration_batches"]
    if not config.fit_batch or not all(isinstance(before.get(key), int | float) for key in keys):
        return config
    return dataclasses.replace(config, fit_batch=False, scale_lr=False, **{key: before[key] for key in keys})


def resumed(config: Config, before: Mapping[str, Any]) -> Config:
    """A configuration with what it leaves open as its run began, whose settings were `before`: its batch, the learning rate
    of a start from pretrained weights and, of a run that became longer, the epochs that its stages share."""
    config = resumed_batch(config, before)
    changes: dict[str, Any] = {"scratch_lr": False}
    if config.scratch_lr and before.get("pretrained") and isinstance(before.get("lr"), int | float):
        changes.update(lr=before["lr"], scale_lr=False)
    if config.grow and not config.grow_epochs:
        staged = before.get("grow_epochs") or before.get("epochs")
        if isinstance(staged, int) and 0 < staged < config.epochs:
            changes["grow_epochs"] = staged
    return dataclasses.replace(config, **changes)


def fitted_for_testing(config: Config, spec: WidthSpec, processes: Processes) -> Config:
    """The configuration with a batch for tests and calibration that fits the memory. What is computed does not depend on
    the first; of calibration, the batch is part of what is asked for, so it is changed only where it was left open."""
    free = free_bytes(processes)
    if config.fit_batch and free is not None:
        room = _even(max(_testing(config, spec, processes).images(int(FILLED * free)) * processes.world, processes.world))
        if room < config.batch_size:
            batches = math.ceil(config.calibration_batches * config.batch_size / room)
            config = dataclasses.replace(config, batch_size=room, calibration_batches=batches, fit_batch=False)
    return _with_test_batch(config, spec, free, processes)


def fitted_for_searching(config: Config, spec: WidthSpec, images: int, processes: Processes) -> tuple[Config, list[str]]:
    """The configuration with a `search_batch` that fits the memory, for a search in `spec` on so many held-out `images`, and
    what is to be said of it, as lines. A chunk of images is seen by one process as a whole.

    What a search finds depends on it, so it is always named afterwards: where it was left open it is that of tests, as far
    as it fits; ResourceError where one that was asked for does not fit the memory, and where no batch does.
    """
    usual = config.test_batch_size or config.batch_size
    batch = min(config.search_batch or usual, images)
    memory, free = _searching(config, spec, images, processes), free_bytes(processes)
    lines: list[str] = []
    if free is not None:
        most, where = memory.images(free), f"{gib(free)} are free{_where(processes)}"
        needs = f"a search in {spec.name} at {config.image_size} pixels needs about"
        if memory(1) > CERTAIN * free:
            raise ResourceError(
                f"{needs} {gib(memory(1))} for a batch of 1, {where}. No batch fits: lower image_size or search_cache_gib, "
                "take a smaller network, or free memory."
            )
        if config.search_batch and batch > most:
            fits = _even(max(most, 1))
            message = (
                f"search_batch {batch}: {needs} {gib(memory(batch))} for it, {where}. Set search_batch to at most {fits} "
                f"(--search-batch {fits})."
            )
            if memory(batch) > CERTAIN * free:
                raise ResourceError(message)
            lines.append(f"warning: {message}")
        room = _even(max(memory.images(int(FILLED * free)), 1))
        if not config.search_batch and room < batch:
            lines.append(
                f"search_batch is {room} in place of {batch}, which fits the {gib(free)} that are free{_where(processes)}. "
                "Set search_batch to choose another."
            )
            batch = room
    return dataclasses.replace(config, search_batch=batch), lines


def free_bytes(processes: Processes) -> int | None:
    """Memory that every process may take where it computes: its GPU's, or its share of the machine's; the least of all, so
    that all choose one batch. None where it is not known."""
    if processes.device.type == "cuda":
        own: int | None = int(torch.cuda.mem_get_info(processes.device)[0])
    else:
        own = free_memory()
        own = None if own is None else own // processes.world
    least = processes.least(UNKNOWN if own is None else own)
    return None if least == UNKNOWN else least


def _training(config: Config, spec: WidthSpec, processes: Processes) -> TrainingMemory:
    taught = config.taught_by == FROZEN
    memory = training_memory(spec, config.image_size, averaged=bool(config.ema), half=config.amp != "none", taught=taught)
    return _with_loaders(memory, config, processes)


def _testing(config: Config, spec: WidthSpec, processes: Processes) -> TrainingMemory:
    return _with_loaders(testing_memory(spec, config.image_size), config, processes)


def _searching(config: Config, spec: WidthSpec, images: int, processes: Processes) -> TrainingMemory:
    """As tests take it (the maps that candidates share are among the largest few), and on the CPU the opened images that are
    kept."""
    memory = _testing(config, spec, processes)
    if processes.device.type == "cuda":
        return memory
    kept = min(config.search_cache_gib * 2**30, images * spec.in_channels * pixels(config.image_size) * 4)
    return TrainingMemory(memory.fixed + int(kept), memory.per_image)


def _with_loaders(memory: TrainingMemory, config: Config, processes: Processes) -> TrainingMemory:
    """On the CPU, with what the processes that load images hold beside."""
    if processes.device.type == "cuda":
        return memory
    held = PREFETCHED * config.loaders * config.in_channels * pixels(config.image_size) * 4
    return TrainingMemory(memory.fixed + config.loaders * LOADER, memory.per_image + held)


def _with_test_batch(config: Config, spec: WidthSpec, free: int | None, processes: Processes) -> Config:
    """The configuration with a batch for tests that fits: its figures do not depend on it."""
    if free is None:
        return config
    room = max(_testing(config, spec, processes).images(int(FILLED * free)) * processes.world, processes.world)
    if (config.test_batch_size or config.batch_size) <= room:
        return config
    return dataclasses.replace(config, test_batch_size=_even(room))


def _even(batch: int) -> int:
    """A number that is easily divided, at most `batch`."""
    return batch // EVEN * EVEN or batch


def _where(processes: Processes) -> str:
    shared = "" if processes.device.type == "cuda" or processes.world == 1 else " for each process"
    return f" on {'this GPU' if processes.device.type == 'cuda' else 'this machine'}{shared}"


def _too_large(config: Config, spec: WidthSpec, batch: int, most: int, free: int, processes: Processes) -> str:
    parts = processes.world * config.accumulate
    fits = _even(max(most, 2 * parts))
    divided = config.accumulate * math.ceil(batch / fits)
    return (
        f"batch_size {batch}: {spec.name} at {format_size(config.image_size)} pixels needs about "
        f"{gib(_training(config, spec, processes)(math.ceil(batch / parts)))} "
        f"for it, {gib(free)} are free{_where(processes)}. Set batch_size to at most {fits} (--batch-size {fits}; lr follows "
        f"unless it is set), or compute it in parts: --set accumulate={divided}."
    )
