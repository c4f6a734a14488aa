"""Steps of a search: sizes, floors, groups that shrink together, and lists that are read as what was searched."""

from __future__ import annotations

import random

import pytest
import torch

from slimtrain.base.errors import UserError, WidthError
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.cost_model import format_cost
from slimtrain.models.channels import ChannelPlan
from slimtrain.models.spec import NetworkSpec
from slimtrain.search.slimming import Slimming, changed_groups, check_targets
from tests.support.module_layers import DenseLayers
from tests.support.run_helpers import AUTO, S2
from tests.support.search_toys import MNAS, RESNET, V1, V2, Priced

WIDE = {
    name: NetworkSpec(name, "us", (0.15, 1.5), 1000, width_range=(0.15, 1.5))
    for name in ("mobilenet_v1", "mobilenet_v2", "mnasnet", "resnet50")
}


def walk(slimming: Slimming, seed: int) -> list[ChannelPlan]:
    """Random steps from the widest plan until there is none."""
    draw = random.Random(seed)
    plans = [slimming.start]
    while steps := slimming.steps(plans[-1]):
        plans.append(draw.choice(steps))
    return plans


@pytest.mark.parametrize(
    ("width", "groups", "divisor", "expected"),
    [
        (48, 10, 8, 8),  # 4.8: at least one divisor
        (96, 10, 8, 8),  # 9.6: the nearest, not the next
        (120, 10, 8, 16),  # 12: halves up
        (1536, 10, 8, 152),  # 153.6
        (1536, 12, 8, 128),
        (1536, 10, 4, 152),  # 153.6 lies nearer to 152 than to 156
        (1536, 1, 8, 1536),
        (96, 10, 1, 10),
    ],
)
def test_a_step_is_a_share_of_the_widest_count_rounded(width: int, groups: int, divisor: int, expected: int) -> None:
    slimming = Slimming(WIDE["mobilenet_v1"], groups, divisor)
    slimming.start = ChannelPlan("start", {"features.0": width})
    assert slimming.size("features.0") == expected


@pytest.mark.parametrize("name", WIDE)
def test_steps_change_one_group_each_in_wiring_order(name: str) -> None:
    slimming = Slimming(WIDE[name])
    steps = slimming.steps(slimming.start)
    free = [group for group in slimming.start.channels if group not in WIDE[name].fixed_groups]
    assert [changed_groups(slimming.start, step) for step in steps] == [[group] for group in free]
    for group, step in zip(free, steps, strict=True):
        assert step.channels[group] == slimming.start.channels[group] - slimming.size(group)
        assert step.name == f"{group}_{step.channels[group]}"


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("groups", [1, 3, 10])
def test_every_walk_ends_at_the_floor_and_every_list_is_read_as_searched(name: str, groups: int) -> None:
    spec = WIDE[name]
    slimming = Slimming(spec, groups)
    narrow = spec.plan(0.15)
    for seed in range(3):
        plans = walk(slimming, seed)
        assert plans[-1] == slimming.floor
        for plan in plans:
            assert all(count >= narrow.channels[group] and count % 8 == 0 for group, count in plan.channels.items())
            alone = NetworkSpec(spec.architecture, "autoslim", (1,), 1000, (spec.list_of(plan),))
            assert alone.wiring == spec.wiring
            assert alone.plan(1) == plan
        jointly = NetworkSpec(spec.architecture, "autoslim", (1, 2), 1000, (spec.list_of(plans[-1]), spec.list_of(plans[-1])))
        assert jointly.wiring == spec.wiring


def test_the_last_step_lands_on_the_floor() -> None:
    """128 to 64 in steps of 40, the last one shortened to 24."""
    slimming = Slimming(NetworkSpec("mobilenet_v1", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25)), 3)
    counts, plan = [], slimming.start
    while True:
        counts.append(plan.channels["features.8"])
        steps = {changed_groups(plan, step)[0]: step for step in slimming.steps(plan)}
        if "features.8" not in steps:
            break
        plan = steps["features.8"]
    assert counts == [128, 88, 64]
    assert slimming.size("features.8") == 40  # 128 / 3 = 42.7


def test_a_floor_of_ones_own() -> None:
    slimming = Slimming(WIDE["resnet50"], floor=0.5)
    assert slimming.floor.channels == WIDE["resnet50"].plan(0.5).channels
    assert walk(slimming, 0)[-1] == slimming.floor


@pytest.mark.parametrize("spec", [V2, MNAS])
def test_fixed_groups_never_shrink(spec: NetworkSpec) -> None:
    (tail,) = spec.fixed_groups
    assert {plan.channels[tail] for plan in walk(Slimming(spec), 1)} == {1280}


@pytest.mark.parametrize("spec", [V1, V2, MNAS, RESNET])
def test_what_is_summed_or_convolved_by_channel_shrinks_together(spec: NetworkSpec) -> None:
    """Plans of a walk are counted, which asserts that sums and inputs fit, and run as dense networks, which would fail."""
    counter, plans = CostCounter(spec, 32), walk(Slimming(spec, 2), 2)
    costs = [counter(plan).macs for plan in plans]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) == len(costs)
    for plan in plans[:: len(plans) // 3]:
        network = spec.build(DenseLayers(plan))
        assert isinstance(network, torch.nn.Module)
        with torch.inference_mode():
            assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, spec.classes)


def test_a_stage_summed_in_resnet_is_one_group() -> None:
    slimming = Slimming(RESNET)
    step = next(step for step in slimming.steps(slimming.start) if changed_groups(slimming.start, step) == ["features.4"])
    positions = [i for i, group in enumerate(RESNET.wiring.groups) if group == "features.4"]
    counts = RESNET.list_of(step)
    assert len(positions) == 5  # the shortcut and four blocks
    assert {counts[i] for i in positions} == {step.channels["features.4"]}


def test_counts_that_a_list_would_tie_are_passed_over() -> None:
    """Stem and first block of MobileNet v2: equal counts would be read as a sum of input and output."""
    spec = WIDE["mobilenet_v2"]
    slimming = Slimming(spec)
    assert ("features.0", "features.1") in slimming.pairs
    assert ("features.7", "features.11") in slimming.pairs  # 64 and 96 channels, stride 1
    assert ("features.4", "features.7") not in slimming.pairs  # stride 2: nothing can be added
    assert (spec.plan(0.15).channels["features.0"], spec.plan(0.15).channels["features.1"]) == (8, 8)
    assert (slimming.floor.channels["features.0"], slimming.floor.channels["features.1"]) == (16, 8)
    plan = ChannelPlan("p", {**slimming.start.channels, "features.0": 24, "features.1": 16})
    stem = [step.channels["features.0"] for step in slimming.steps(plan) if changed_groups(plan, step) == ["features.0"]]
    assert stem == []  # 16 is taken, and the floor
    plan = ChannelPlan("p", {**slimming.start.channels, "features.0": 16, "features.1": 24})
    first = [step.channels["features.1"] for step in slimming.steps(plan) if changed_groups(plan, step) == ["features.1"]]
    assert first == [8]  # on to the next free count


def test_where_everything_below_is_taken_a_step_is_shorter() -> None:
    spec = WIDE["mobilenet_v2"]
    slimming = Slimming(spec, 2)
    plan = ChannelPlan("p", {**slimming.start.channels, "features.0": 40, "features.1": 16})
    assert slimming.size("features.0") == 24
    stem = [step.channels["features.0"] for step in slimming.steps(plan) if changed_groups(plan, step) == ["features.0"]]
    assert stem == [24]  # 16 was wanted, is taken and the floor


def test_groups_that_are_equal_at_the_widest_are_told() -> None:
    spec = NetworkSpec("mobilenet_v2", "us", (0.125, 0.25), 10, width_range=(0.125, 0.25))
    slimming = Slimming(spec)
    assert slimming.inseparable == (("features.0", "features.1"),)
    assert walk(slimming, 0)[-1] == slimming.floor


@pytest.mark.parametrize("spec", [S2, AUTO])
def test_only_universally_slimmable_networks_are_searched(spec: NetworkSpec) -> None:
    with pytest.raises(
        UserError, match=f"{spec.name}: a search needs a universally slimmable network.*us_{spec.architecture}"
    ):
        Slimming(spec)


def test_shufflenet_is_refused() -> None:
    with pytest.raises(UserError, match="thirds"):
        Slimming(NetworkSpec("shufflenet", "s", (0.5, 1.0), 10))


@pytest.mark.parametrize(("groups", "divisor"), [(0, 8), (10, 0), (-1, 8)])
def test_steps_need_a_size(groups: int, divisor: int) -> None:
    with pytest.raises(UserError, match="expected whole numbers from 1"):
        Slimming(V1, groups, divisor)


def test_a_floor_outside_of_the_range() -> None:
    with pytest.raises(WidthError, match="outside the range"):
        Slimming(V1, floor=0.1)


def test_targets_in_reach() -> None:
    slimming, cost = Slimming(V1), Priced()
    start, floor = cost(slimming.start), cost(slimming.floor)
    check_targets(cost, slimming, [start, floor])
    with pytest.raises(UserError, match=r"no targets"):
        check_targets(cost, slimming, [])
    with pytest.raises(UserError) as above:
        check_targets(cost, slimming, [start + 1])
    assert format_cost(start + 1, cost) in str(above.value)
    assert f"above the network's own {format_cost(start, cost)}" in str(above.value)
    with pytest.raises(UserError) as below:
        check_targets(cost, slimming, [start, floor - 1])
    assert format_cost(floor - 1, cost) in str(below.value)
    assert f"below what slimming reaches, {format_cost(floor, cost)}" in str(below.value)
