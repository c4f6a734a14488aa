"""What runs take on this machine: measured at the start, in turns, within a few seconds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from slimexport.target.serving.policy import Latencies

if TYPE_CHECKING:  # a Triton repository gets a copy of this file, which stands alone
    from slimexport.target.arrays import Array
    from slimexport.target.timings import Samples

PERCENTILE = 0.95
WITHIN_S = 8.0
MOST_RUNS = 40
CHECKS = 2  # further runs of a batch whose latency is known; of the smallest one more
OFF = 1.5  # times that a run may be faster or slower than what is known
LITTLE = 0.02  # of the time that is left: what takes no more is run once more before it counts
BATCHES = (1, 2, 4, 8, 16, 32)
PREPARING = 0.9  # of the time that is left may go to first runs
CHEAPER = 4.0  # times as much as in a large batch an image may cost alone

Compute: TypeAlias = "Callable[[Array], object]"
Clock = Callable[[], float]  # seconds


def images_of(shape: Sequence[int], count: int) -> Array:
    """Noise: some networks are faster on zeros."""
    return np.random.default_rng(0).standard_normal((count, *shape), dtype=np.float32)


def time_run(compute: Compute, images: Array, clock: Clock = time.perf_counter) -> float:
    """Milliseconds of one run."""
    began = clock()
    compute(images)
    return 1e3 * (clock() - began)


def measure(
    widths: Sequence[tuple[str, Compute]],
    shape: Sequence[int],
    batches: Sequence[int],
    slo_ms: float,
    within_s: float = WITHIN_S,
    clock: Clock = time.perf_counter,
) -> Latencies:
    """The latencies of `widths`, each with what runs it, from the narrowest to the widest, at `batches` of inputs of `shape`:
    what `sample` measures, as `latencies_of` completes it."""
    return latencies_of([name for name, _ in widths], sample(widths, shape, batches, slo_ms, within_s, clock), batches, slo_ms)


def sample(
    widths: Sequence[tuple[str, Compute]],
    shape: Sequence[int],
    batches: Sequence[int],
    slo_ms: float,
    within_s: float = WITHIN_S,
    clock: Clock = time.perf_counter,
    some: bool = False,
) -> Samples:
    """Milliseconds that runs of `widths` at `batches` took, by label and batch.

    Of a width, batches beyond the first that takes longer than `slo_ms` are not run: no policy chooses them. Nor are those
    that would end after `within_s` seconds, were they to cost as much an image as the one before, and as much before their
    first run as the slowest did. Where to prepare for a batch takes so long that there is not the time for all (`some`), it is
    those from the smallest to the largest that every width has the time for. Widths take turns, so that a disturbance hits
    all of them."""
    end = clock() + within_s
    most = images_of(shape, batches[-1])
    samples: list[dict[int, list[float]]] = [{} for _ in widths]
    slow = [False] * len(widths)
    preparing: list[float] = []  # how much longer a first run of a batch took than the next
    before, left = None, list(batches)
    while left:
        batch = left.pop(0)
        first_ms = (percentile(preparing, 0.5) if some else max(preparing)) if preparing else 0.0
        for number, ((_, compute), of_width) in enumerate(zip(widths, samples, strict=True)):
            if before is not None:
                expected_ms = first_ms + 2 * of_width[before][0] * batch / before if before in of_width else 0.0
                slow[number] = slow[number] or before not in of_width or clock() + expected_ms / 1e3 > end
            if not slow[number]:
                # plans its memory, on a GPU also loads a session and what cuDNN computes with
                prepared_ms, ms = (time_run(compute, most[:batch], clock) for _ in range(2))
                preparing.append(max(0.0, prepared_ms - ms))
                first_ms = first_ms if some else max(first_ms, preparing[-1])
                left_s = end - clock()
                if ms / 1e3 <= (left_s if ms > slo_ms else LITTLE * left_s):  # the second may be slow, too, and it decides
                    ms = time_run(compute, most[:batch], clock)
                of_width[batch] = [ms]
                slow[number] = ms > slo_ms
        if some and before is None:
            quickest = min(row[batch][0] for row in samples)
            left = [size for size in left if size * quickest <= CHEAPER * batch * slo_ms]
            of_one_s = len(widths) * percentile(preparing, 0.5) / 1e3
            left = spread_sizes(left, int(PREPARING * (end - clock()) / of_one_s) if of_one_s > 0 else len(left))
        before = batch
    turns = [
        (compute, batch, times) for (_, compute), row in zip(widths, samples, strict=True) for batch, times in row.items()
    ]
    for compute, batch, times in itertools.chain.from_iterable(itertools.repeat(turns, MOST_RUNS - 1)):
        if clock() + times[0] / 1e3 <= end:
            times.append(time_run(compute, most[:batch], clock))
    return {name: row for (name, _), row in zip(widths, samples, strict=True)}


def spread_sizes(sizes: Sequence[int], count: int) -> list[int]:
    """So many of them, the largest first of all, and what is evenly apart: what waits is filled up to the next."""
    if count >= len(sizes):
        return list(sizes)
    places = np.linspace(-1, len(sizes) - 1, max(count, 0) + 1)[1:]
    return [sizes[round(place)] for place in places.tolist()]


def latencies_of(names: Sequence[str], samples: Samples, batches: Sequence[int], slo_ms: float) -> Latencies:
    """The table of policies: the percentile of every width's runs at the `batches` that are of use."""
    return table(names, [{batch: percentile(ms) for batch, ms in samples[name].items()} for name in names], batches, slo_ms)


def percentile(samples: Sequence[float], share: float = PERCENTILE) -> float:
    """The smallest sample that at least `share` of them do not exceed; of few the longest."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(names: Sequence[str], rows: Sequence[Mapping[int, float]], batches: Sequence[int], slo_ms: float) -> Latencies:
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


def covers(row: Mapping[int, Sequence[float]], batches: Sequence[int], slo_ms: float) -> bool:
    """Whether what is known of a width is what `sample` would measure: all batches, or up to one that takes longer."""
    return set(batches) <= set(row) or (bool(row) and percentile(row[max(row)], 0.5) > slo_ms)


def farthest(
    widths: Sequence[tuple[str, Compute]], shape: Sequence[int], samples: Samples, clock: Clock = time.perf_counter
) -> tuple[str, float]:
    """The width whose runs are the farthest from what they usually took, and how many times as long they take: the median over
    its batches of the quickest of a few. Every batch has run once then."""
    most = images_of(shape, max(batch for row in samples.values() for batch in row))
    off: list[tuple[str, float]] = []
    for name, compute in widths:
        known = {batch: percentile(ms, 0.5) for batch, ms in sorted(samples[name].items())}
        for batch in known:
            compute(most[:batch])
        # batches in turn, as they were measured: where a change of batch costs, what is known has it
        rounds = [{batch: time_run(compute, most[:batch], clock) for batch in known} for _ in range(CHECKS)]
        rounds.append({batch: time_run(compute, most[:batch], clock) for batch in [min(known)]})
        ratios = [min(ms[batch] for ms in rounds if batch in ms) / known[batch] for batch in known]
        off.append((name, percentile(ratios, 0.5)))
    return max(off, key=lambda of_width: max(of_width[1], 1 / max(of_width[1], 1e-9)))
