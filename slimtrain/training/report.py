"""What a run says: of its plan, its steps, its results, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from slimtrain.base.text import count, table
from slimtrain.config.config import Config
from slimtrain.config.run_folder import RESOLVED
from slimtrain.data.datasets import Data
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.models.spec import NetworkSpec
from slimtrain.training.distributed import Processes
from slimtrain.training.evaluate import Scores
from slimtrain.training.optimizer import Schedule
from slimtrain.training.records.logbook import Clock, SummaryRow
from slimtrain.training.sampling import WidthSampler


def describe_run(spec: NetworkSpec, data: Data, config: Config, processes: Processes, plans: int, steps: int) -> str:
    """Two lines before a run begins: what is trained on what, and how a batch of `plans` widths is divided; `steps` are those
    of an epoch."""
    widths = f"widths {' to '.join(map(number_text, spec.range))}" if spec.family == "us" else spec.describe_widths()
    share = config.batch_size / processes.world / config.accumulate
    return (
        f"{spec.name}, {widths}: {len(data.train):,} images to train, {len(data.test):,} to test, {len(data.classes)} "
        f"classes\nbatch {config.batch_size} = {count(processes.world, 'process', 'processes')} x "
        f"{count(config.accumulate, 'part')} x {share:g} images, {plans} widths each; {count(steps, 'step')} an epoch, "
        f"{count(config.epochs, 'epoch')}, on {processes.describe()}"
    )


def describe_losses(sampler: WidthSampler, losses: Sequence[float]) -> str:
    """A loss per plan of a step, in the sampler's order."""
    names = [number_text(plan.width or 0) for plan in sampler.fixed]
    names += ["drawn"] * (sampler.count - len(names))
    return ", ".join(f"{name}: {loss:.3f}" for name, loss in zip(names, losses, strict=True))


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
    scores: Sequence[Scores],
    trained: Sequence[float],
    clock: Clock,
) -> list[SummaryRow]:
    """The rows of summary.csv for a test after `step` steps: a plan each, `trained` its mean loss over the epoch."""
    return [
        {
            "epoch": schedule.epoch(step),
            "step": step,
            "plan": plan.name,
            "width": plan.width or 0,
            "train_loss": loss,
            "loss": score.loss,
            "top1": score.top1,
            "top5": score.top5,
            "lr": schedule(step - 1),
            "images_per_s": round(clock.images_per_s(step), 1),
            "data_wait": round(clock.waiting, 4),
        }
        for plan, score, loss in zip(plans, scores, trained, strict=True)
    ]


def results_table(plans: Sequence[ChannelPlan], scores: Sequence[Scores], trained: Sequence[float] = ()) -> str:
    """One line per plan: losses, top-1 and top-5 accuracy."""
    header = ["width", *(["train loss"] if trained else []), "loss", "top-1", "top-5"]
    rows = []
    for i, (plan, score) in enumerate(zip(plans, scores, strict=True)):
        losses = [f"{trained[i]:.4f}"] if trained else []
        name = plan.name if plan.width is None else str(plan.width)
        rows.append([name, *losses, f"{score.loss:.4f}", f"{score.top1:.2%}", f"{score.top5:.2%}"])
    return table(header, rows)


def export_command(path: Path, plans: Sequence[ChannelPlan], layout: str) -> str:
    """The `slimexport` command for a finished checkpoint."""
    widths = ",".join(number_text(plan.width) if isinstance(plan.width, int) else str(plan.width) for plan in plans)
    command = ["slimexport", "--ckpt", str(path), "--widths", widths]
    if layout == "published":  # which tells neither its images' size nor their normalization
        command += ["--config", str(path.parent / RESOLVED)]
    return shlex.join(command)
