"""Multiply-accumulates: all 86 published figures to the last digit, and layer by layer against a network that ran."""

from __future__ import annotations

import json

import pytest

from slimtrain.costs.cost import CostCounter
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.registry import ARCHITECTURES
from slimtrain.models.spec import NetworkSpec
from tests.support import REFERENCE
from tests.support.dense_costs import measured_cost
from tests.support.slimtrain_states import PUBLISHED, layout


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_of_every_switch_are_the_published_ones(name: str) -> None:
    spec = published_spec(name)
    count = CostCounter(spec, 224)
    table = {row["switch"]: row["macs"] for row in json.loads((REFERENCE / "published.json").read_text())["networks"][name]}
    assert {plan.width: count(plan).published_macs for plan in spec.plans} == table
    assert {str(plan.width): count(plan).published_macs for plan in spec.plans} == layout(name)["macs"]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("image_size", [33, 160])
def test_costs_are_those_of_the_dense_network_that_runs(name: str, image_size: int) -> None:
    spec = published_spec(name, classes=10)
    for plan in (spec.plans[0], spec.plans[-1]):
        assert CostCounter(spec, image_size)(plan) == measured_cost(spec, plan, image_size)


def test_costs_of_a_plan_that_no_width_describes() -> None:
    spec = published_spec("us_mobilenet_v2")
    channels = {group: max(1, count // (2 + i % 3)) for i, (group, count) in enumerate(spec.widest.channels.items())}
    plan = ChannelPlan("mine", channels)
    assert CostCounter(spec, 96)(plan) == measured_cost(spec, plan, 96)


@pytest.mark.parametrize("architecture", ["resnet101", "resnet152"])
def test_costs_of_deeper_resnets(architecture: str) -> None:
    spec = NetworkSpec(architecture, "us", (0.25, 1.0), width_range=(0.25, 1.0))
    assert CostCounter(spec, 64)(spec.plan(0.7)) == measured_cost(spec, spec.plan(0.7), 64)
    assert architecture in ARCHITECTURES


def test_a_counter_keeps_nothing_from_one_plan_to_the_next() -> None:
    spec = published_spec("us_mobilenet_v1")
    count = CostCounter(spec, 224)
    narrow, wide = count(spec.plan(0.25)), count(spec.plan(1.0))
    assert count(spec.plan(0.25)) == narrow != wide == count(spec.plan(1.0))


def test_pools_are_counted_apart() -> None:
    spec = published_spec("us_mobilenet_v1")
    cost = CostCounter(spec, 224)(spec.plan(0.5))
    assert (cost.macs, cost.pools) == (149497088, 512 * 49)  # DESIGN.md's example, and a 7x7 map of 512 channels
    assert cost.published_macs == cost.macs + cost.pools
