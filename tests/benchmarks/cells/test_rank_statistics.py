"""How well figures rank, against the definitions."""

from __future__ import annotations

from itertools import combinations

import pytest

from benchmarks.cells.rank_statistics import kendall, mean_interval, ranked


def test_kendalls_correlation_counts_pairs() -> None:
    x, y = [1.0, 2.0, 2.0, 4.0, 3.0], [2.0, 1.0, 3.0, 3.0, 5.0]
    signs = [((x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])) for i, j in combinations(range(5), 2)]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    assert kendall(x, y) == pytest.approx(sum(a * b for a, b in signs) / untied**0.5)
    assert kendall(x, x) == pytest.approx(1) and kendall(x, [-value for value in x]) == pytest.approx(-1)
    assert kendall([1.0, 1.0], [1.0, 2.0]) is None


def test_intervals_come_from_the_same_draws_for_all() -> None:
    truth = [float(i * i) for i in range(12)]
    noisy = [float((i * 7) % 12) for i in range(12)]
    rankings = ranked(truth, {"a": noisy, "same": noisy, "exact": truth, "flat": [1.0] * 12}, "a", resamples=100, seed=3)
    assert rankings["same"] == rankings["a"]
    assert rankings["a"].above == 0 and rankings["a"].above_interval == (0, 0) and rankings["a"].better == 0.5
    assert rankings["exact"].spearman == 1 and rankings["exact"].interval == (1, 1) and rankings["exact"].better == 1
    assert rankings["exact"].above == pytest.approx(1 - rankings["a"].spearman)
    assert rankings["flat"].spearman == 0 and rankings["flat"].interval == (0, 0)  # ranks nothing
    low, high = rankings["a"].interval
    assert low < rankings["a"].spearman < high
    again = ranked(truth, {"a": noisy}, "a", resamples=100, seed=3)
    assert again["a"] == rankings["a"]
    assert ranked(truth, {"a": noisy}, "a", resamples=100, seed=4)["a"].interval != rankings["a"].interval


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([2.0, 2.0], resamples=10, seed=0) == (2, 2)
    low, high = mean_interval([0.0, 1.0, 2.0, 3.0], resamples=500, seed=0)
    assert 0 <= low < 1.5 < high <= 3
