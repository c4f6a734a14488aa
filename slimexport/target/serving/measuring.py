"""What runs take on this machine: measured at the start, in turns, within a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from slimexport.target.serving.policy import Latencies

if TYPE_CHECKING:  # a Triton repository gets a copy of this file, which stands alone
    from slimexport.target.arrays import Array

PERCENTILE = 0.95
WITHIN_S = 8.0  # of the ten that a start may take: files are loaded in the rest
MOST_RUNS = 40
LEAST_RUNS = 3
BATCHES = (1, 2, 4, 8, 16, 32)

Compute: TypeAlias = "Callable[[Array], object]"


def images_of(shape: Sequence[int], count: int) -> Array:
    """Noise: some networks are faster on zeros."""
    return np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)


def time_run(compute: Compute, images: Array) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    compute(images)
    return 1e3 * (time.perf_counter() - began)


def measure(
    widths: Sequence[tuple[str, Compute]],
    shape: Sequence[int],
    batches: Sequence[int],
    slo_ms: float,
    within_s: float = WITHIN_S,
) -> Latencies:
    """The latencies of `widths`, each with what runs it, from the narrowest to the widest, at `batches` of inputs of `shape`.

    Batches that even the quickest width does not run within `slo_ms` are left out. Of a width, those beyond the first that takes
    longer are not run, but taken to cost as much an image as that one: no policy chooses them. Widths take turns, so that a
    disturbance hits all of them; rounds end after `within_s` seconds. What is given is the 95th percentile, of few runs the
    longest.
    """
    began = time.perf_counter()
    most = images_of(shape, batches[-1])
    samples: list[dict[int, list[float]]] = [{} for _ in widths]
    for (_, compute), of_width in zip(widths, samples, strict=True):
        for batch in batches:
            compute(most[:batch])  # the first of a shape plans its memory
            of_width[batch] = [time_run(compute, most[:batch])]
            if of_width[batch][0] > slo_ms:
                break
    for number in range(1, MOST_RUNS):
        if number >= LEAST_RUNS and time.perf_counter() - began > within_s:
            break
        for (_, compute), of_width in zip(widths, samples, strict=True):
            for batch, times in of_width.items():
                if len(times) >= LEAST_RUNS and time.perf_counter() - began > within_s:
                    continue
                times.append(time_run(compute, most[:batch]))
    rows = [{batch: percentile(times) for batch, times in of_width.items()} for of_width in samples]
    return table([name for name, _ in widths], rows, batches, slo_ms)


def percentile(samples: Sequence[float], share: float = PERCENTILE) -> float:
    """The smallest sample that at least `share` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(names: Sequence[str], rows: Sequence[dict[int, float]], batches: Sequence[int], slo_ms: float) -> Latencies:
    """Latencies of all `batches` that some width runs within `slo_ms`, of the first one in any case, from those that are known
    of each width; a larger batch costs as much an image as the largest that is known, and no run takes less than one of fewer
    images."""
    whole = []
    for row in rows:
        largest = max(row)
        known = [row.get(batch, row[largest] * batch / largest) for batch in batches]
        whole.append(tuple(np.maximum.accumulate(known).tolist()))
    use = [index for index in range(len(batches)) if index == 0 or min(row[index] for row in whole) <= slo_ms]
    return Latencies(
        tuple(names), tuple(batches[index] for index in use), tuple(tuple(row[index] for index in use) for row in whole)
    )
