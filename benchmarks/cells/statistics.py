"""What raw samples say: pure functions from results to figures and warnings.

The warnings are those of NVIDIA's trtexec (host-bound, unstable clocks, too few iterations) and of torch.utils.benchmark (the
spread), with its limits, and what the machine's state adds: throttling and the load of other processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Result, Round, median
from benchmarks.cells.shares import TOP1, key_of, share_of
from slimtrain.base.text import count

HOST_BOUND = 0.8  # the host's time to queue an iteration over the GPU's time to compute it
UNSTABLE_CLOCKS = 0.025  # coefficient of variation of the GPU's times
WIDE_SPREAD = 0.1
FEW_ITERATIONS = 10
OTHER_LOAD = 0.2  # cores that other processes keep busy


@dataclass(frozen=True)
class Summary:
    """The figures of a result, over the samples of all its rounds; `*_ms` are of `Result.latency_kind`.

    Percentiles interpolate linearly between the two nearest samples (numpy's default). `spread`: highest less lowest median
    of a round, over the median of all samples; 0 for one round. `interval_ms`: those two medians, which is what comparisons
    go by. `iqr_ms`: the interquartile range. `wall_median_ms` is by the host's clock. `host_bound`: the median time to queue
    over the median time to compute; None where the backend has no queue. `upload_ms` and `download_ms`: medians, or None.
    """

    median_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    iqr_ms: float
    spread: float
    interval_ms: tuple[float, float]
    images_per_s: float
    iterations: int
    rounds: int
    wall_median_ms: float
    host_bound: float | None = None
    upload_ms: float | None = None
    download_ms: float | None = None


def summary(result: Result) -> Summary | None:
    """The figures of a result; None for one without samples."""
    rounds = [samples for samples in result.latency_ms if samples]
    if not rounds:
        return None
    samples = np.concatenate([np.asarray(of_round, np.float64) for of_round in rounds])
    middle = float(np.median(samples))
    low, high = min(map(median, rounds)), max(map(median, rounds))
    first, third, p90, p95, p99 = (float(value) for value in np.percentile(samples, (25, 75, 90, 95, 99)))
    medians = {kind: _median_of(result.rounds, kind) for kind in ("wall", "enqueue", "upload", "download")}
    return Summary(
        median_ms=middle,
        mean_ms=float(samples.mean()),
        min_ms=float(samples.min()),
        max_ms=float(samples.max()),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        iqr_ms=third - first,
        spread=(high - low) / middle,
        interval_ms=(low, high),
        images_per_s=result.cell.batch / (1e-3 * middle),
        iterations=len(samples),
        rounds=len(rounds),
        wall_median_ms=middle if medians["wall"] is None else medians["wall"],
        host_bound=None if medians["enqueue"] is None else medians["enqueue"] / middle,
        upload_ms=medians["upload"],
        download_ms=medians["download"],
    )


def _median_of(rounds: Sequence[Round], kind: str) -> float | None:
    samples = [value for round_ in rounds for value in round_.samples_ms.get(kind, ())]
    return median(samples) if samples else None


def warnings(result: Result) -> tuple[str, ...]:
    """Why a result may not be what it seems, and what to do about it; nothing for one without samples."""
    figures = summary(result)
    if figures is None:
        return ()
    said = []
    if figures.host_bound is not None and figures.host_bound > HOST_BOUND:
        said.append(
            f"host-bound: queueing an iteration takes {figures.host_bound:.2f} of the GPU's time for it (limit {HOST_BOUND}), "
            "so the GPU may wait for the host. Use CUDA graphs or a larger batch, or take it as the latency of this host."
        )
    if result.latency_kind == "device":
        variation = _variation(np.concatenate([np.asarray(samples, np.float64) for samples in result.latency_ms]))
        if variation > UNSTABLE_CLOCKS:
            said.append(
                f"clocks unstable: the GPU's times vary by {variation:.1%} (limit {UNSTABLE_CLOCKS:.1%}). Let the GPU cool, "
                "keep others off it, or measure longer; lock its clocks yourself if you may."
            )
    if figures.spread > WIDE_SPREAD:
        said.append(
            f"noisy: the medians of its rounds spread over {figures.spread:.0%} (limit {WIDE_SPREAD:.0%}). Measure on a "
            "quieter machine, longer, or in more rounds."
        )
    if figures.iterations < FEW_ITERATIONS:
        said.append(
            f"only {count(figures.iterations, 'iteration')}: its percentiles say little. Measure longer (at least "
            f"{FEW_ITERATIONS})."
        )
    return (*said, *_state_warnings(result.rounds))


def _state_warnings(rounds: Sequence[Round]) -> list[str]:
    """What the machine did during the rounds: `throttle`, reasons, and `other_load`, in cores."""
    said = []
    reasons = list(dict.fromkeys(str(reason) for round_ in rounds for reason in round_.state.get("throttle") or ()))
    if reasons:
        said.append(
            f"throttled ({', '.join(reasons)}): the machine ran slower than it can. Improve its cooling or power or let it "
            "rest, and measure again; or take it as what this machine sustains."
        )
    load = max((float(round_.state.get("other_load") or 0) for round_ in rounds), default=0.0)
    if load > OTHER_LOAD:
        said.append(f"other processes kept {load:.1f} cores busy (limit {OTHER_LOAD}). Stop them and measure again.")
    return said


def _variation(samples: Array) -> float:
    """Standard deviation over mean."""
    return float(samples.std() / samples.mean())


def standard_error(accuracy: Mapping[str, Any] | None) -> float:
    """Of an accuracy, as a share: what its number of images leaves open; 0 where that number is not known, and of an average
    precision, which is no share of images."""
    if not accuracy or not accuracy.get("images") or key_of(accuracy) != TOP1:
        return 0.0
    top1 = share_of(accuracy)
    return sqrt(top1 * (1 - top1) / accuracy["images"])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two sequences of one length, from -1 to 1; equal values share their mean rank. None
    where either has fewer than two distinct values: then nothing is ranked."""
    if not len(x):
        return None
    a, b = (ranks - ranks.mean() for ranks in (_ranks(x), _ranks(y)))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / size, -1, 1)) if size else None


def _ranks(values: Sequence[float]) -> Array:
    """Ranks from 1, the mean rank where values are equal."""
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places.reshape(-1)]


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other beats, by rising cost: none is at most as costly and at least as
    valuable, and better in one of both. Of equal points the first stands for all."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1], at)):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two closed intervals (low, high) share a point."""
    return first[0] <= second[1] and second[0] <= first[1]
