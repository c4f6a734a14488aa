"""What a run saves, going on with it, and making room for a new one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimtrain.base.errors import CheckpointError, UserError
from slimtrain.base.files import RUN, disk_error, remove_partials
from slimtrain.base.folders.claim import claimed
from slimtrain.base.text import some
from slimtrain.base.untrusted.quoting import quoted, reason
from slimtrain.checkpoints.checkpoint import Checkpoint, checked_settings
from slimtrain.checkpoints.own_layout import described, is_own, own_content, read_own
from slimtrain.checkpoints.published_layout import published_content
from slimtrain.checkpoints.reading import read_content
from slimtrain.config.config import Config, plain, run_settings, singly
from slimtrain.config.run_folder import LAST, RESOLVED
from slimtrain.data.datasets import ImageSets
from slimtrain.data.loader import steps_per_epoch
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.training.distributed import Processes
from slimtrain.training.optimizer import Schedule
from slimtrain.training.records.logbook import SummaryRow
from slimtrain.training.records.saved_state import (
    check_counts,
    check_optimizer,
    check_progress,
    check_scaler,
    check_tensors,
)
from slimtrain.training.trainer import Trainer

AUTO = "auto"
UNNAMED = {"teacher": "", "grow": []}  # keys that older versions did not know, and what their runs did


@dataclass
class RunState:
    """What of a run changes from step to step beside weights and losses: the steps done, the rows of summary.csv, and the
    smallest error so far, which best.pt has."""

    step: int = 0
    rows: list[SummaryRow] = field(default_factory=list)
    best: float = math.inf


def run_to_resume(resume: str, folder: Path, pretrained: str = "") -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a run in `folder` is to go on from, and its content; None where `resume` is none or empty, and where
    `auto` finds no checkpoint. Else it is a path, of a checkpoint or of its folder.

    CheckpointError for a file that is none; UserError where `pretrained` names weights that the run did not start from:
    a resumed run would not use them.
    """
    if resume in ("none", ""):
        return None
    path = folder / LAST if resume == AUTO else Path(resume)
    if resume == AUTO and not path.exists():
        return None
    if path.is_dir():
        path = path / LAST
    content = read_content(path)
    if not is_own(content) or not isinstance(content.get("training"), dict):
        raise CheckpointError(
            f"{path}: is no checkpoint of a run that could go on (those are called {LAST}). To start from its weights, set "
            f"pretrained={path}."
        )
    began = content["training"].get("config")
    if not isinstance(began, dict):
        raise CheckpointError(f"{path}: does not say which run it belongs to. The file is damaged, take another.")
    began = checked_settings(began, path.name)
    content = {**content, "training": {**content["training"], "config": began}}
    if pretrained and pretrained != began.get("pretrained"):
        raise UserError(
            f"resume {resume} and pretrained {pretrained}: {path} is of a run that started from "
            f"{began.get('pretrained') or 'random weights'}, resuming it would ignore the pretrained ones. Choose one: leave "
            "pretrained out, or set resume=none."
        )
    return path, content


def _alike_but_for_classes(before: WidthSpec, spec: WidthSpec) -> bool:
    return isinstance(before, NetworkSpec) and dataclasses.replace(before, classes=spec.classes) == spec


def read_run(
    path: Path, content: Mapping[str, Any], config: Config, spec: WidthSpec, data: ImageSets
) -> tuple[SlimmableNetwork, dict[str, Any]]:
    """The network and the training state of `last.pt`; CheckpointError where it is of another network, UserError where the
    configuration now asks for another run, and where the data is no longer what it was."""
    network = read_own(content, path.name)
    before = network.spec
    training: dict[str, Any] = content["training"]
    asked = training["config"].get("classes") != config.classes
    if before != spec and _alike_but_for_classes(before, spec) and not asked:
        check_data(path, content, data)
    if before != spec:
        if before.channel_lists != spec.channel_lists and before.name == spec.name:
            raise CheckpointError(
                f"{path}: is a {before.name} of other channel lists than those to be trained. Other plans are another run: "
                "set resume=none, or another output_dir."
            )
        what = "widths" if before.name == spec.name else "network"
        raise CheckpointError(
            f"{path}: is a {before.name} with {before.describe_widths()} and {before.classes} classes, the configuration "
            f"trains a {spec.name} with {spec.describe_widths()} and {spec.classes} classes. Another {what} is another run: "
            "set resume=none, or another output_dir."
        )
    check_settings(path, training["config"], config, longer=True)
    check_data(path, content, data)
    return network, training


def check_data(path: Path, content: Mapping[str, Any], data: ImageSets) -> None:
    """UserError where the run of a `last.pt` was on other classes or another number of images: labels are the positions of
    classes, and steps are counted in epochs of so many images. What an older version did not write is passed over."""
    names, counts = content.get("class_names") or (), content["training"].get("images", {})
    try:
        check_counts(counts)
    except ValueError as error:
        raise CheckpointError(f"{path}: its training state is damaged ({error}). Take another checkpoint.") from error
    differs = class_difference(names, data.classes) if names else ""
    now = image_counts(data)
    changed = [
        f"{counts[part]:,} images to {part}, now there are {images:,}"
        for part, images in now.items()
        if counts.get(part, images) != images
    ]
    if differs or changed:
        what = "; ".join([*([f"classes: {differs}"] if differs else []), *changed])
        raise UserError(
            f"{path}: belongs to a run on other data ({what}). Labels and epochs would not mean the same: put the images back "
            f"as they were, or begin a new run with resume=none (from these weights: pretrained={path}"
            f"{', reset_classifier=true' if differs else ''}, and another output_dir)."
        )


def class_difference(before: Sequence[str], now: Sequence[str]) -> str:
    """How two lists of class names differ, for a message; nothing where they are the same."""
    if list(before) == list(now):
        return ""
    gone, new = [name for name in before if name not in now], [name for name in now if name not in before]
    if not gone and not new:
        place = next(i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        return f"the same ones in another order, class {place} was {before[place]!r} and is {now[place]!r}"
    return " and ".join(
        text
        for names, text in (
            (gone, f"{some(list(map(repr, gone)))} no longer there"),
            (new, f"{some(list(map(repr, new)))} new"),
        )
        if names
    )


def check_classes(checkpoint: Checkpoint, classes: Sequence[str], *, reset_classifier: bool) -> None:
    """CheckpointError where pretrained weights know their classes by name, and these are not the data's, in order, although
    the classifier is kept."""
    theirs = checkpoint.class_names
    if reset_classifier or not theirs or len(theirs) != len(classes):  # another number is told by `adopt`
        return
    differs = class_difference(theirs, classes)
    if differs:
        raise CheckpointError(
            f"{checkpoint.file}: was trained on other classes than the data's ({differs}), so its classifier's outputs would "
            "not mean the same. To train a new classifier on its features set reset_classifier=true."
        )


def image_counts(data: ImageSets) -> dict[str, int]:
    """How many images there are for what."""
    return {"train": len(data.train), "test": len(data.test)}


def check_settings(path: Path, before: Mapping[str, Any], config: Config, *, longer: bool = False) -> None:
    """UserError where `path` belongs to a run whose settings were not those of `config`; `longer`: it may have more epochs
    now. Keys that an older version did not know are passed over."""
    now, before = singly(run_settings(config)), singly({**UNNAMED, **before})
    changed = [key for key in now if key in before and before[key] != now[key]]
    if longer and "epochs" in changed and isinstance(before["epochs"], int) and before["epochs"] < config.epochs:
        changed.remove("epochs")
    if changed:
        listed = ", ".join(f"{key} was {quoted(before[key])} and is {quoted(now[key])}" for key in changed)
        raise UserError(
            f"{path}: belongs to a run with other settings: {listed}. A resumed run goes on as it began: undo these, or "
            "begin a new run with resume=none."
        )


def lengthened(before: Mapping[str, Any], schedule: Schedule, step: int) -> str:
    """What a resumed run says where it has more epochs than the one that was saved after `step` steps; nothing where not."""
    epochs = before.get("epochs", schedule.epochs)
    if epochs == schedule.epochs:
        return ""
    planned = dataclasses.replace(schedule, epochs=epochs)
    then = planned(step) if step < planned.total else 0.0
    return (
        f"epochs is {schedule.epochs} in place of {epochs}: from here on lr is that of a run of so many epochs, "
        f"{schedule(step):.4g} at the next step, where {then:.4g} was planned"
    )


def training_state(state: RunState, loss_sums: Tensor, trainer: Trainer, config: Config, data: ImageSets) -> dict[str, Any]:
    """All that a resumed run needs beside the network."""
    return {
        "step": state.step,
        "config": plain(config),
        "images": image_counts(data),
        **trainer.state(),
        "generators": generators(trainer.device),
        "loss_sums": loss_sums,
        "rows": state.rows,
        "best": state.best,
    }


def restore(
    path: Path,
    content: Mapping[str, Any],
    config: Config,
    data: ImageSets,
    trainer: Trainer,
    state: RunState,
    loss_sums: Tensor,
) -> None:
    """Set `trainer`, `state` and `loss_sums` to what the `content` of a `last.pt` holds. CheckpointError where it is of
    another network or damaged, UserError where settings or `data` are no longer those of its run."""
    network, training = read_run(path, content, config, trainer.network.spec, data)
    try:
        steps = config.epochs * steps_per_epoch(len(data.train), config.batch_size, config.drop_last)
        _check_state(training, trainer, steps, loss_sums)
        trainer.restore(network, training)
        loss_sums.copy_(training["loss_sums"])
        state.step, state.rows, state.best = int(training["step"]), list(training["rows"]), float(training["best"])
        if training["config"].get("best_by") != config.best_by:
            state.best = math.inf  # of another width's errors
        set_generators(training["generators"], trainer.device)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        what = f"no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise CheckpointError(f"{path}: its training state is damaged ({what}). Take another checkpoint.") from error


def _check_state(training: Mapping[str, Any], trainer: Trainer, steps: int, loss_sums: Tensor) -> None:
    """ValueError or KeyError where a training state is none of a run of so many `steps` with this trainer."""
    check_progress(training, steps)
    own = trainer.state()
    shapes = [tuple(p.shape) for group in trainer.optimizer.param_groups for p in group["params"]]
    check_optimizer(training["optimizer"], own["optimizer"], shapes)
    check_scaler(training["scaler"], own["scaler"])
    check_tensors({"sums": training["loss_sums"]}, {"sums": loss_sums}, "its losses")
    for part, what in (("ema", "its average"), ("teacher", "its teacher")):
        if own.get(part) is not None:
            check_tensors(training[part], own[part], what)
    states, now = training["generators"], generators(trainer.device)
    check_tensors(states, {key: now.get(key, states[key]) for key in ("cpu", *states)}, "its random states")


def network_content(
    network: SlimmableNetwork,
    config: Config,
    classes: Sequence[str],
    training: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    probe_images: Tensor | None = None,
    averaged: bool = False,
) -> dict[str, Any]:
    """A checkpoint of our layout: a network, the images that it takes, how it was trained, and what goes on with it."""
    images = (config.image_size, config.mean, config.std)
    return own_content(network, *images, classes, training, settings, probe_images, averaged)


def finished_content(
    network: SlimmableNetwork,
    config: Config,
    classes: Sequence[str],
    settings: Mapping[str, Any] | None,
    probe_images: Tensor | None = None,
    averaged: bool = False,
) -> dict[str, Any]:
    """A finished checkpoint, in the layout that is asked for; the published one has no place for `probe_images`."""
    if config.layout == "published":
        return published_content(network, described(config.image_size, config.mean, config.std, classes))
    return network_content(network, config, classes, settings=settings, probe_images=probe_images, averaged=averaged)


@contextmanager
def claimed_run(folder: Path, processes: Processes) -> Iterator[None]:
    """Hold the folder of a run in the block. UserError where another run is at work in it, or it cannot be made."""
    with ExitStack() as stack:
        if processes.first:
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_error(folder, error, RUN) from error
            stack.enter_context(claimed(folder, "Wait for it, or choose another output_dir."))
        yield


def move_aside(folder: Path) -> Path | None:
    """Rename a folder that holds a run to the first free `NAME.1`, `NAME.2`, ...; None where it holds none.

    Nothing is overwritten: rerunning a configuration keeps what the last run made.
    """
    if not any((folder / name).exists() for name in (LAST, RESOLVED)):
        return None
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: holds a run already, and the working folder cannot be renamed. Choose another output_dir.")
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    remove_partials(folder)  # of the run that is moved
    number = 1
    while (moved := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    try:
        folder.rename(moved)
    except OSError as error:
        raise UserError(
            f"{folder}: holds a run and cannot be renamed ({error.strerror}). Choose another output_dir."
        ) from error
    return moved


def generators(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generators(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo what happened since `generators`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
