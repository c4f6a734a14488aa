"""The sandwich rule: what every step runs, what is drawn between, and that draws depend on the seed and the step alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from slimtrain.models.channels import ChannelPlan
from slimtrain.models.published import published_spec
from slimtrain.models.spec import NetworkSpec
from slimtrain.training.sampling import WidthSampler
from tests.support.slimtrain_states import empty_state, images, network_of, random_state

US = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
US_V2 = NetworkSpec("mobilenet_v2", "us", (0.35, 1.0), 10, width_range=(0.35, 1.0))
US_RESNET = NetworkSpec("resnet50", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
STEPS = 500


def drawn(sampler: WidthSampler, steps: int = STEPS) -> list[ChannelPlan]:
    return [plan for step in range(steps) for plan in sampler(step)[2:]]


@pytest.mark.parametrize("sandwich", [2, 3, 4, 7])
def test_widest_first_narrowest_second_and_as_many_as_asked_for(sandwich: int) -> None:
    sampler = WidthSampler(US, sandwich=sandwich)
    for step in range(20):
        plans = sampler(step)
        assert len(plans) == sampler.count == sandwich
        assert [plan.width for plan in plans[:2]] == [1.0, 0.25]
        assert plans[0] == US.widest
        assert plans[:2] == sampler.fixed
        assert all(0.25 <= plan.width <= 1.0 for plan in plans[2:] if plan.width is not None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_widths_are_uniform_over_the_range(seed: int) -> None:
    widths = sorted(plan.width or 0 for plan in drawn(WidthSampler(US, seed)))
    assert len(widths) == 2 * STEPS
    # Kolmogorov and Smirnov: the distance from the uniform distribution exceeds this in one of 1,000 samples.
    places = [(width - 0.25) / 0.75 for width in widths]
    distance = max(max((i + 1) / len(places) - place, place - i / len(places)) for i, place in enumerate(places))
    assert distance < 1.95 / len(places) ** 0.5


def test_the_draws_of_a_step_and_of_neighbouring_steps_are_unrelated() -> None:
    pairs = torch.tensor([[plan.width for plan in WidthSampler(US)(step)[2:]] for step in range(STEPS)])
    columns = torch.stack([pairs[:-1, 0], pairs[:-1, 1], pairs[1:, 0], pairs[1:, 1]])
    related = torch.corrcoef(columns) - torch.eye(4)
    assert float(related.abs().max()) < 4 / STEPS**0.5


def test_the_same_seed_and_step_draw_the_same_others_differ() -> None:
    def widths(seed: int, step: int) -> tuple[float | None, ...]:
        return tuple(plan.width for plan in WidthSampler(US, seed)(step))

    assert widths(3, 17) == widths(3, 17)
    sampler = WidthSampler(US, 3)
    later = [sampler(step) for step in (5, 17, 17)]  # whatever was drawn before
    assert tuple(plan.width for plan in later[1]) == tuple(plan.width for plan in later[2]) == widths(3, 17)
    seen = {widths(seed, step) for seed in range(20) for step in range(20)}
    assert len(seen) == 400
    assert widths(1, 11) != widths(11, 1) and widths(1, 23) != widths(12, 3)


def test_another_process_draws_the_same() -> None:
    code = (
        "from slimtrain.training.sampling import WidthSampler; from slimtrain.models.spec import NetworkSpec\n"
        "spec = NetworkSpec('mobilenet_v1', 'us', (0.25, 1.0), 10, width_range=(0.25, 1.0))\n"
        "print([[p.width for p in WidthSampler(spec, 5)(s)] for s in range(4)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == str([[plan.width for plan in WidthSampler(US, 5)(step)] for step in range(4)])


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    import random

    random.seed(1)
    state = random.getstate()
    first = WidthSampler(US)(3)
    assert random.getstate() == state
    random.seed(2)
    assert [plan.width for plan in WidthSampler(US)(3)] == [plan.width for plan in first]


# ----------------------------------------------------------------------------------------------------------- the grid


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [
        (0.25, 1.0, 0.25, [0.25, 0.5, 0.75, 1.0]),
        (0.35, 1.0, 0.05, [0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]),
        (0.25, 1.0, 0.2, [0.25, 0.45, 0.65, 0.85]),
        (0.25, 0.5, 0.9, [0.25]),
        (0.3333333333, 0.6666666667, 0.3333333334, [0.3333333333, 0.6666666667]),  # more digits than the grid is rounded to
    ],
)
def test_a_grid_begins_at_the_narrowest_and_stays_in_range(
    low: float, high: float, step: float, expected: list[float]
) -> None:
    spec = NetworkSpec("mobilenet_v1", "us", (low, high), 10, width_range=(low, high))
    sampler = WidthSampler(spec, width_step=step)
    assert sampler.grid == expected
    assert {plan.width for plan in drawn(sampler, 200)} == set(expected)
    assert [plan.width for plan in sampler(0)[:2]] == [high, low]


def test_a_grid_is_drawn_from_evenly() -> None:
    counts = Counter(plan.width for plan in drawn(WidthSampler(US, width_step=0.25)))
    expected = 2 * STEPS / 4
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 16.3  # chi squared, 3 degrees: 1 in 1,000


def test_without_a_step_there_is_no_grid() -> None:
    assert WidthSampler(US).grid == []
    assert len({plan.width for plan in drawn(WidthSampler(US))}) == 2 * STEPS


# --------------------------------------------------------------------------------------------------------- non-uniform


@pytest.mark.parametrize("spec", [US, US_V2, US_RESNET], ids=["v1", "v2", "resnet"])
def test_nonuniform_plans_are_plans_of_the_network(spec: NetworkSpec) -> None:
    sampler = WidthSampler(spec, nonuniform=True)
    low, high = (spec.plan(width) for width in spec.range)
    plans = drawn(sampler, 100)
    assert sampler(0)[:2] == [high, low]
    # Each group's counts are those of uniform widths, so every count has a width that gives it.
    possible: dict[str, set[int]] = {group: set() for group in low.channels}
    for i in range(3001):
        for group, count in spec.plan(low.width + (high.width - low.width) * i / 3000).channels.items():  # type: ignore[operator]
            possible[group].add(count)
    seen: dict[str, set[int]] = {group: set() for group in low.channels}
    for plan in plans:
        assert plan.width is None
        assert list(plan.channels) == list(low.channels)
        spec.plan_from_channels(plan.name, plan.channels)  # refuses what does not fit, fixed groups included
        for group, count in plan.channels.items():
            assert low.channels[group] <= count <= high.channels[group]
            seen[group].add(count)
    for group, counts in seen.items():
        assert counts <= possible[group]
        assert len(counts) >= min(len(possible[group]), 5)
    assert len({tuple(plan.channels.values()) for plan in plans}) == len(plans)


def test_every_group_draws_by_itself() -> None:
    """Groups of the same size at every uniform width differ from each other in most non-uniform plans."""
    plans = drawn(WidthSampler(US, nonuniform=True))
    for a, b in [("features.7", "features.8"), ("features.12", "features.13")]:
        x = torch.tensor([[plan.channels[a], plan.channels[b]] for plan in plans], dtype=torch.float64)
        assert abs(float(torch.corrcoef(x.T)[0, 1])) < 4 / len(plans) ** 0.5
        assert float((x[:, 0] != x[:, 1]).double().mean()) > 0.9


def test_the_tail_of_mobilenet_v2_is_never_slimmed() -> None:
    assert US_V2.fixed_groups == {"features.18"}
    for nonuniform in (False, True):
        assert {plan.channels["features.18"] for plan in drawn(WidthSampler(US_V2, nonuniform=nonuniform), 50)} == {1280}


def test_of_tied_entries_the_first_decides() -> None:
    widths = [1.0] * len(US_RESNET.wiring.groups)
    groups = US_RESNET.wiring.groups
    stage = [i for i, group in enumerate(groups) if group == "features.1"]
    assert len(stage) == 4  # the shortcut's output, and each of three blocks'
    widths[stage[0]] = 0.25
    plan = US_RESNET.mixed_plan("mixed", widths)
    expected = {**US_RESNET.plan(1.0).channels, "features.1": US_RESNET.plan(0.25).channels["features.1"]}
    assert dict(plan.channels) == expected
    widths[stage[0]], widths[stage[1]] = 1.0, 0.25
    assert US_RESNET.mixed_plan("mixed", widths) == US_RESNET.plan(1.0)


def test_equal_widths_everywhere_make_the_uniform_plan() -> None:
    for spec in (US, US_V2, US_RESNET):
        widths = [0.55] * len(spec.wiring.groups)
        assert spec.mixed_plan("mixed", widths) == spec.plan(0.55)
        with pytest.raises(ValueError, match="zip"):
            spec.mixed_plan("mixed", widths[1:])


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "resnet50"])
def test_nonuniform_plans_run(architecture: str) -> None:
    spec = NetworkSpec(architecture, "us", (0.25, 0.5), 10, width_range=(0.25, 0.5))
    network = network_of(spec, random_state(spec)).train()
    plans = WidthSampler(spec, sandwich=5, nonuniform=True)(0)[2:]
    draws = []
    with torch.no_grad():
        for plan in plans:
            with network.at(plan):
                draws.append(network(images(2)))
    assert all(logits.shape == (2, 10) and bool(torch.isfinite(logits).all()) for logits in draws)
    assert len({float(logits[0, 0]) for logits in draws}) == 3


# ---------------------------------------------------------------------------------------------------- S and AutoSlim


@pytest.mark.parametrize(
    "name", ["s_mobilenet_v1", "s_mobilenet_v2", "s_resnet50", "s_shufflenet", "autoslim_mobilenet_v2", "autoslim_resnet50"]
)
def test_other_networks_run_all_switches_in_every_step(name: str) -> None:
    spec = published_spec(name)
    sampler = WidthSampler(spec, seed=4, sandwich=2)  # the sandwich is for US networks
    shapes = {key: value.shape for key, value in empty_state(spec).items()}
    for step in (0, 1, 1000):
        plans = sampler(step)
        assert sampler.count == len(plans) == len(spec.switches)
        assert set(plans) == set(spec.plans)
        # The widest is the one with the most weights in its norms.
        index = spec.plans.index(plans[0])
        sizes = [sum(s.numel() for k, s in shapes.items() if k.endswith(f"bn.{i}.weight")) for i in range(len(plans))]
        assert sizes[index] == max(sizes)
        assert [spec.plans.index(plan) for plan in plans] == sorted(range(len(plans)), key=lambda i: -sizes[i])


def test_switches_may_be_written_in_any_order() -> None:
    spec = NetworkSpec("mobilenet_v1", "s", (0.5, 1.0, 0.25), 10)
    assert [plan.width for plan in WidthSampler(spec)(0)] == [1.0, 0.5, 0.25]
