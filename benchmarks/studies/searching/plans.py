"""Plans to compare rankings on: drawn at random at nearly equal MACs, or met on the way of a search. No torch."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from slimtrain.base.errors import UserError
from slimtrain.costs.cost import CostCounter
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.slimming import Slimming, changed_groups
from slimtrain.search.trace import SearchStep

TRIES = 200  # per plan


def random_plans(
    slimming: Slimming, counter: CostCounter, count: int, macs: float, tolerance: float, seed: int
) -> list[ChannelPlan]:
    """`count` different plans of `macs` MACs, within the share `tolerance` of it.

    Every group's width is drawn for itself, evenly in its logarithm over the network's range; then all are scaled by one
    factor until the MACs fit. Counts are multiples of the divisor between floor and widest. The same seed gives the same.

    UserError where such plans are not found: the target is near the network's ends, or the tolerance too small.
    """
    draw = random.Random(f"plans:{seed}")  # noqa: S311 (no secret)
    low, high = (math.log(width) for width in slimming.spec.range)
    plans: dict[ChannelPlan, None] = {}
    for _ in range(TRIES * count):
        if len(plans) == count:
            break
        widths = {group: math.exp(draw.uniform(low, high)) for group in slimming.start.channels}
        plan = _scaled(slimming, counter, widths, macs, f"random_{len(plans):02}")
        tied = any(plan.channels[a] == plan.channels[b] for a, b in slimming.pairs)  # read as another network
        if not tied and abs(counter(plan).macs - macs) <= tolerance * macs:
            plans.setdefault(plan)
    if len(plans) < count:
        raise UserError(
            f"only {len(plans)} of {count} different plans of {macs:,.0f} MACs within {tolerance:.1%} were found. Choose a "
            "target further from the network's ends, or a larger tolerance."
        )
    return list(plans)


def _scaled(slimming: Slimming, counter: CostCounter, widths: dict[str, float], macs: float, name: str) -> ChannelPlan:
    """The plan of `widths` times the factor that comes nearest to `macs`, found by bisection."""
    widest, floor, divisor = slimming.start.channels, slimming.floor.channels, slimming.divisor
    per_width = {group: count / slimming.spec.range[1] for group, count in widest.items()}

    def at(log_factor: float) -> ChannelPlan:
        factor, channels = math.exp(log_factor), {}
        for group, width in widths.items():
            count = round(width * factor * per_width[group] / divisor) * divisor
            fixed = group in slimming.spec.fixed_groups
            channels[group] = widest[group] if fixed else min(max(count, floor[group]), widest[group])
        return ChannelPlan(name, channels)

    low, high = math.log(0.01), math.log(100)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if counter(at(middle)).macs < macs else (low, middle)
    return min(at(low), at(high), key=lambda plan: abs(counter(plan).macs - macs))


def plans_on_the_way(slimming: Slimming, steps: Sequence[SearchStep], count: int) -> list[ChannelPlan]:
    """Up to `count` of the plans that a search's steps began from, evenly spread, the first among them.

    UserError where a step does not follow from the ones before: the trace is of another network.
    """
    plan, met = slimming.start, []
    for step in steps:
        met.append(plan)
        following = [after for after in slimming.steps(plan) if after.channels[step.group] == step.channels_after]
        chosen = next((after for after in following if changed_groups(plan, after) == [step.group]), None)
        if chosen is None:
            raise UserError(f"step {step.step} of the trace is none of this network's. Give the search of this checkpoint.")
        plan = chosen
    if not met:
        raise UserError("the trace holds no steps. Give the folder of a finished search.")
    size = min(count, len(met))
    return [met[number * len(met) // size] for number in range(size)]
