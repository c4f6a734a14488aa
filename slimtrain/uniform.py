"""Uniform widths of the cost of other plans: what a found network has to be better than. No torch."""

from __future__ import annotations

import math

from slimtrain.costs.cost_model import CostModel
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec

STEPS = 1000  # per unit of width: finer than the rounding of channels for every network here


def nearest_width(spec: NetworkSpec, cost: CostModel, wanted: float) -> float:
    """The width of the universally slimmable `spec` whose cost is nearest to `wanted`. Of several with the same cost, it is
    the one with the fewest digits, then the narrowest."""
    low, high = spec.range
    widths = [i / STEPS for i in range(math.ceil(low * STEPS), math.floor(high * STEPS) + 1)]
    return min(widths, key=lambda width: (abs(cost(spec.plan(width)) - wanted), len(str(width)), width))


def uniform_plan(spec: NetworkSpec, width: float) -> ChannelPlan:
    """The plan of a width, with a name that a plan file can have: `uniform_0_35`."""
    return ChannelPlan(f"uniform_{width}".replace(".", "_"), spec.plan(width).channels)
