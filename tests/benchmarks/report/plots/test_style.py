"""Marks, ticks and names of devices."""

from __future__ import annotations

from itertools import combinations

import pytest

from benchmarks.report.plots.style import COLOURS, MARKERS, device_name, mark, plain_ticks
from tests.support.bench_colours import luminance


def test_series_are_told_apart_without_colour() -> None:
    marks = [mark(index) for index in range(32)]
    assert len({(look["marker"], look["linestyle"]) for look in marks}) == 32
    assert len({look["marker"] for look in marks[:8]}) == len(MARKERS) == 8
    shades = [luminance(colour) for colour in COLOURS[:3]]  # --batches 1,8,32
    assert min(abs(one - other) for one, other in combinations(shades, 2)) > 0.1
    assert all(luminance(colour) < 0.7 for colour in COLOURS), "too pale on white"


@pytest.mark.parametrize(("low", "high", "ticks"), [(3, 40, [2, 5, 10, 20, 50]), (0.9, 1.1, [0.5, 1, 2]), (10, 10, [10])])
def test_plain_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert plain_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel Xeon"),
        ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763 64-Core"),
        ("NVIDIA H200", "NVIDIA H200"),
    ],
)
def test_device_names(name: str, shown: str) -> None:
    assert device_name(name) == shown
