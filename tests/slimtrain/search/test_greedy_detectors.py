"""The greedy loop on a detector, against every plan that each step could go to, measured by hand from the image on."""

from __future__ import annotations

import pytest

from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import cost_model
from slimtrain.detection.fixed.shipped import dense_spec
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.greedy import run_search
from slimtrain.search.slimming import Slimming
from tests.support.search_toys import Recorded
from tests.support.trained_detectors import SIZE
from tests.support.universal_detectors import batches, loss_of, measure_of, settings_of, universal_detector

STEPS = 4


def halved(plan: ChannelPlan, widest: ChannelPlan) -> list[ChannelPlan]:
    """The plans in which one group more has half of its channels."""
    whole = [group for group, channels in plan.channels.items() if channels == widest.channels[group]]
    return [ChannelPlan(group, {**plan.channels, group: widest.channels[group] // 2}) for group in whole]


@pytest.mark.parametrize("criterion", ["error", "error-per-cost"])
def test_every_step_is_the_one_of_brute_force(criterion: str) -> None:
    network = universal_detector()
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    counted = dense_spec(spec, settings_of(network), SIZE)
    macs = CostCounter(counted, SIZE)
    on = batches()
    losses: dict[ChannelPlan, float] = {}

    def loss(plan: ChannelPlan) -> float:
        if plan not in losses:
            first, second = (loss_of(network, plan, batch) for batch in on)
            losses[plan] = (4 * first + 2 * second) / 6
        return losses[plan]

    def rule(before: ChannelPlan, after: ChannelPlan) -> float:
        rise, saved = loss(after) - loss(before), macs(before).macs - macs(after).macs
        return loss(after) if criterion == "error" else rise / saved if rise > 0 else rise * saved

    plan, expected = spec.widest, []
    for _ in range(STEPS):
        here = plan
        plan = min(halved(plan, spec.widest), key=lambda option: rule(here, option))
        expected.append(plan)
    slimming, trace, cost = Slimming(spec, groups=2), Recorded(), cost_model("macs", counted, SIZE)
    lines: list[str] = []
    (outcome,) = run_search(
        network,
        slimming,
        cost,
        [macs(expected[-1]).macs],
        measure_of(network),
        image_size=SIZE,
        criterion=criterion,
        trace=trace,
        say=lines.append,
        counted=counted,
    )
    assert [step.group for step in trace.steps] == [plan.name for plan in expected]
    assert [step.macs for step in trace.steps] == [macs(plan).macs for plan in expected]
    assert [step.error_after for step in trace.steps] == pytest.approx([loss(plan) for plan in expected], rel=1e-5)
    assert outcome.plan == expected[-1] and outcome.macs == macs(expected[-1]).macs
    assert lines[0].startswith("the widest: ") and f"loss {loss(spec.widest):.4f} on 6 images" in lines[0]
    assert all("%" not in line for line in lines)
