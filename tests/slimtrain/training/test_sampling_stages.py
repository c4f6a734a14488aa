"""A range of widths that grows: which stage an epoch is in, and what is trained in it."""

from __future__ import annotations

import pytest

from slimtrain.models.spec import NetworkSpec
from slimtrain.training.sampling import Stages, WidthSampler

US = NetworkSpec("mobilenet_v1", "us", (0.25, 1.0), 10, width_range=(0.25, 1.0))
S = NetworkSpec("mobilenet_v1", "s", (0.5, 1.0, 0.25, 0.75), 10)
STEPS = 7
GROW = (0.75, 0.5, 0.25)


def stages(epochs: int, narrowest: tuple[float, ...] = GROW) -> Stages:
    return Stages(narrowest, epochs, STEPS)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (3, [0, 1, 2]),
        (9, [0] * 3 + [1] * 3 + [2] * 3),
        (4, [0, 0, 1, 2]),
        (5, [0, 0, 1, 1, 2]),
        (14, [0] * 5 + [1] * 5 + [2] * 4),
    ],
)
def test_epochs_are_divided_evenly(epochs: int, expected: list[int]) -> None:
    asked = stages(epochs)
    assert [asked.number(epoch * STEPS) for epoch in range(epochs)] == expected
    assert [asked.number(epoch * STEPS + STEPS - 1) for epoch in range(epochs)] == expected
    assert asked.number(epochs * STEPS) == asked.number(10 * epochs * STEPS) == 2  # a run that became longer
    begins = [step for step in range(epochs * STEPS) if asked.begins(step)]
    assert begins == [expected.index(number) * STEPS for number in range(3)]


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("epochs", range(6, 30))
def test_every_stage_has_as_many_epochs_as_another_or_one_more(count: int, epochs: int) -> None:
    asked = stages(epochs, tuple(0.9 - 0.1 * i for i in range(count)))
    numbers = [asked.number(epoch * STEPS) for epoch in range(epochs)]
    lengths = [numbers.count(number) for number in range(count)]
    assert numbers == sorted(numbers) and sum(lengths) == epochs and max(lengths) - min(lengths) <= 1


def test_the_log_says_the_stage() -> None:
    asked = stages(9)
    assert asked.describe(0) == "stage 1 of 3, epochs 1 to 3: widths from 0.75 up"
    assert asked.describe(4 * STEPS) == "stage 2 of 3, epochs 4 to 6: widths from 0.5 up"
    assert asked.describe(8 * STEPS) == "stage 3 of 3, from epoch 7 on: widths from 0.25 up"


def test_the_sandwich_of_a_stage_ends_at_its_narrowest() -> None:
    sampler = WidthSampler(US, stages=stages(300))
    for stage, low in enumerate(GROW):
        drawn = []
        for step in range(stage * 100 * STEPS, (stage + 1) * 100 * STEPS):
            plans = sampler(step)
            assert len(plans) == sampler.count == 4
            assert [plan.width for plan in plans[:2]] == [1.0, low]
            assert plans[:2] == sampler.fixed_at(step) and sampler.narrowest(step) == low
            drawn += [plan.width or 0 for plan in plans[2:]]
        assert low <= min(drawn) < low + 0.01 and 0.99 < max(drawn) <= 1.0
        middle = sum(width > (1 + low) / 2 for width in drawn) / len(drawn)
        assert abs(middle - 0.5) < 3.3 * 0.5 / len(drawn) ** 0.5  # uniform: half of them in the upper half
        assert sampler.trains_all(stage * 100 * STEPS) == (stage == 2)


def test_the_last_stage_is_the_run_without_stages() -> None:
    for options in ({}, {"nonuniform": True}, {"width_step": 0.05}):
        grown, plain = WidthSampler(US, 3, stages=stages(3), **options), WidthSampler(US, 3, **options)
        assert [grown(step) for step in range(2 * STEPS, 3 * STEPS)] == [plain(step) for step in range(2 * STEPS, 3 * STEPS)]
        assert grown(0) != plain(0) and grown.fixed == plain.fixed


def test_every_group_of_a_nonuniform_plan_keeps_to_the_range() -> None:
    sampler = WidthSampler(US, nonuniform=True, stages=stages(3))
    low, high = US.plan(0.75), US.plan(1.0)
    for step in range(STEPS):
        for plan in sampler(step)[2:]:
            assert all(low.channels[group] <= count <= high.channels[group] for group, count in plan.channels.items())


def test_a_grid_is_drawn_from_as_far_as_the_stage_goes() -> None:
    sampler = WidthSampler(US, width_step=0.25, sandwich=8, stages=stages(3, (0.6, 0.25)))
    widths = [
        {plan.width for step in range(epoch * STEPS, (epoch + 1) * STEPS) for plan in sampler(step)[2:]} for epoch in (0, 2)
    ]
    assert widths == [{0.75, 1.0}, {0.25, 0.5, 0.75, 1.0}]
    assert [plan.width for plan in sampler.returning] == [1.0, 0.25, 0.6, 0.5, 0.75]


def test_a_stage_of_the_widest_alone_runs_it_once() -> None:
    for spec in (US, S):
        sampler = WidthSampler(spec, stages=stages(4, (1.0, 0.5, 0.25)))
        assert [plan.width for plan in sampler(0)] == [1.0] and sampler.count == 4


def test_switches_below_a_stages_narrowest_are_not_trained() -> None:
    sampler = WidthSampler(S, stages=stages(3))
    assert [[plan.width for plan in sampler(epoch * STEPS)] for epoch in range(3)] == [
        [1.0, 0.75],
        [1.0, 0.75, 0.5],
        [1.0, 0.75, 0.5, 0.25],
    ]
    assert sampler.fixed == sampler(2 * STEPS) and sampler.count == 4 and sampler.returning == sampler.fixed
