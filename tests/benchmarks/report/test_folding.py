"""Sentences of several tables, said once."""

from __future__ import annotations

import pytest

from benchmarks.report.folding import Key, fold, places


def tables(bundles: str, runners: str = "cpu fp32", batches: tuple[int, ...] = (1, 8)) -> list[Key]:
    return [
        (bundle, *runner.split(), batch)  # type: ignore[misc]
        for bundle in bundles
        for runner in runners.split(",")
        for batch in batches
    ]


EVERY = tables("abc", "cpu fp32,cpu int8")


@pytest.mark.parametrize(
    ("some", "text"),
    [
        (EVERY, ""),
        (tables("a", "cpu fp32,cpu int8"), "a"),
        (tables("abc"), "cpu fp32"),
        (tables("abc", "cpu fp32,cpu int8", (8,)), "batch 8"),
        (tables("ac"), "a, c, cpu fp32"),
        (tables("b", "cpu int8", (1,)), "b, cpu int8, batch 1"),
        ([*tables("a", "cpu fp32", (1,)), *tables("b", "cpu fp32")], "a, cpu fp32, batch 1; b, cpu fp32"),
    ],
)
def test_places_leave_out_what_goes_without_saying(some: list[Key], text: str) -> None:
    assert places(some, EVERY) == text
    assert places(some[::-1], EVERY).count(";") == text.count(";")


def test_tables_that_differ_in_their_batches_are_still_told_apart() -> None:
    """What one bundle lacks is no matter for another that has all of its own."""
    every = [*tables("a", batches=(1, 8)), *tables("b", batches=(1,))]
    assert places(tables("b", batches=(1,)), every) == "b"
    assert places(tables("a", batches=(1,)), every) == "a, batch 1"


def test_a_sentence_is_said_once_with_its_tables() -> None:
    said = [(key, "fine" if key[0] == "a" else "slow") for key in EVERY]
    assert fold(said, EVERY) == ["a: fine", "b, c: slow"]
    assert fold([(key, "fine") for key in EVERY], EVERY) == ["all 12 tables: fine"]
    assert fold([(EVERY[0], "fine")], EVERY[:1]) == ["fine"]
    assert fold([(key, "fine") for key in EVERY[:2]], EVERY[:2]) == ["both tables: fine"]
    assert fold([], EVERY) == []
