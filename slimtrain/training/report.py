"""What a run says: of its plan, its steps, its results, and what to do next."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.text import count, table
from slimtrain.config.config import Config
from slimtrain.config.run_folder import RESOLVED
from slimtrain.data.datasets import ImageSets
from slimtrain.data.noise import noise_images
from slimtrain.data.opening import open_image, stored_form
from slimtrain.data.samples import Samples, as_pillow
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.models.width_spec import WidthSpec
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Result
from slimtrain.training.inputs import PROBES, spread_indices, test_transform_of
from slimtrain.training.optimizer import Schedule
from slimtrain.training.records.logbook import Clock, SummaryRow
from slimtrain.training.sampling import WidthSampler

NOISE_SEED = 1  # of the images that slimexport verifies with by default
USUAL = 2  # images that slimexport verifies with by itself
LOSS = "loss"  # what a plan is trained with, in all
EXPORTS = Path("exports")  # where slimexport writes by default, a folder per network


def describe_run(spec: WidthSpec, data: ImageSets, config: Config, processes: Processes, plans: int, steps: int) -> str:
    """Two lines before a run begins: what is trained on what, and how a batch of `plans` widths is divided; `steps` are those
    of an epoch."""
    widths = f"widths {' to '.join(map(number_text, spec.range))}" if spec.family == "us" else spec.describe_widths()
    share = config.batch_size / processes.world / config.accumulate
    images, classes = count(len(data.train), "image"), count(len(data.classes), "class", "classes")
    return (
        f"{spec.name}, {widths}: {images} to train, {len(data.test):,} to test, {classes}\n"
        f"batch {config.batch_size} = {count(processes.world, 'process', 'processes')} x {count(config.accumulate, 'part')} x "
        f"{share:g} {'image' if share == 1 else 'images'}, {count(plans, 'width')} each; {count(steps, 'step')} an epoch, "
        f"{count(config.epochs, 'epoch')}, on {processes.describe()}"
    )


def describe_losses(sampler: WidthSampler, losses: Sequence[float], step: int) -> str:
    """A loss per plan of `step`, in the sampler's order."""
    names = [number_text(plan.width or 0) for plan in sampler.fixed_at(step)]
    names += ["drawn"] * (len(sampler(step)) - len(names))
    return ", ".join(f"{name}: {loss:.3f}" for name, loss in zip(names, losses[: len(names)], strict=True))


def describe_parts(names: Sequence[str], parts: Tensor) -> str:
    """The losses that a plan's is the sum of, [plans, parts]: the mean of the plans that a step ran, in brackets; nothing
    where there are none."""
    if not names or not len(parts):
        return ""
    return f" ({', '.join(f'{name} {loss:.3f}' for name, loss in zip(names, parts.mean(0).tolist(), strict=True))})"


def describe_step(step: int, schedule: Schedule, losses: str, clock: Clock) -> str:
    """After `step` steps: where the run is, the last step's `losses`, its rate, and how fast it goes."""
    epoch, position = schedule.epoch(step - 1) + 1, (step - 1) % schedule.steps + 1
    return (
        f"epoch {epoch}/{schedule.epochs} step {position}/{schedule.steps}  loss {losses}  lr {schedule(step - 1):.4g}  "
        f"{clock.describe(step)}"
    )


def describe_epoch(step: int, schedule: Schedule, clock: Clock) -> str:
    """At the end of an epoch, after `step` steps."""
    return f"epoch {schedule.epoch(step)}/{schedule.epochs}  lr {schedule(step - 1):.4g}  {clock.describe(step)}"


def summary_rows(
    step: int,
    schedule: Schedule,
    plans: Sequence[ChannelPlan],
    scores: Sequence[Result],
    trained: Sequence[Mapping[str, float]],
    clock: Clock,
) -> list[SummaryRow]:
    """The rows of summary.csv for a test after `step` steps: a plan each, `trained` its mean loss over the epoch, and what
    that is the sum of, by name."""
    return [
        {
            "epoch": schedule.epoch(step),
            "step": step,
            "plan": plan.name,
            "width": plan.width or 0,
            **{f"train_{name}": loss for name, loss in losses.items()},
            **score.figures,
            "lr": schedule(step - 1),
            "images_per_s": round(clock.images_per_s(step), 1),
            "data_wait": round(clock.waiting, 4),
        }
        for plan, score, losses in zip(plans, scores, trained, strict=True)
    ]


def results_table(plans: Sequence[ChannelPlan], scores: Sequence[Result], trained: Sequence[Mapping[str, float]] = ()) -> str:
    """One line per plan: the losses that it was `trained` with, by name, and what a test says."""
    header = ["width", *(_heading(name) for name in (trained[0] if trained else ())), *scores[0].columns]
    rows = []
    for i, (plan, score) in enumerate(zip(plans, scores, strict=True)):
        losses = [f"{loss:.4f}" for loss in trained[i].values()] if trained else []
        name = plan.name if plan.width is None else str(plan.width)
        rows.append([name, *losses, *score.columns.values()])
    return table(header, rows)


def _heading(name: str) -> str:
    return "train loss" if name == LOSS else name


def export_command(path: Path, plans: Sequence[ChannelPlan], network: str, layout: str, proof: Sequence[str] = ()) -> str:
    """The `slimexport` command for a finished checkpoint of `network`, that works in this folder, with this Python; `proof`
    are the words that say how its files are verified."""
    widths = ",".join(number_text(plan.width) if isinstance(plan.width, int) else str(plan.width) for plan in plans)
    words = [*_slimexport(), "--ckpt", str(path), "--widths", widths, *proof]
    if layout == "published":  # which tells neither its images' size nor their normalization
        words += ["--config", str(path.parent / RESOLVED)]
    if (EXPORTS / network).exists():  # where slimexport writes; it overwrites nothing
        words += ["--output-dir", str(_free(EXPORTS / path.resolve().parent.name))]
    return shlex.join(words)


def _slimexport() -> list[str]:
    """The command, or where it is not found as such, as a module of this Python."""
    if shutil.which("slimexport"):
        return ["slimexport"]
    python = shutil.which("python")
    same = python is not None and Path(python).resolve() == Path(sys.executable).resolve() and sys.prefix == sys.base_prefix
    return ["python" if same else sys.executable, "-m", "slimexport"]


def _free(folder: Path) -> Path:
    """`folder`, or the first of `folder_2`, `folder_3`, ... that is not there."""
    number, chosen = 1, folder
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}_{number}")
    return chosen


def probes_for(config: Config, samples: Samples, folder: Path, telling: Callable[[Tensor], bool]) -> list[str] | None:
    """The words for `slimexport` to verify a network on images that it tells apart: on noise, as by itself, or on some of the
    test images, which are put into `folder`; None where it tells neither apart. `telling`: whether it does so with images."""
    noise = noise_images(USUAL, config.image_size, NOISE_SEED, config.in_channels)
    if telling(torch.from_numpy(noise)):
        return []
    written = write_probes(samples, folder, config.in_channels)
    transform = test_transform_of(config)
    paths = sorted(folder.glob("*.png"))
    if written >= USUAL:
        images = torch.stack([transform(open_image(path, channels=config.in_channels)) for path in paths])
        if telling(images):
            return ["--verify-data", str(folder), "--probes", str(written)]
    return None


def write_probes(samples: Samples, folder: Path, channels: int = 3) -> int:
    """Images from all over a set, of so many channels, as PNG files of `folder`, for `slimexport` to verify with; how many
    could be read."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for index in spread_indices(len(samples), PROBES):
        with contextlib.suppress(Exception):  # Pillow's decoders raise nearly anything on a damaged file
            image = as_pillow(samples.image(index), channels)
            content = io.BytesIO()
            stored_form(image).save(content, "png")
            write_atomically(folder / f"{index}.png", content.getvalue(), RUN)
            written += 1
    return written
