"""The published networks' script."""

from __future__ import annotations

from benchmarks.cells.records import Recorded
from benchmarks.studies.networks import middle, table


def test_smallest_middle_and_largest_switch() -> None:
    assert middle([0.25, 0.5, 0.75, 1.0]) == [0.25, 0.75, 1.0]
    assert middle((3, 1, 2)) == [1, 2, 3]


def test_no_results_make_an_empty_table() -> None:
    assert table(Recorded({"ceilings": {}}, ())) == ""
