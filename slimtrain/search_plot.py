"""A search's trace as a picture: error against cost, with the targets. matplotlib is optional (the extra `plots`)."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimtrain.atomic import write_atomically
from slimtrain.search_cost import CostModel, format_cost
from slimtrain.search_trace import Step
from slimtrain.widths import UNITS

if TYPE_CHECKING:
    from slimtrain.search import Found

log = logging.getLogger(__name__)

PLOT = "trace.png"


def plot_search(folder: Path, steps: Sequence[Step], cost: CostModel, found: Sequence[Found]) -> Path | None:
    """Write `trace.png`; its path, or None where matplotlib is missing (a line says so) or there is no step to draw."""
    if not steps:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("trace.png was not drawn: matplotlib is not installed (pip install matplotlib). trace.csv has its figures.")
        return None
    costs = [steps[0].cost_before, *(step.cost_after for step in steps)]
    errors = [steps[0].error_before, *(step.error_after for step in steps)]
    scale, prefix = _scale(max(costs))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([value / scale for value in costs], errors, ".-", color="tab:blue", linewidth=1, markersize=5, label="steps")
    for each in found:
        axes.axvline(each.target / scale, color="gray", linestyle="--", linewidth=0.8)
    met = [each.cost / scale for each in found]
    axes.plot(met, [each.error for each in found], "o", color="tab:red", markersize=8, label="found")
    for each in found:
        axes.annotate(
            f"{format_cost(each.target, cost)}: {each.error:.1f} %",
            (each.cost / scale, each.error),
            xytext=(6, 8),
            textcoords="offset points",
        )
    axes.set_xlabel(f"{cost.name} ({prefix}{cost.unit})" if cost.name != cost.unit.lower() else f"{prefix}{cost.unit}")
    axes.set_ylabel("error on held-out images (%)")
    axes.grid(alpha=0.3)
    axes.margins(x=0.08, y=0.12)
    axes.legend(loc="upper right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    path = folder / PLOT
    write_atomically(path, picture.getvalue())
    return path


def _scale(largest: float) -> tuple[float, str]:
    """What costs are divided by, and how the unit says so: `million MACs`."""
    words = {"G": "billion ", "M": "million ", "K": "thousand "}
    return next(((UNITS[unit], words[unit]) for unit in ("G", "M", "K") if largest >= UNITS[unit]), (1, ""))
