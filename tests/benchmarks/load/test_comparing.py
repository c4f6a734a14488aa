"""Policies get the same times, in an order that turns with every round."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cells.cell import Array
from benchmarks.load.book import Book, Samples
from benchmarks.load.comparing import compare, order
from benchmarks.load.figures import WidthFacts
from benchmarks.load.traces import draw


def test_rounds_go_forth_and_back() -> None:
    assert [order("abc", number) for number in range(3)] == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_every_policy_has_the_same_trace_and_all_its_rounds() -> None:
    trace = draw("poisson", 20.0, 2.0)
    calls: list[str] = []
    rounds: list[tuple[str, int, int]] = []

    def play(policy: str, times_s: Array) -> Samples:
        assert times_s is trace.times_s
        calls.append(policy)
        book = Book(times_s)
        for number in range(len(times_s)):
            book.answered(number, 10.0 if policy == "a" or len(calls) > 2 else 99.0, "1", 1, 0.0, 10.0)
        return book.samples()

    runs = compare(
        play,
        ["a", "b"],
        trace,
        50.0,
        lambda: [WidthFacts("1", 1.0, 0.7)],
        2,
        lambda *of: rounds.append((of[0], of[1], len(of[2]))),
    )
    assert calls == ["a", "b", "b", "a"]
    assert rounds == [("a", 0, len(trace)), ("b", 0, len(trace)), ("b", 1, len(trace)), ("a", 1, len(trace))]
    assert [run.policy for run in runs] == ["a", "b"]
    assert runs[0].figures.attainments == (1.0, 1.0) and runs[1].figures.attainments == (0.0, 1.0)
    assert runs[1].figures.attainment == pytest.approx(0.5) and runs[1].figures.goodput == pytest.approx(len(trace) / 2 / 2.0)
    assert len(runs[1].whole) == 2 * len(trace) and np.isfinite(runs[1].whole.latency_ms).all()
