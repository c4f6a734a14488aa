"""Measuring with a clock that only runs move: what is run, when it ends, what becomes of it."""

from __future__ import annotations

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.serving.measuring import (
    MOST_RUNS,
    covers,
    farthest,
    latencies_of,
    measure,
    percentile,
    sample,
    spread_sizes,
    table,
    time_run,
)

SHAPE = (3, 2, 2)
BATCHES = (1, 2, 4, 8)


class Machine:
    """A clock, and networks that take `ms_per_image` after `ms` of it, times the next of `noise`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.runs: list[tuple[str, int]] = []

    def clock(self) -> float:
        return self.now_s

    def network(self, name: str, ms: float, ms_per_image: float, noise: list[float] | None = None) -> tuple[str, Network]:
        return name, Network(self, name, ms, ms_per_image, noise or [])


class Network:
    def __init__(self, machine: Machine, name: str, ms: float, ms_per_image: float, noise: list[float]) -> None:
        self.machine, self.name, self.ms, self.ms_per_image, self.noise = machine, name, ms, ms_per_image, noise

    def __call__(self, images: Array) -> None:
        assert images.shape[1:] == SHAPE and images.dtype == np.float32 and np.abs(images).min() > 0, "noise, no zeros"
        self.machine.runs.append((self.name, len(images)))
        self.machine.now_s += (self.noise.pop() if self.noise else 1.0) * (self.ms + self.ms_per_image * len(images)) / 1e3


class Beginner(Network):
    """The first two runs of every size take so many milliseconds more."""

    def __init__(self, machine: Machine, first_ms: float, second_ms: float) -> None:
        super().__init__(machine, "", 0.5, 0.1, [])
        self.more_ms = {batch: [second_ms, first_ms] for batch in (1, 2, 4, 8, 16, 32)}

    def __call__(self, images: Array) -> None:
        super().__call__(images)
        if more := self.more_ms[len(images)]:
            self.machine.now_s += more.pop() / 1e3


class Changing(Network):
    """A run of another size than the one before takes 100 ms more."""

    last = 0

    def __call__(self, images: Array) -> None:
        super().__call__(images)
        if len(images) != self.last:
            self.machine.now_s += 0.1
        self.last = len(images)


def test_a_run_is_timed_by_the_clock() -> None:
    machine = Machine()
    _, network = machine.network("a", 1.5, 0.5)
    assert time_run(network, np.ones((3, *SHAPE), np.float32), machine.clock) == pytest.approx(3.0)


def test_widths_take_turns_at_all_batches() -> None:
    machine = Machine()
    widths = [machine.network("0.5", 1, 1), machine.network("1", 2, 2)]
    samples = sample(widths, SHAPE, BATCHES, slo_ms=50, within_s=1000, clock=machine.clock)
    assert {name: list(row) for name, row in samples.items()} == {"0.5": [1, 2, 4, 8], "1": [1, 2, 4, 8]}
    assert {len(times) for row in samples.values() for times in row.values()} == {MOST_RUNS}
    assert samples["1"][4] == pytest.approx([10.0] * MOST_RUNS)
    turn = [(name, batch) for name in ("0.5", "1") for batch in BATCHES]
    assert machine.runs[-len(turn) :] == turn
    first = [run for run in machine.runs if run[1] == 1][:6]
    assert first == [("0.5", 1)] * 3 + [("1", 1)] * 3, "the first two runs of a batch are not counted"


@pytest.mark.parametrize(("first", "second"), [(300.0, 300.0), (1.0, 300.0), (300.0, 1.0)])
def test_the_first_two_runs_of_a_size_may_take_long(first: float, second: float) -> None:
    """Kernels are loaded, memory is planned: neither the table nor what is measured at all follows from it."""
    machine = Machine()
    beginners = [Beginner(machine, first, second) for _ in range(2)]
    for number, beginner in enumerate(beginners):
        beginner.ms_per_image = 0.1 * (number + 1)
    widths = [("0.5", beginners[0]), ("1", beginners[1])]
    samples = sample(widths, SHAPE, (*BATCHES, 16, 32), slo_ms=50, within_s=30, clock=machine.clock)
    assert {name: list(row) for name, row in samples.items()} == {name: [1, 2, 4, 8, 16, 32] for name, _ in widths}
    latencies = latencies_of(["0.5", "1"], samples, (*BATCHES, 16, 32), 50)
    expected = [[0.5 + 0.1 * (number + 1) * batch for batch in (*BATCHES, 16, 32)] for number in range(2)]
    np.testing.assert_allclose(latencies.ms, expected, rtol=1e-9)


def test_what_first_runs_take_counts_against_the_time() -> None:
    """On a GPU a session is loaded for every size: sizes are left out before it is too late, and known ones measured."""
    machine = Machine()
    widths = [(name, Beginner(machine, 1000.0, 1.0)) for name in ("0.5", "1")]
    samples = sample(widths, SHAPE, (*BATCHES, 16, 32), slo_ms=50, within_s=5, clock=machine.clock)
    assert machine.now_s - 100 <= 5
    assert {name: list(row) for name, row in samples.items()} == {"0.5": [1, 2], "1": [1, 2]}
    assert {len(times) for row in samples.values() for times in row.values()} == {MOST_RUNS}


EVERY = (*BATCHES, 16, 32)


@pytest.mark.parametrize(
    ("within_s", "sizes"), [(3.0, [1]), (6.5, [1, 32]), (9.0, [1, 8, 32]), (11.0, [1, 4, 8, 32]), (40.0, list(EVERY))]
)
def test_where_there_is_no_time_for_all_sizes_it_is_those_that_serve_most(within_s: float, sizes: list[int]) -> None:
    """What waits is filled up to the next size, so the largest comes first; a cold start of the first width tells nothing of
    the others. On an H200 one, two were all that there was time for, where they were taken in order."""
    machine = Machine()
    cold = Beginner(machine, 2400.0, 1.0)
    cold.more_ms |= {batch: [1.0, 500.0] for batch in EVERY[1:]}
    widths = [("0.25", cold), *((name, Beginner(machine, 500.0, 1.0)) for name in ("0.5", "0.75", "1"))]
    samples = sample(widths, SHAPE, EVERY, slo_ms=50, within_s=within_s, clock=machine.clock, some=True)
    assert {name: list(row) for name, row in samples.items()} == {name: sizes for name, _ in widths}
    assert machine.now_s - 100 <= max(within_s, 4.2)


def test_sizes_that_no_deadline_leaves_room_for_are_not_prepared() -> None:
    machine = Machine()
    beginners = [Beginner(machine, 500.0, 1.0) for _ in range(2)]
    for beginner in beginners:
        beginner.ms_per_image = 5.0
    widths = [("0.5", beginners[0]), ("1", beginners[1])]
    samples = sample(widths, SHAPE, EVERY, slo_ms=10, within_s=2.6, clock=machine.clock, some=True)
    assert list(samples["1"]) == [1, 4], "an image takes 5.5 ms, and in a batch a quarter of it at the least"


def test_sizes_that_are_chosen_lie_evenly_apart() -> None:
    assert [spread_sizes(EVERY[1:], count) for count in range(6)] == [
        [], [32], [8, 32], [4, 8, 32], [2, 8, 16, 32], [2, 4, 8, 16, 32]
    ]  # fmt: skip


def test_what_changes_of_batch_cost_is_no_difference_from_what_was_measured() -> None:
    """Batches take turns when what is known is checked, as they did when it was measured."""
    machine = Machine()
    changing = Changing(machine, "1", 1.0, 1.0, [])
    samples = sample([("1", changing)], SHAPE, BATCHES, slo_ms=500, within_s=1000, clock=machine.clock)
    assert percentile(samples["1"][4], 0.5) == pytest.approx(105.0)
    assert farthest([("1", changing)], SHAPE, samples, machine.clock)[1] == pytest.approx(1.0)


def test_batches_beyond_the_deadline_are_run_no_further() -> None:
    """Of the width that takes longer; those that none runs in time are in no table."""
    machine = Machine()
    widths = [machine.network("0.5", 1, 1), machine.network("1", 2, 7), machine.network("2", 60, 10)]
    samples = sample(widths, SHAPE, (*BATCHES, 16, 32), slo_ms=10, within_s=1000, clock=machine.clock)
    assert {name: list(row) for name, row in samples.items()} == {"0.5": [1, 2, 4, 8, 16], "1": [1, 2], "2": [1]}
    latencies = latencies_of(["0.5", "1", "2"], samples, (*BATCHES, 16, 32), 10)
    assert latencies.batches == (1, 2, 4, 8)
    np.testing.assert_allclose(latencies.ms, [[2, 3, 5, 9], [9, 16, 32, 64], [70, 140, 280, 560]], rtol=1e-9)


@pytest.mark.parametrize("within_s", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("slowest_ms", [1.0, 20.0, 400.0])
def test_it_ends_in_time_whatever_networks_take(within_s: float, slowest_ms: float) -> None:
    """As far as one image of every width, twice, leaves it."""
    machine = Machine()
    widths = [machine.network(str(number), 0, slowest_ms * (number + 1) / 3) for number in range(3)]
    least = sum(2 * network.ms_per_image for _, network in widths) / 1e3
    samples = sample(widths, SHAPE, (*BATCHES, 16, 32), slo_ms=1e6, within_s=within_s, clock=machine.clock)
    assert machine.now_s - 100 <= max(within_s, least) * (1 + 1e-9)
    assert all(1 in row for row in samples.values())
    latencies = latencies_of([name for name, _ in widths], samples, (*BATCHES, 16, 32), 1e6)
    for width, (_, network) in enumerate(widths):
        np.testing.assert_allclose(latencies.ms[width], np.array(latencies.batches) * network.ms_per_image, rtol=1e-9)


def test_the_table_holds_the_95th_percentile() -> None:
    machine = Machine()
    noise = [1.0 + number / 100 for number in range(MOST_RUNS + 2)]
    latencies = measure([machine.network("1", 0, 1, list(noise))], SHAPE, [1], 50, clock=machine.clock)
    assert latencies.of(0, 1) == pytest.approx(sorted(noise[:MOST_RUNS])[37]), "38 of 40 are no longer"


@pytest.mark.parametrize(
    ("count", "share", "place"), [(1, 0.95, 1), (20, 0.95, 19), (21, 0.95, 20), (100, 0.95, 95), (5, 0.5, 3)]
)
def test_a_percentile_is_a_sample(count: int, share: float, place: int) -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1.0, count + 1)).tolist()
    assert percentile(samples, share) == place
    assert sum(one <= percentile(samples, share) for one in samples) >= share * count


def test_what_is_not_known_costs_as_much_an_image_and_never_less_than_fewer() -> None:
    latencies = table(["a", "b"], [{1: 2.0, 2: 1.5, 4: 6.0}, {1: 5.0}], [1, 2, 4, 8], 50)
    assert latencies.ms == ((2.0, 2.0, 6.0, 12.0), (5.0, 10.0, 20.0, 40.0))
    assert table(["a"], [{1: 100.0, 2: 150.0}], [1, 2], 50).batches == (1,), "the smallest is there in any case"


def test_what_is_known_covers_a_deadline_or_not() -> None:
    assert covers({1: [1.0], 2: [2.0], 4: [3.0]}, [1, 2, 4], 50)
    assert covers({1: [1.0], 2: [60.0]}, [1, 2, 4], 50)
    assert not covers({1: [1.0], 2: [60.0]}, [1, 2, 4], 100), "a longer deadline would have measured the next"
    assert not covers({}, [1], 50)


def test_the_width_that_is_the_farthest_from_what_it_took_is_told() -> None:
    machine = Machine()
    widths = [machine.network("0.5", 0, 1), machine.network("1", 0, 2)]
    known = {"0.5": {1: [1.0, 1.0, 9.0], 4: [4.0]}, "1": {1: [2.0], 4: [8.0], 8: [16.0]}}
    assert farthest(widths, SHAPE, known, machine.clock)[1] == pytest.approx(1)
    assert set(machine.runs) == {("0.5", 1), ("0.5", 4), ("1", 1), ("1", 4), ("1", 8)}, "all are warm"
    widths[1][1].ms_per_image = 0.5
    widths[0][1].ms_per_image = 2.5
    label, times = farthest(widths, SHAPE, known, machine.clock)
    assert label == "1" and times == pytest.approx(0.25)
