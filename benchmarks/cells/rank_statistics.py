"""How well one list of figures ranks what another one ranks: Kendall's correlation, and intervals. No torch.

Spearman's correlation is `benchmarks.cells.statistics.rank_correlation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cells.statistics import rank_correlation

PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Ranked:
    """How well figures rank the truth: Spearman's and Kendall's correlation, the former with its 95 % interval; and how far
    Spearman's is above that of the figures compared with, `better` the share of resamples in which it is (ties half)."""

    spearman: float
    interval: tuple[float, float]
    kendall: float
    above: float
    above_interval: tuple[float, float]
    better: float


def kendall(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's tau-b of two sequences of one length, from -1 to 1. None where either has fewer than two distinct values."""
    a, b = (np.sign(np.subtract.outer(values, values)) for values in (np.asarray(x, float), np.asarray(y, float)))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else None


def ranked(
    truth: Sequence[float], measured: Mapping[str, Sequence[float]], base: str, *, resamples: int, seed: int
) -> dict[str, Ranked]:
    """How well each of `measured` ranks `truth`, compared with `measured[base]`.

    Intervals are percentiles over `resamples` draws of the same items with replacement, the same draws for all, so that
    differences are paired. Figures that rank nothing count as correlation 0.
    """
    values = {name: np.asarray(figures, float) for name, figures in measured.items()}
    right, count = np.asarray(truth, float), len(truth)
    draw = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        picked = draw.integers(0, count, count)
        for name, figures in values.items():
            drawn[name].append(rank_correlation(list(figures[picked]), list(right[picked])) or 0.0)
    samples = {name: np.asarray(figures) for name, figures in drawn.items()}
    whole = {name: rank_correlation(list(figures), list(right)) or 0.0 for name, figures in values.items()}
    return {
        name: Ranked(
            whole[name],
            interval(samples[name]),
            kendall(list(figures), list(right)) or 0.0,
            whole[name] - whole[base],
            interval(samples[name] - samples[base]),
            float((samples[name] > samples[base]).mean() + (samples[name] == samples[base]).mean() / 2),
        )
        for name, figures in values.items()
    }


def interval(values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile."""
    low, high = np.percentile(np.asarray(values, float), PERCENTILES)
    return float(low), float(high)


def mean_interval(values: Sequence[float], *, resamples: int, seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean, over draws with replacement."""
    data = np.asarray(values, float)
    return interval(data[np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))].mean(1))
