"""Steps found in staircases that are known, with noise and disturbed counts, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.layers.steps import find_step, jumps, narrower_but_slower, sentence

COUNTS = list(range(8, 200, 8))
LONG = list(range(8, 392, 8))


def stairs(counts: list[int], step: int, start: float = 0.05, rise: float = 0.01) -> list[float]:
    return [start + rise * step * math.ceil(count / step) for count in counts]


@pytest.mark.parametrize("step", [16, 32, 64])
@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_a_staircase_s_step_is_found(step: int, noise: float, seed: int) -> None:
    """Noise of a deviation up to a tenth of a step's rise."""
    drawn = np.random.default_rng(seed).normal(0, noise * 0.01 * step, len(LONG))
    assert find_step(LONG, list(np.array(stairs(LONG, step)) + drawn)) == step


@pytest.mark.parametrize("step", [16, 32])
def test_treads_may_rise_unevenly(step: int) -> None:
    """As where a kernel takes four blocks at once and fewer at the end: measured, 1x1 at 28x28, 64 to 248 channels."""
    rises = (0.155, 0.057, 0.039, 0.032, 0.038, 0.058, 0.022, 0.032, 0.048, 0.048)
    counts = list(range(step, 10 * step, 8))
    ms = [sum(rises[block] for block in range(math.ceil(count / step))) for count in counts]
    assert find_step(counts, ms) == step


@pytest.mark.parametrize("seed", range(20))
def test_noise_about_a_line_is_no_staircase(seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(0, 0.015, len(COUNTS))
    assert find_step(COUNTS, list(0.05 + 0.01 * np.array(COUNTS) + drawn)) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_few_disturbed_counts_decide_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ms = np.array(stairs(COUNTS, 16)) + draw.normal(0, 0.01, len(COUNTS))
    ms[draw.choice(len(ms), 2, replace=False)] *= 3
    assert find_step(COUNTS, list(ms)) == 16


def test_steps_are_seen_at_the_resolution_of_the_counts_only() -> None:
    eights, twos = list(range(8, 104, 8)), list(range(64, 112, 2))
    assert find_step(eights, stairs(eights, 8)) == 1  # every count is on a tread of its own
    assert find_step(twos, stairs(twos, 8)) == 8
    assert find_step(twos, stairs(twos, 4)) == 4


def test_flat_and_short_lines_have_no_step() -> None:
    assert find_step(COUNTS, [1.0] * len(COUNTS)) == 1
    assert find_step([8, 16, 24], stairs([8, 16, 24], 16)) == 1
    assert find_step([], []) == 1
    assert find_step([16], [1.0]) == 1


def test_a_step_of_few_edges_is_not_claimed() -> None:
    assert find_step(COUNTS, stairs(COUNTS, 64)) == 1  # 8 to 192 has two: they may be anything
    counts = list(range(64, 256, 8))
    assert find_step(counts, stairs(counts, 64)) == 1  # three, as a noisy run once showed where steps were 16
    assert find_step(LONG, stairs(LONG, 64)) == 64


def test_edges_must_stand_out_of_the_noise() -> None:
    ms = stairs(COUNTS, 16)  # edges of 0.16
    assert find_step(COUNTS, ms, [0.07] * len(COUNTS)) == 16
    assert find_step(COUNTS, ms, [0.09] * len(COUNTS)) == 1
    assert find_step(COUNTS, ms, [9.0] * 3 + [0.0] * (len(COUNTS) - 3)) == 16  # a few disturbed counts


def test_jumps_are_between_treads() -> None:
    counts, ms = [48, 56, 64, 72, 80], [1.0, 1.0, 1.0, 1.5, 1.5]
    assert [(jump.low, jump.high, jump.share) for jump in jumps(counts, ms, 32)] == [(64, 72, 0.5)]
    assert [(jump.low, jump.high) for jump in jumps(counts, ms, 8)] == [(48, 56), (56, 64), (64, 72), (72, 80)]
    assert jumps([8, 16], [0.0, 1.0], 8) == []  # nothing to be larger than


def test_narrower_and_slower_needs_more_than_noise() -> None:
    counts, ms = [120, 122, 124, 126], [69.2, 82.3, 69.2, 70.0]
    quiet, loud = [0.1] * 4, [8.0] * 4
    assert [(jump.low, jump.high) for jump in narrower_but_slower(counts, ms, quiet)] == [(122, 124)]
    assert narrower_but_slower(counts, ms, loud) == []
    assert narrower_but_slower(counts, [70.0, 69.0, 69.0, 69.0], [0.0] * 4) == []  # 1.4 % is not worth telling


def test_sentences_say_where_time_steps() -> None:
    counts, quiet = [56, 64, 72, 80, 88, 96], [0.0] * 6
    ms = [1.0, 1.0, 1.35, 1.35, 1.7, 1.7]
    said = sentence(counts, ms, quiet, 16, "output channels")
    assert said == "steps of 16 output channels: flat between 56 and 64, +35% at 72"
    assert sentence(counts[1:], ms[1:], quiet[1:], 16, "channels") == "steps of 16 channels: +35% at 72 over 64"
    said = sentence(counts, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], quiet, 1, "input channels")
    assert said == "no steps of more than 8 input channels are seen between 56 and 96"
    said = sentence([120, 122, 124], [1.0, 1.25, 1.0], [0.0] * 3, 1, "output channels")
    assert said.endswith("; narrower is slower at 1 of 3 counts, most at 122: 124 channels take 20% less")


def test_a_jump_within_noise_is_not_the_one_that_is_told() -> None:
    counts, ms = [8, 16, 24, 32, 40, 48], [1.0, 1.0, 2.0, 2.0, 2.6, 2.6]
    assert sentence(counts, ms, [0.0] * 6, 16, "output channels").endswith("flat between 8 and 16, +100% at 24")
    assert sentence(counts, ms, [0.0, 0.0, 1.2, 0.0, 0.0, 0.0], 16, "output channels").endswith(
        "flat between 24 and 32, +30% at 40"
    )
    assert sentence(counts, ms, [9.0] * 6, 16, "output channels") == "steps of 16 output channels"
