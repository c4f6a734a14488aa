"""How many images a second a width computes on this machine, as it is measured through the runtime that serves it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np

from benchmarks.cells.cell import Array
from slimexport.target.serving.policy import FIXED
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError

RUNS, LEAST_RUNS = 30, 5
WITHIN_S = 5.0  # for all batches
DEADLINE_MS = 60_000.0


def median_times(runtime: Runtime, label: str, image: Array, within_s: float = WITHIN_S) -> Mapping[int, float]:
    """The median milliseconds of a run of an open width, by batch, of those that the runtime uses: the network's own time, as
    its answers tell it. Nothing else may be submitted meanwhile. The runtime's policy is what it was afterwards."""
    before, batches = runtime.policy, runtime.latencies.batches
    runtime.policy = f"{FIXED}:{label}"
    try:
        return {batch: _median(runtime, np.stack([image] * batch), within_s / len(batches)) for batch in batches}
    finally:
        runtime.policy = before


def _median(runtime: Runtime, images: Array, within_s: float) -> float:
    times: list[float] = []
    while len(times) < LEAST_RUNS or (len(times) < RUNS and sum(times) < 1e3 * within_s):
        times.append(runtime.submit(images, DEADLINE_MS).result().computed_ms)
    return statistics.median(times[1:])  # the first of a shape plans its memory


def capacity_of(times: Mapping[int, float]) -> float:
    """Images per second at the batch that gives most of them. UserError where nothing was measured."""
    if not times or min(times.values()) <= 0:
        raise UserError("the widest network could not be measured. Give --rate, in requests per second, in place of --load.")
    return max(1e3 * batch / ms for batch, ms in times.items())
