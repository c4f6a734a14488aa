"""In which order cells take turns, how a turn is taken, and what is seen meanwhile."""

from __future__ import annotations

import gc

import pytest

from benchmarks.cells.cell import Timing
from benchmarks.measure.rounds import collection_paused, iterate, join_states, schedule
from tests.support.bench_helpers import FakeClock


@pytest.mark.parametrize("repeats", range(1, 8))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_order_reads_the_same_backwards(count: int, repeats: int) -> None:
    turns = schedule(count, repeats)
    assert [(turn.cell, turn.share) for turn in turns] == [(turn.cell, turn.share) for turn in reversed(turns)]
    for place in range(count):
        for number in range(repeats):
            assert sum(turn.share for turn in turns if (turn.cell, turn.round) == (place, number)) == 1
    assert [turn.round for turn in turns] == sorted(turn.round for turn in turns)


def test_a_single_cell_has_nothing_to_take_turns_with() -> None:
    assert [(turn.round, turn.share) for turn in schedule(1, 3)] == [(0, 1), (1, 1), (2, 1)]


def test_the_states_of_two_halves_are_joined() -> None:
    first = {"throttle": ["hot"], "other_load": 0.5, "sm_clock_mhz": [1000, 1500, 1600], "involuntary_switches": 3, "steal": 0}
    second = {"throttle": ["hot", "quota"], "other_load": 1, "sm_clock_mhz": [900, 1400, 1700], "involuntary_switches": 4}
    joined = join_states({**first, "gpu": {"a": 1}, "x": None}, {**second, "gpu": {"a": 3}, "x": "told"})
    assert joined == {
        "throttle": ["hot", "quota"],
        "other_load": 0.75,
        "sm_clock_mhz": [900, 1450, 1700],
        "involuntary_switches": 7,
        "steal": 0,
        "gpu": {"a": 2},
        "x": "told",
    }


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with pytest.raises(KeyError), collection_paused():
            raise KeyError
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KeyError), collection_paused():
        raise KeyError
    assert gc.isenabled()


@pytest.mark.parametrize(("seconds", "least", "expected"), [(1, 1, 4), (1, 6, 6), (0.9, 4, 4), (0, 1, 1), (0.25, 2, 2)])
def test_iterations_end_when_time_and_count_are_reached(seconds: float, least: int, expected: int) -> None:
    clock = FakeClock()

    def run(index: int) -> Timing:
        clock.advance(0.25)
        return Timing(wall=float(index))

    timings: list[Timing] = []
    iterate(run, 5, timings, seconds, least, clock)
    assert [timing.wall for timing in timings] == list(range(5, 5 + expected))
