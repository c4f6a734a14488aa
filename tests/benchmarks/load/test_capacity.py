"""The capacity is that of the batch that gives most, at the median."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.load.capacity import LEAST_RUNS, capacity_of, median_times
from slimexport.target.arrays import Array
from slimexport.target.serving.answer import Answer
from slimexport.target.serving.policy import Latencies
from slimexport.target.serving.runtime import Runtime
from slimtrain.base.errors import UserError
from tests.support.load_fakes import answer_of


class Told:
    """A runtime that says it took what a list has."""

    def __init__(self, times_ms: dict[int, list[float]]) -> None:
        self.times_ms = {batch: list(values) for batch, values in times_ms.items()}
        self.latencies = Latencies(("0.5", "1"), tuple(times_ms), ((1.0,) * len(times_ms), (2.0,) * len(times_ms)))
        self.policy = "drain"
        self.policies: set[Any] = set()

    def submit(self, images: Array, deadline_ms: float) -> Future[Answer]:
        self.policies.add(self.policy)
        future: Future[Answer] = Future()
        future.set_result(answer_of("1", computed_ms=self.times_ms[len(images)].pop(0)))
        return future


def test_medians_are_of_every_batch_without_the_first_run_and_the_policy_stays() -> None:
    runtime = Told({1: [99, 4, 5, 6, 5, *[7] * 40], 4: [99, 10, 12, 14, 12, *[1] * 40]})
    times = median_times(cast(Runtime, runtime), "1", np.zeros((3, 2, 2), np.float32), within_s=0.1)
    assert LEAST_RUNS == 5 and times == {1: 5.0, 4: 12.0}
    assert runtime.policies == {"fixed:1"} and runtime.policy == "drain"
    assert capacity_of(times) == pytest.approx(1000 * 4 / 12)


@pytest.mark.parametrize("times", [{}, {1: 0.0}])
def test_nothing_measured_is_refused(times: dict[int, float]) -> None:
    with pytest.raises(UserError, match="Give --rate"):
        capacity_of(times)
