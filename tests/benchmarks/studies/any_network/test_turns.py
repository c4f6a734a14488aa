"""Measuring in turn."""

from __future__ import annotations

from benchmarks.studies.any_network.turns import in_turn


def test_sides_run_in_turn_after_a_round_that_counts_for_nothing() -> None:
    calls: list[str] = []
    runs = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {side: len(of_side) for side, of_side in runs.items()} == {"a": 2, "b": 2}
    assert all(run["wall_s"] >= 0 and run["processor_s"] >= 0 for of_side in runs.values() for run in of_side)
