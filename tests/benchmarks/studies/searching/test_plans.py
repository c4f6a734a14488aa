"""Plans to compare rankings on."""

from __future__ import annotations

import pytest

from benchmarks.studies.searching.plans import plans_on_the_way, random_plans
from slimtrain.base.errors import UserError
from slimtrain.search.trace import SearchStep
from tests.support.bench_search import COUNTER, SLIMMING, SPEC, steps_from_widest

MACS = 1_000_000


def test_random_plans_differ_and_cost_the_same() -> None:
    plans = random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 0)
    assert len(set(plans)) == len({plan.name for plan in plans}) == 6
    for plan in plans:
        assert abs(COUNTER(plan).macs - MACS) <= 0.03 * MACS
        assert len({round(count / SPEC.widest.channels[group], 1) for group, count in plan.channels.items()}) > 3
        for group, count in plan.channels.items():
            assert SLIMMING.floor.channels[group] <= count <= SLIMMING.start.channels[group]
            assert count % 8 == 0 or count in (SLIMMING.floor.channels[group], SLIMMING.start.channels[group])
    assert random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 0) == plans
    assert random_plans(SLIMMING, COUNTER, 6, MACS, 0.03, 1) != plans


def test_macs_that_no_plan_has_are_refused() -> None:
    with pytest.raises(UserError, match="only 0 of 2 different plans"):
        random_plans(SLIMMING, COUNTER, 2, 10 * COUNTER(SLIMMING.start).macs, 0.03, 0)


def test_plans_on_the_way_are_those_that_steps_began_from() -> None:
    steps = steps_from_widest(6)
    plans = plans_on_the_way(SLIMMING, steps, 3)
    assert plans[0] == SLIMMING.start and len(plans) == 3
    assert plans == plans_on_the_way(SLIMMING, steps, 6)[::2]
    assert all(step.channels_before == plan.channels[step.group] for step, plan in zip(steps[::2], plans, strict=True))
    assert len(plans_on_the_way(SLIMMING, steps, 100)) == 6
    with pytest.raises(UserError, match="step 1 of the trace is none"):
        plans_on_the_way(SLIMMING, [SearchStep(1, "features.0", 99, 98, 2.0, 1.0, 1, 1, 0.0, 0.0, 0.0, 0.0, 12, 1, 0.1)], 3)
    with pytest.raises(UserError, match="no steps"):
        plans_on_the_way(SLIMMING, [], 3)
