"""What a run says: of its steps, its results, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from slimtrain.base.text import table
from slimtrain.config.config import Config
from slimtrain.config.run_folder import RESOLVED
from slimtrain.models.channels import ChannelPlan, number_text
from slimtrain.training.evaluate import Result


def results_table(plans: Sequence[ChannelPlan], results: Sequence[Result], trained: Sequence[float] = ()) -> str:
    """One line per plan: losses, top-1 and top-5 accuracy."""
    header = ["width", *(["train loss"] if trained else []), "loss", "top-1", "top-5"]
    rows = []
    for i, (plan, result) in enumerate(zip(plans, results, strict=True)):
        losses = [f"{trained[i]:.4f}"] if trained else []
        name = plan.name if plan.width is None else str(plan.width)
        rows.append([name, *losses, f"{result.loss:.4f}", f"{result.top1:.2%}", f"{result.top5:.2%}"])
    return table(header, rows)


def export_command(config: Config, path: Path, plans: Sequence[ChannelPlan]) -> str:
    """The `slimexport` command for a finished checkpoint."""
    widths = ",".join(number_text(plan.width) if isinstance(plan.width, int) else str(plan.width) for plan in plans)
    command = ["slimexport", "--ckpt", str(path), "--widths", widths]
    if config.layout == "published":  # which tells neither
        command += ["--config", str(path.parent / RESOLVED)]
    return shlex.join(command)
