"""The simulation holds the runtime's own scheduler to a queue that is counted another way, and to the figures of the issue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.cells.cell import MEASURED, Cell, Result, Round
from benchmarks.load import simulation
from benchmarks.load.book import ANSWERED, FULL, LATE, OUTCOMES
from benchmarks.load.simulation import Times, simulate, times_of
from benchmarks.load.traces import draw
from slimexport.target.serving.policy import Latencies, drain, fixed
from slimexport.target.serving.scheduling import OVERHEAD_MS, SERVE
from slimtrain.base.errors import UserError

ONES = (np.ones(1),)


def times(rows: list[list[float]], batches: tuple[int, ...] = (1,), names: tuple[str, ...] = ()) -> Times:
    table = Latencies(names or tuple(map(str, range(len(rows)))), batches, tuple(map(tuple, rows)))
    return Times(table, table, ONES * len(batches))


def test_one_width_without_a_deadline_is_a_queue_that_is_known() -> None:
    """Lindley's recursion: a request begins when it is there and the one before is done."""
    trace = draw("poisson", 150.0, 5.0, seed=7)
    samples = simulate(trace.times_s, times([[5.0]]), fixed(0), slo_ms=60_000.0)
    free, expected = 0.0, []
    for at in trace.times_s:
        free = max(free, at) + 5e-3
        expected.append(1e3 * (free - at))
        free += simulation.OVERHEAD_MS / 1e3
    assert np.allclose(samples.latency_ms, expected) and (samples.outcome == OUTCOMES.index(ANSWERED)).all()


def test_a_request_that_cannot_be_met_is_refused_and_the_rest_is_in_time() -> None:
    samples = simulate(np.zeros(10), times([[10.0]]), fixed(0), slo_ms=35.0)
    fit = int((35.0 - OVERHEAD_MS) // (10.0 + simulation.OVERHEAD_MS))
    assert samples.of(ANSWERED).sum() == fit and samples.of(LATE).sum() == 10 - fit
    assert samples.in_time(35.0).sum() == fit


def test_late_requests_are_served_where_that_is_asked_for() -> None:
    samples = simulate(np.zeros(10), times([[10.0]]), fixed(0), slo_ms=35.0, late=SERVE)
    assert samples.of(ANSWERED).all() and samples.in_time(35.0).sum() == 3


def test_a_full_queue_refuses() -> None:
    samples = simulate(np.zeros(10), times([[10.0]]), fixed(0), slo_ms=60_000.0, queue=4)
    assert samples.of(FULL).sum() == 6 and samples.of(ANSWERED).sum() == 4


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    noisy = replace(times([[1.0], [4.0]]), ratios=(np.array([0.9, 1.0, 1.4]),), stalls_per_s=5.0, stall_ms=3.0)
    trace = draw("bursty", 300.0, 3.0)
    runs = [simulate(trace.times_s, noisy, drain, 50.0, seed).latency_ms for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1], equal_nan=True) and not np.array_equal(runs[0], runs[2], equal_nan=True)


def test_stalls_take_the_time_that_they_are_said_to() -> None:
    calm = times([[10.0]])
    stalled = replace(calm, stalls_per_s=20.0, stall_ms=5.0)
    trace = draw("steady", 10.0, 200.0)
    took = [simulate(trace.times_s, given, fixed(0), 1000.0).computed_ms.mean() for given in (calm, stalled)]
    assert took[0] == pytest.approx(10.0) and took[1] == pytest.approx(10.0 * (1 + 20 * 5e-3), rel=0.05)


def result(width: float, batch: int, samples: list[float], network: str = "us_mobilenet_v1") -> Result:
    cell = Cell(
        "b",
        network,
        f"n{width}",
        f"x{width}",
        width,
        f"{width}x",
        "f",
        "onnxruntime-cpu",
        "fp32",
        batch,
        224,
        int(1e6 * width),
        1,
        1,
    )
    return Result(cell, MEASURED, rounds=(Round({"wall": samples[:2]}), Round({"wall": samples[2:]})))


def measured(results: list[Result], batches: tuple[int, ...] = (1, 4, 8, 16)) -> Times:
    return times_of(results, "us_mobilenet_v1", "onnxruntime-cpu", "fp32", batches)


def test_times_are_medians_and_percentiles_of_samples_and_lines_between_batches() -> None:
    results = [
        result(1.0, 1, [4, 4, 5, 6]),
        result(1.0, 8, [40, 40, 40, 40]),
        result(0.5, 1, [2, 2, 2, 2]),
        result(0.5, 8, [9, 9, 9, 9]),
        result(0.25, 1, [1, 1, 1, 1], network="another"),
    ]
    got = measured(results)
    assert got.medians.widths == ("0.5", "1") and got.medians.batches == (1, 4, 8, 16)
    assert got.medians.ms[0] == pytest.approx((2, 5, 9, 18)) and got.medians.ms[1][:3] == pytest.approx(
        (4.5, 4.5 + 35.5 * 3 / 7, 40)
    )
    assert got.expected.ms[1][0] == pytest.approx(np.quantile([4, 4, 5, 6], 0.95))
    assert sorted(got.ratios[0]) == pytest.approx(sorted([4 / 4.5, 4 / 4.5, 5 / 4.5, 6 / 4.5, 1, 1, 1, 1]))
    assert got.capacity() == pytest.approx(1000 / 4.5) and got.capacity(0) == pytest.approx(1000 * 8 / 9)
    assert got.of(["1"]).medians.widths == ("1",)


def test_times_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="no results of us_mobilenet_v1"):
        measured([])
    with pytest.raises(UserError, match="different batches"):
        measured([result(1.0, 1, [1, 1, 1]), result(0.5, 8, [1, 1, 1])])
    with pytest.raises(UserError, match=r"width 0.7: has no times. There are 1"):
        measured([result(1.0, 1, [1, 1, 1])]).of(["0.7"])
