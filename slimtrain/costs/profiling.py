"""What the widths of a configuration's network cost. No torch."""

from __future__ import annotations

from typing import Any

from slimtrain.base.options import parse_widths
from slimtrain.base.text import table
from slimtrain.config.config import Config
from slimtrain.costs.cost import CostCounter, format_macs

CLASSES = 1000  # where neither the configuration nor its data tells


def costs(config: Config, widths: str | None) -> list[dict[str, Any]]:
    """For every width (default: the switches, or the ends and `test_widths`): MACs at batch 1 of convolutions and linear
    layers, the papers' figure (which adds average pools), and parameters once batch norm is folded."""
    spec = config.spec(config.known_classes or CLASSES)
    usual = sorted({*spec.range, *config.test_widths}) if spec.family == "us" else sorted(spec.switches)
    chosen = parse_widths(widths) if widths else None
    count = CostCounter(spec, config.image_size)
    rows = []
    for width in chosen or usual:
        plan = spec.plan(width)
        cost = count(plan)
        rows.append(
            {
                "plan": plan.name,
                "width": plan.width,
                "macs": cost.macs,
                "published_macs": cost.published_macs,
                "params": cost.params,
            }
        )
    return rows


def cost_table(rows: list[dict[str, Any]]) -> str:
    """One line per width."""
    shown = [
        [str(row["width"]), format_macs(row["macs"]), format_macs(row["published_macs"]), f"{row['params']:,}"] for row in rows
    ]
    return table(["width", "MACs", "published", "params"], shown)
