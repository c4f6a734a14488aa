"""Every schedule against a loop that goes step by step, with what changes at each."""

from __future__ import annotations

import cmath
import math
from itertools import pairwise
from typing import Any

import pytest

from slimtrain.training.optimizer import Schedule

STEPS = 7  # per epoch
LR = 0.4


def schedule(kind: str, **changes: Any) -> Schedule:
    return Schedule(**{"lr": LR, "kind": kind, "epochs": 6, "steps": STEPS, **changes})


def rates(chosen: Schedule) -> list[float]:
    return [chosen(step) for step in range(chosen.total)]


def test_linear_falls_by_the_same_amount_every_step_and_would_reach_0_after_the_last() -> None:
    expected, rate = [], LR
    for _ in range(6 * STEPS):
        expected.append(rate)
        rate -= LR / (6 * STEPS)
    assert abs(rate) < 1e-12
    assert rates(schedule("linear")) == pytest.approx(expected, rel=1e-9)


def test_exponential_loses_the_same_share_every_step_gamma_in_an_epoch() -> None:
    factors = rates(schedule("exponential", gamma=0.98))
    shares = [after / before for before, after in pairwise(factors)]
    assert factors[0] == LR
    assert shares == pytest.approx([shares[0]] * len(shares), rel=1e-12)
    for epoch in range(6):
        assert factors[epoch * STEPS] == pytest.approx(LR * math.prod([0.98] * epoch), rel=1e-12)


def test_cosine_is_the_height_of_a_wheel_that_turns_half_way() -> None:
    turn = cmath.exp(1j * math.pi / (6 * STEPS))
    point, expected = complex(1), []
    for _ in range(6 * STEPS):
        expected.append(LR / 2 * (1 + point.real))
        point *= turn
    assert point == pytest.approx(-1)
    assert rates(schedule("cosine")) == pytest.approx(expected, rel=1e-9)


def test_multistep_changes_in_the_first_step_of_each_milestone_and_nowhere_else() -> None:
    expected, rate = [], LR
    for epoch in range(6):
        for step in range(STEPS):
            if step == 0 and epoch in (2, 5):
                rate *= 0.1
            expected.append(rate)
    assert rates(schedule("multistep", milestones=(2, 5), gamma=0.1)) == pytest.approx(expected, rel=1e-12)


def test_milestones_within_an_epoch_take_effect_at_the_next_step() -> None:
    factors = rates(schedule("multistep", milestones=(0.5,), gamma=0.1))  # after 3.5 of 7 steps
    assert factors[3] == LR
    assert factors[4] == pytest.approx(LR * 0.1)


@pytest.mark.parametrize("steps", [1, 3, 49, 1251, 5004])
def test_milestones_are_met_exactly_for_any_number_of_steps(steps: int) -> None:
    chosen = schedule("multistep", milestones=(30, 60, 90), gamma=0.1, epochs=100, steps=steps)
    for number, milestone in enumerate((30, 60, 90)):
        assert chosen(milestone * steps - 1) == pytest.approx(LR * 0.1**number)
        assert chosen(milestone * steps) == pytest.approx(LR * 0.1 ** (number + 1))


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential", "multistep"])
def test_warmup_climbs_in_equal_steps_to_the_full_rate_then_the_schedule_is_as_without(kind: str) -> None:
    plain = rates(schedule(kind, milestones=(3,), gamma=0.5))
    warm = rates(schedule(kind, milestones=(3,), gamma=0.5, warmup_epochs=2))
    share = 0.0
    for step in range(2 * STEPS):
        share += 1 / (2 * STEPS)
        assert warm[step] == pytest.approx(share * plain[step], rel=1e-9)
    assert warm[2 * STEPS - 1 :] == pytest.approx(plain[2 * STEPS - 1 :], rel=1e-12)


def test_warmup_of_a_part_of_an_epoch_never_exceeds_the_schedule() -> None:
    factors = rates(schedule("multistep", milestones=(5,), warmup_epochs=0.5))  # 3.5 steps
    assert factors[:5] == pytest.approx([LR / 3.5, 2 * LR / 3.5, 3 * LR / 3.5, LR, LR])


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential", "multistep"])
def test_every_step_of_every_schedule_learns(kind: str) -> None:
    for warmup in (0.0, 0.01, 3.0):
        factors = rates(schedule(kind, milestones=(3,), warmup_epochs=warmup))
        assert all(0 < rate <= LR for rate in factors)
