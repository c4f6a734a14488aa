"""A search's trace as a picture: error against cost, with the targets, and against MACs where these are not the cost.

matplotlib is optional (the extra `plots`).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimtrain.base.files import RUN, write_atomically
from slimtrain.base.options import UNITS
from slimtrain.costs.cost import format_macs
from slimtrain.costs.cost_model import CostModel, format_cost
from slimtrain.search.greedy import SearchOutcome
from slimtrain.search.trace import SearchStep

log = logging.getLogger(__name__)

PLOT = "trace.png"
MACS = "macs"


def plot_search(
    folder: Path,
    steps: Sequence[SearchStep],
    cost: CostModel,
    outcomes: Sequence[SearchOutcome],
    percent: bool = True,
) -> Path | None:
    """Write `trace.png`; its path, or None where matplotlib is missing (a line says so) or there is no step to draw.
    `percent`: errors are percents, else losses."""
    if not steps:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("trace.png was not drawn: matplotlib is not installed (pip install matplotlib). trace.csv has its figures.")
        return None
    panels = 1 if cost.name == MACS else 2
    figure = Figure(figsize=(8 * panels, 5), layout="constrained")
    first, *rest = figure.subplots(1, panels, squeeze=False)[0]
    costs = [steps[0].cost_before, *(step.cost_after for step in steps)]
    errors = [steps[0].error_before, *(step.error_after for step in steps)]
    scale = _draw(first, costs, errors, [(o.cost, o.error, format_cost(o.target, cost)) for o in outcomes], percent)
    for outcome in outcomes:
        first.axvline(outcome.target / scale, color="gray", linestyle="--", linewidth=0.8)
    first.set_xlabel(_label(cost.name, cost.unit, scale))
    for axes in rest:  # whatever the cost, networks are known by their MACs
        networks = [(o.macs, o.error, f"{format_macs(o.macs)} MACs") for o in outcomes]
        scale = _draw(axes, [step.macs for step in steps], errors[1:], networks, percent)
        axes.set_xlabel(_label(MACS, "MACs", scale))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    path = folder / PLOT
    write_atomically(path, picture.getvalue(), RUN)
    return path


def _draw(
    axes: Any,
    costs: Sequence[float],
    errors: Sequence[float],
    networks: Sequence[tuple[float, float, str]],
    percent: bool,
) -> float:
    """Steps as a line, and the networks found, as (cost, error, name). What costs are divided by."""
    scale = next((size for size in sorted(UNITS.values(), reverse=True) if max(costs) >= size), 1)
    axes.plot([value / scale for value in costs], errors, ".-", color="tab:blue", linewidth=1, markersize=5, label="steps")
    places = [value / scale for value, _, _ in networks]
    axes.plot(places, [error for _, error, _ in networks], "o", color="tab:red", label="found")
    for value, error, name in networks:
        figure = f"{error:.1f} %" if percent else f"{error:.3f}"
        axes.annotate(f"{name}: {figure}", (value / scale, error), xytext=(6, 8), textcoords="offset points")
    axes.set_ylabel("error on held-out images (%)" if percent else "loss on held-out images")
    axes.grid(alpha=0.3)
    axes.margins(x=0.08, y=0.12)
    axes.legend(loc="upper right")
    return scale


def _label(name: str, unit: str, scale: float) -> str:
    """`million MACs`, `latency (ms)`."""
    words = {1: "", UNITS["K"]: "thousand ", UNITS["M"]: "million ", UNITS["G"]: "billion "}
    counted = f"{words[int(scale)]}{unit}"
    return counted if name == unit.lower() else f"{name} ({counted})"
