"""A small network to slim, and a trace of its search."""

from __future__ import annotations

from slimtrain.costs.cost import CostCounter
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.slimming import Slimming, changed_groups
from slimtrain.search.trace import SearchStep

RANGE = (0.15, 0.5)
SPEC = NetworkSpec("mobilenet_v1", "us", RANGE, 10, (), RANGE, stem_stride=1)
SLIMMING, COUNTER = Slimming(SPEC), CostCounter(SPEC, 16)


def steps_from_widest(count: int) -> list[SearchStep]:
    """A trace that always shrinks the last group that can."""
    plan, steps = SLIMMING.start, []
    for number in range(1, count + 1):
        after = SLIMMING.steps(plan)[-1]
        (group,) = changed_groups(plan, after)
        counts = plan.channels[group], after.channels[group]
        steps.append(SearchStep(number, group, *counts, 2.0, 1.0, 1, 1, 0.0, 0.0, 0.0, 0.0, 12, 1, 0.1))
        plan = after
    return steps
