"""What the widths of a network cost, as a table. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slimtrain.base.image_size import ImageSize
from slimtrain.base.text import table
from slimtrain.costs.cost import CostCounter, format_macs
from slimtrain.models.published import PUBLISHED, published_spec
from slimtrain.models.width_spec import WidthSpec

PUBLISHED_SIZE = 224  # pixels, of all figures in the papers' tables


def usual_widths(spec: WidthSpec, tested: Sequence[float] = ()) -> list[float]:
    """The widths to show where none are asked for, ascending: the switches, or the ends of a US network's range and the ones
    that are `tested`."""
    return sorted({*spec.range, *tested}) if spec.family == "us" else sorted(spec.switches)


def costs(spec: WidthSpec, image_size: ImageSize, widths: Sequence[float]) -> list[dict[str, Any]]:
    """For every width: MACs at batch 1 of convolutions and linear layers, for images of `image_size` pixels, the papers'
    figure (which adds average pools), and parameters once batch norm is folded. WidthError for a width it does not have."""
    count = CostCounter(spec, image_size)
    rows = []
    for plan in map(spec.plan, widths):
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


def cost_table(rows: Sequence[dict[str, Any]], published: bool = False) -> str:
    """One line per width. The papers' way of counting has a column: "published" where the network is one of theirs, else
    "with pools"."""
    shown = [
        [str(row["width"]), format_macs(row["macs"]), format_macs(row["published_macs"]), f"{row['params']:,}"] for row in rows
    ]
    return table(["width", "MACs", "published" if published else "with pools", "params"], shown)


def is_published(spec: WidthSpec, image_size: ImageSize, widths: Sequence[float]) -> bool:
    """Whether figures of these widths were published with the papers: of this network, its widths, classes, and the channels
    and size of its images."""
    if spec.name not in PUBLISHED or image_size != PUBLISHED_SIZE:
        return False
    published = published_spec(spec.name)
    plans = {plan.width: plan for plan in published.plans}
    same = all(getattr(spec, key) == getattr(published, key) for key in ("classes", "stem_stride", "in_channels"))
    return same and all(plans.get(width) == spec.plan(width) for width in widths)
