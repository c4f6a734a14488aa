"""What to ship, in sentences that are said once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cells.cell import Result
from benchmarks.report.analysis import analyse
from benchmarks.report.decisions import decisions, paying, single_round
from tests.support.shown_results import cell, family, steady

RANKS = "rank correlation of latency with MACs: 1.00 (1: the same order)"


def three(*times: float, batch: int = 1, accuracies: tuple[float, ...] = (), **changes: object) -> list[Result]:
    results = []
    for at, (label, time) in enumerate(zip(("0.5x", "0.75x", "1.0x"), times, strict=True)):
        known = {"top1": accuracies[at], "images": 100, "data": "photos"} if accuracies else None
        results.append(steady(cell(label, 100 * (at + 1), batch=batch, accuracy=known, **changes), time, time))
    return results


def test_thirty_tables_that_say_the_same_are_one_sentence() -> None:
    results = [
        replace(result, cell=replace(result.cell, bundle=f"net{number}"))
        for number in range(10)
        for batch in (1, 8, 32)
        for result in three(1, 2, 3, batch=batch)
    ]
    assert decisions(analyse(results, {})) == [
        "all 30 tables: every width is worth shipping, faster than every wider one",
        RANKS,
    ]


def test_what_is_no_faster_is_said_where_it_is_so() -> None:
    results = [*three(1, 2, 3), *three(1, 3, 3, batch=8), *three(1, 2, 3, batch=32)]
    assert decisions(analyse(results, {})) == [
        "batch 1, 32: every width is worth shipping, faster than every wider one",
        "batch 8: worth shipping: 0.5x and 1.0x; 0.75x is no faster than 1.0x here (3 ms against 3 ms, within noise)",
        "rank correlation of latency with MACs: 0.87 to 1.00 (1: the same order)",
    ]


def test_accuracy_decides_where_it_is_known_and_comes_with_its_error() -> None:
    said = decisions(analyse(three(1, 2, 3, accuracies=(0.8, 0.9, 0.88)), {}))
    assert said == [
        "worth shipping: 0.5x and 0.75x; not 1.0x, 0.75x is no less accurate and no slower",
        RANKS,
        "accuracies are on the 100 images of photos: a standard error is up to 4.0 points",
    ]
    known = decisions(analyse(family(4, accuracy=True), {}))
    assert known[0] == "all 3 tables: every width is worth shipping, faster than every more accurate one"
    assert len(known) == 3


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ((0.5, 1, 1.2), "pays: takes 0.40 to 0.50 of fp32's time"),
        ((0.5, 2, 3.3), "pays at 0.5x only: takes 0.50 to 1.10 of fp32's time"),
        ((1.5, 3, 4.5), "does not pay: takes 1.50 of fp32's time"),
    ],
)
def test_low_precision_pays_or_does_not(times: tuple[float, ...], sentence: str) -> None:
    results = [*three(1, 2, 3), *three(*times, precision="int8-cpu"), *three(1, 2, 3, batch=8)]
    assert paying(analyse(results, {})) == [f"onnxruntime-cpu int8-cpu: {sentence}"]
    assert paying(analyse(three(*times, precision="int8-cpu"), {})) == []


def test_a_single_round_is_a_doubt_and_no_decision() -> None:
    once = [steady(cell(label, macs), time) for label, macs, time in (("0.5x", 10, 1), ("1.0x", 20, 2))]
    groups = analyse(once, {})
    assert single_round(groups) == ["with a single round, differences between widths cannot be told from noise"]
    assert not any("single round" in line for line in decisions(groups))
    assert single_round(analyse(three(1, 2, 3), {})) == []


def test_one_width_is_no_choice() -> None:
    assert decisions(analyse([steady(cell("1.0x", 10), 1, 1)], {})) == []
