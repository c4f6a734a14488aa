"""Measuring on a made-up machine: turns, durations, drift, and what a round keeps."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import MEASURED
from benchmarks.cells.statistics import summary
from benchmarks.measure.turns import Method, expected_seconds
from slimtrain.base.errors import UserError
from tests.support.bench_helpers import Behaviour, FakeClock, Machine, cell

ONE_ITERATION = Method(duration_s=1e-9, repeats=2, warmup_s=0, least_iterations=1)
EIGHTH = 0.125  # seconds that binary fractions add up to exactly


def cells(*names: str, **changes: Any) -> list[Any]:
    return [cell(name, **changes) for name in names]


def test_rounds_go_forth_and_back() -> None:
    machine = Machine()
    machine.measure(cells("a", "b", "c"), ONE_ITERATION)
    assert [entry[1] for entry in machine.log if entry[0] == "run"] == ["a", "b", "c", "c", "b", "a"]


def test_the_middle_one_of_an_odd_number_of_rounds_is_taken_in_two_halves() -> None:
    machine = Machine()
    machine.networks = {name: Behaviour(takes=EIGHTH) for name in "ab"}
    results = machine.measure(cells("a", "b"), Method(duration_s=6, repeats=3, warmup_s=0.25, least_iterations=1))
    # A full turn: 2 of warm-up and 16 in 2 s; half a turn: 2 and 8. Neighbouring turns of one network show as one visit.
    assert machine.visits() == [("a", 18), ("b", 18 + 10), ("a", 10 + 10), ("b", 10 + 18), ("a", 18)]
    for result in results:
        assert [len(samples) for samples in result.latency_ms] == [16, 16, 16]


def test_warm_ups_and_durations_are_exact() -> None:
    machine = Machine()
    machine.networks["a"] = Behaviour(takes=EIGHTH)
    (result,) = machine.measure(cells("a"), Method(duration_s=4, repeats=2, warmup_s=0.5, least_iterations=10))
    assert [len(samples) for samples in result.latency_ms] == [16, 16]
    assert machine.clock.now == 2 * (0.5 + 2)
    assert result.latency_ms[0] == [1e3 * EIGHTH] * 16
    assert (result.status, result.reason, result.settings) == (MEASURED, "", {"threads": 1})


def test_slow_networks_get_their_iterations_and_fast_ones_their_time() -> None:
    machine = Machine()
    machine.networks = {"slow": Behaviour(takes=4.0), "fast": Behaviour(takes=EIGHTH)}
    slow, fast = machine.measure(cells("slow", "fast"), Method(duration_s=3, repeats=2, warmup_s=0, least_iterations=7))
    assert [len(samples) for samples in slow.latency_ms] == [4, 4]  # 7 / 2, rounded up
    assert [len(samples) for samples in fast.latency_ms] == [12, 12]


def test_inputs_rotate_across_warm_ups_and_rounds() -> None:
    machine = Machine()
    machine.networks["a"] = Behaviour(takes=EIGHTH)
    machine.measure(cells("a", "b"), Method(duration_s=1, repeats=2, warmup_s=0.25, least_iterations=1))
    indices = [entry[2] for entry in machine.log if entry[:2] == ("run", "a")]
    assert indices == list(range(2 * (2 + 4)))


def _drifting(names: str, seed: int, **method: Any) -> dict[str, float]:
    """Median per network on a machine that becomes slower all the time, with some noise: all networks are the same."""
    machine, noise = Machine(), np.random.default_rng(seed)

    def takes(now: float) -> float:
        return float(0.01 * (1 + now / 300) * (1 + 0.05 * noise.standard_normal()))

    machine.networks = {name: Behaviour(takes=takes) for name in names}
    grouped = [cell(name, batch=1 + place * method["apart"]) for place, name in enumerate(names)]
    rounds = Method(duration_s=12, repeats=method["repeats"], warmup_s=0.1, least_iterations=1)
    results = machine.measure(grouped, rounds)
    return {result.cell.name: figures.median_ms for result in results if (figures := summary(result))}


@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 5])
def test_a_linear_drift_hits_all_alike(repeats: int) -> None:
    """Over the 48 s the machine becomes 16 % slower; one after the other, the last network would look 12 % slower."""
    together = np.array(list(_drifting("abcd", 0, repeats=repeats, apart=0).values()))
    assert together.max() / together.min() < 1.015
    assert together.mean() == pytest.approx(10 * (1 + 24 / 300), rel=0.01)


def test_one_after_the_other_a_drift_looks_like_a_difference() -> None:
    apart = list(_drifting("abcd", 0, repeats=3, apart=1).values())
    assert apart == sorted(apart)
    assert apart[-1] / apart[0] > 1.1


def test_a_drift_without_noise_shifts_all_means_alike() -> None:
    machine = Machine()
    names = "abcde"
    machine.networks = {name: Behaviour(takes=lambda now: 0.01 * (1 + now / 1000)) for name in names}
    method = Method(duration_s=1e-9, repeats=3, warmup_s=0, least_iterations=60)
    means = [figures.mean_ms for result in machine.measure(cells(*names), method) if (figures := summary(result))]
    assert max(means) / min(means) - 1 < 1e-6
    assert machine.clock.now > 3  # over which the machine became 0.3 % slower


class Recorder:
    """A sampler that tells the machine's time."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.began = clock, math.nan
        self.pairs: list[tuple[float, float]] = []

    def start(self) -> None:
        self.began = self.clock()

    def stop(self) -> Mapping[str, Any]:
        self.pairs.append((self.began, self.clock()))
        return {"other_load": self.began, "throttle": ["hot"] if len(self.pairs) == 1 else []}


def test_the_sampler_sees_the_rounds_without_their_warm_ups() -> None:
    machine = Machine()
    machine.networks["a"] = Behaviour(takes=EIGHTH)
    sampler = Recorder(machine.clock)
    method = Method(duration_s=1, repeats=2, warmup_s=0.25, least_iterations=1)
    (result,) = machine.measure(cells("a"), method, watcher=sampler)
    assert sampler.pairs == [(0.25, 0.75), (1.0, 1.5)]
    assert [round_.state["other_load"] for round_ in result.rounds] == [0.25, 1.0]
    assert any("throttled (hot)" in warning for warning in result.warnings)
    assert any("other processes kept 1.0 cores busy" in warning for warning in result.warnings)


def test_the_halves_of_a_round_are_one_round() -> None:
    machine = Machine()
    machine.networks = {name: Behaviour(takes=EIGHTH) for name in "ab"}
    method = Method(duration_s=6, repeats=3, warmup_s=0, least_iterations=1)
    first, _ = machine.measure(cells("a", "b"), method, watcher=Recorder(machine.clock))
    assert [round_.state["other_load"] for round_ in first.rounds] == [0, (5 + 6) / 2, 10]  # when its turns begin


def test_progress_counts_rounds() -> None:
    machine, progressed = Machine(), []
    machine.networks["bad"] = Behaviour(at_run={0: _NotToday("no")})

    def progress(doing: str, done: float, total: float) -> None:
        progressed.append((doing.split(" (", maxsplit=1)[0], done, total))

    machine.measure(cells("a", "bad"), ONE_ITERATION, progress=progress)
    assert progressed == [
        *[("opening a", 0, 4), ("opening bad", 0, 4)],
        *[("round 1 of 2: a", 0, 4), ("round 1 of 2: bad", 1, 4), ("round 2 of 2: a", 3, 4), ("done", 4, 4)],
    ]


class _NotToday(UserError):
    exit_code = 3


def test_the_garbage_collector_rests_during_a_round_only() -> None:
    machine, seen = Machine(), []

    def takes(now: float) -> float:
        seen.append(gc.isenabled())
        return EIGHTH

    machine.networks["a"] = Behaviour(takes=takes)
    machine.measure(cells("a"), Method(duration_s=0.25, repeats=1, warmup_s=0.25, least_iterations=1))
    assert seen == [True, True, False, False]
    assert gc.isenabled()


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_the_expected_time_is_what_fast_networks_take(repeats: int) -> None:
    machine = Machine()
    measured = [*cells("a", "b", batch=1), *cells("a", "b", "c", batch=8), *cells("a", batch=32)]
    machine.networks = {name: Behaviour(takes=2**-9) for name in "abc"}
    method = Method(duration_s=0.75, repeats=repeats, warmup_s=0.125, least_iterations=1)
    machine.measure(measured, method)
    assert machine.clock.now == expected_seconds(measured, method)
