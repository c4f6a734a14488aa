"""The course of a run as a picture: the losses of training and test images, and the accuracy or precision, over the epochs.

matplotlib is optional (the extra `plots`).
"""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.untrusted.quoting import printable
from slimtrain.config.run_folder import CURVES, SUMMARY
from slimtrain.models.channels import number_text
from slimtrain.training.records.logbook import SummaryRow

log = logging.getLogger(__name__)

ACCURACIES = {"top1": "top-1 accuracy on test images", "ap": "average precision on test images"}  # one of them is a column
MISSING = f"{CURVES} is not drawn: matplotlib is not installed (pip install matplotlib). {SUMMARY} has its figures."


def draw_curves(folder: Path, rows: Sequence[SummaryRow], title: str) -> Path | None:
    """Write `curves.png` of the rows of summary.csv; its path, or None where there is no row, or no matplotlib: a line
    says so."""
    if not rows:
        return None
    if importlib.util.find_spec("matplotlib") is None:
        log.info(MISSING)
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    figure.suptitle(printable(title), parse_math=False)
    accurate = next((column for column in ACCURACIES if column in rows[0]), "top1")
    plans = sorted({(float(row["width"]), str(row["plan"])) for row in rows}, reverse=True)
    for number, (width, plan) in enumerate(plans):
        own = [row for row in rows if row["plan"] == plan]
        epochs = [int(row["epoch"]) for row in own]
        name, color = number_text(width) if width else plan, f"C{number % 10}"
        marks: dict[str, Any] = {"color": color, "marker": ".", "linewidth": 1.2}
        if "loss" in rows[0]:
            losses.plot(epochs, [_value(row.get("loss", "")) for row in own], label=f"{name}, test", **marks)
        losses.plot(
            epochs, [_value(row.get("train_loss", "")) for row in own], label=f"{name}, training", linestyle="--", **marks
        )
        accuracy.plot(epochs, [_value(row.get(accurate, "")) for row in own], label=name, **marks)
    for axes in (losses, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    losses.set_ylabel("loss (mean cross entropy)" if "loss" in rows[0] else "loss (sum of a detector's)")
    losses.set_ylim(bottom=0)
    losses.legend(title="width", loc="upper right", fontsize="small", ncols=1 + (len(plans) > 5))
    accuracy.set_ylabel(ACCURACIES[accurate])
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.legend(title="width", loc="lower right", fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    path = folder / CURVES
    write_atomically(path, picture.getvalue(), RUN)
    return path


def _value(number: float | int | str) -> float:
    """A figure; nothing is drawn where there is none."""
    return float(number) if number != "" else float("nan")
