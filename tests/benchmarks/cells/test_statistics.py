"""Figures against their definitions, warnings at their limits, ranks and fronts against brute force."""

from __future__ import annotations

import itertools
import math
import statistics as standard
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import NOT_MEASURED, Result, Round
from benchmarks.cells.statistics import overlap, pareto, rank_correlation, summary, warnings
from tests.support.bench_helpers import cell, result

STEADY = [[10.0, 10.1, 9.9] * 4]


def percentile(samples: Sequence[float], percent: float) -> float:
    """From the definition: the value at place percent/100 * (n - 1) of the sorted samples, linear between two places."""
    ordered = sorted(samples)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@pytest.mark.parametrize("counts", [(1,), (2,), (1, 1), (5, 4, 3), (100, 101, 99)])
@pytest.mark.parametrize("gpu", [False, True])
def test_figures_are_what_they_are_defined_as(counts: tuple[int, ...], gpu: bool) -> None:
    generator = np.random.default_rng(sum(counts))
    rounds = [list(generator.lognormal(1, 0.5, count)) for count in counts]
    figures = summary(result(rounds, cell(batch=8), gpu=gpu, enqueue=0.25))
    every = [value for samples in rounds for value in samples]
    middles = [standard.median(samples) for samples in rounds]
    assert figures is not None
    assert figures.median_ms == pytest.approx(standard.median(every))
    assert figures.mean_ms == pytest.approx(standard.fmean(every))
    assert (figures.min_ms, figures.max_ms) == (min(every), max(every))
    for percent, value in ((90, figures.p90_ms), (95, figures.p95_ms), (99, figures.p99_ms)):
        assert value == pytest.approx(percentile(every, percent))
    assert figures.iqr_ms == pytest.approx(percentile(every, 75) - percentile(every, 25))
    assert figures.interval_ms == pytest.approx((min(middles), max(middles)))
    assert figures.spread == pytest.approx((max(middles) - min(middles)) / standard.median(every))
    assert figures.images_per_s == pytest.approx(8 / (standard.median(every) / 1000))
    assert (figures.iterations, figures.rounds) == (len(every), len(counts))
    assert figures.wall_median_ms == pytest.approx(standard.median(every) + gpu)
    assert figures.host_bound == (pytest.approx(0.25) if gpu else None)


def test_one_round_has_no_spread() -> None:
    figures = summary(result([[1.0, 2.0, 9.0]]))
    assert figures is not None and (figures.spread, figures.interval_ms) == (0, (2, 2))


def test_transfers_are_medians_where_they_were_measured() -> None:
    samples = {"wall": [9.0, 9.0], "device": [1.0, 1.0], "enqueue": [0.1, 0.1], "upload": [3.0, 5.0], "download": [0.5, 0.7]}
    figures = summary(Result(cell(), "measured", rounds=(Round(samples),)))
    assert figures is not None and figures.upload_ms == 4.0
    assert figures.download_ms == pytest.approx(0.6)
    without = summary(result([[1.0]]))
    assert without is not None and (without.upload_ms, without.download_ms) == (None, None)


@pytest.mark.parametrize("rounds", [[], [[]]])
def test_no_samples_no_figures_no_warnings(rounds: list[list[float]]) -> None:
    nothing = result(rounds, status=NOT_MEASURED)
    assert summary(nothing) is None
    assert warnings(nothing) == ()


def test_a_steady_result_has_no_warning() -> None:
    assert warnings(result(STEADY)) == ()
    assert warnings(result(STEADY, gpu=True)) == ()


@pytest.mark.parametrize(
    ("quiet", "loud", "said"),
    [
        (result(STEADY, gpu=True, enqueue=0.79), result(STEADY, gpu=True, enqueue=0.81), "host-bound"),
        (result([[97.6, 102.4] * 6], gpu=True), result([[97.4, 102.6] * 6], gpu=True), "clocks unstable"),
        (result([[100.0] * 9, [109.0] * 9]), result([[100.0] * 9, [112.0] * 9]), "noisy"),
        (result([[1.0] * 5, [1.0] * 5]), result([[1.0] * 5, [1.0] * 4]), "only 9 iterations"),
        (result(STEADY, states=[{"throttle": []}]), result(STEADY, states=[{"throttle": ["SwPowerCap"]}]), "SwPowerCap"),
        (result(STEADY, states=[{"throttle": None}]), result(STEADY, states=[{"throttle": ["hot"]}]), "throttled (hot)"),
        (result(STEADY, states=[{"other_load": 0.2}]), result(STEADY, states=[{"other_load": 0.3}]), "0.3 cores busy"),
        (result(STEADY, states=[{"other_load": None}]), result(STEADY, states=[{"other_load": 1.26}]), "1.3 cores busy"),
    ],
)
def test_each_warning_begins_at_its_limit(quiet: Result, loud: Result, said: str) -> None:
    assert warnings(quiet) == ()
    (warning,) = warnings(loud)
    assert said in warning


def test_a_cpu_has_no_unstable_clocks() -> None:
    assert warnings(result([[97.0, 103.0] * 6])) == ()


def test_states_of_all_rounds_count_once() -> None:
    states: list[dict[str, Any]] = [{"throttle": ["b", "a"], "other_load": 0.1}, {"throttle": ["b"], "other_load": 0.9}]
    said = warnings(result([[1.0] * 9] * 2, states=states))
    assert said[0].startswith("throttled (b, a)")
    assert "0.9 cores" in said[1]


def brute_ranks(values: Sequence[float]) -> list[float]:
    """The mean of the places that a value may take."""
    return [1 + sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


def brute_spearman(x: Sequence[float], y: Sequence[float]) -> float:
    return standard.correlation(brute_ranks(x), brute_ranks(y))


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlation_is_spearmans(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(2, 12))
    x, y = (list(map(float, generator.integers(0, 5, count))) for _ in range(2))
    x[0], x[1], y[0], y[1] = 0, 1, 0, 2  # at least two values each
    correlation = rank_correlation(x, y)
    assert correlation == pytest.approx(brute_spearman(x, y))


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_that_of_scipy(seed: int) -> None:
    scipy = pytest.importorskip("scipy.stats")
    x, y = np.random.default_rng(seed).integers(0, 9, (2, 20)).tolist()
    assert rank_correlation(x, y) == pytest.approx(scipy.spearmanr(x, y).statistic)


def test_rank_correlation_at_its_ends() -> None:
    assert rank_correlation([1, 2, 3], [1, 10, 100]) == 1
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    for x, y in (([], []), ([1], [2]), ([1, 1], [1, 2]), ([1, 2], [5, 5])):
        assert rank_correlation(x, y) is None


@pytest.mark.parametrize("seed", range(30))
def test_the_front_is_what_no_other_beats(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = [(float(cost), float(value)) for cost, value in generator.integers(0, 6, (int(generator.integers(0, 12)), 2))]
    expected = {
        (cost, value)
        for cost, value in points
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    }
    front = pareto(points)
    assert {points[index] for index in front} == expected
    assert [points[index] for index in front] == sorted(expected)
    assert front == [points.index(points[index]) for index in front]  # the first of equal points


def test_intervals_overlap_when_they_share_a_point() -> None:
    for a, b, c, d in itertools.product(range(4), repeat=4):
        if a <= b and c <= d:
            shared = any(a <= place / 2 <= b and c <= place / 2 <= d for place in range(8))
            assert overlap((a, b), (c, d)) == shared
