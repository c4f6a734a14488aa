"""Sessions of their own for batches of every size."""

from __future__ import annotations

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.serving.by_size import BySize


class Planner:
    """What onnxruntime's convolutions do on a GPU: they plan again whenever the shape is not the last one."""

    backend = "onnxruntime-cuda"

    def __init__(self) -> None:
        self.last, self.plans, self.closed = 0, 0, 0

    def __call__(self, images: Array) -> Array:
        self.plans += len(images) != self.last
        self.last = len(images)
        return images * 2

    def close(self) -> None:
        self.closed += 1


def with_planners() -> tuple[BySize, list[Planner]]:
    """A file, and the planners that it opens."""
    planners: list[Planner] = []

    def open_one() -> Planner:
        planners.append(Planner())
        return planners[-1]

    return BySize(open_one), planners


def test_a_change_of_batch_plans_nothing_anew() -> None:
    runner, planners = with_planners()
    assert runner.backend == "onnxruntime-cuda" and len(planners) == 1, "what does not load is told at once"
    for count in (1, 4, 1, 8, 4, 1, 8):
        np.testing.assert_array_equal(runner(np.full((count, 3), 1.5, np.float32)), np.full((count, 3), 3.0))
    assert [planner.plans for planner in planners] == [1, 1, 1], "one session a size, the first of which was open"
    runner.close()
    assert [planner.closed for planner in planners] == [1, 1, 1]


def test_what_never_ran_is_closed_too() -> None:
    planner = Planner()
    BySize(lambda: planner).close()
    assert planner.closed == 1


def test_a_session_that_does_not_open_leaves_the_others() -> None:
    planners = [Planner()]

    def open_one() -> Planner:
        if planners[0].last:
            raise MemoryError("no room for another")
        return planners[0]

    runner = BySize(open_one)
    runner(np.ones((1, 3), np.float32))
    with pytest.raises(MemoryError, match="no room"):
        runner(np.ones((2, 3), np.float32))
    assert len(runner(np.ones((1, 3), np.float32))) == 1


def test_sizes_that_no_run_will_be_of_keep_no_memory() -> None:
    runner, planners = with_planners()
    for count in (1, 2, 4):
        runner(np.ones((count, 3), np.float32))
    runner.keep([1, 4])
    assert [planner.closed for planner in planners] == [0, 1, 0]
    assert len(runner(np.ones((4, 3), np.float32))) == 4 and len(planners) == 3
