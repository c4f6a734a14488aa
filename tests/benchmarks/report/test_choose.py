"""Choosing a width by its measured latency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import MEASURED, NOT_MEASURED, Cell, Result, Round
from benchmarks.report.choose import as_values, choose, sentences


def result(width: float, rounds: list[list[float]], top1: float | None = None, **more: Any) -> Result:
    accuracy = None if top1 is None else {"top1": top1, "images": 360, "data": "digits"}
    cell = Cell(
        bundle="b", network="net", name=f"net_{width}", plan=f"x{width}", width=width, label=f"{width}x", file="f.onnx",
        backend="onnxruntime-cpu", precision="fp32", batch=8, image_size=64, macs=int(1000 * width), params=1, size_bytes=4,
        accuracy=accuracy,
    )  # fmt: skip
    return Result(cell, more.pop("status", MEASURED), rounds=tuple(Round({"wall": samples}) for samples in rounds), **more)


def test_the_widest_within_the_budget_at_the_percentile() -> None:
    tail = [4.0] * 90 + [9.0] * 10
    results = [result(0.25, [[2.0] * 10]), result(0.5, [[3.0] * 10]), result(0.75, [tail]), result(1.0, [[6.0] * 10])]
    assert choose(results, 5, 50).chosen.cell.width == 0.75  # type: ignore[union-attr]
    strict = choose(results, 5, 95)
    assert strict.chosen is not None and strict.chosen.cell.width == 0.5
    assert [candidate.cell.width for candidate in strict.misses] == [1.0, 0.75]
    assert strict.misses[1].latency_ms == np.percentile(tail, 95) == 9.0
    assert [candidate.cell.width for candidate in strict.fitting] == [0.5, 0.25]


def test_a_budget_that_is_met_exactly_is_met() -> None:
    assert choose([result(0.5, [[3.0] * 3])], 3.0, 99).chosen is not None


def test_the_most_accurate_where_all_know_their_accuracy() -> None:
    results = [result(0.5, [[3.0]], 0.98), result(0.75, [[4.0]], 0.97), result(1.0, [[9.0]], 0.99)]
    choice = choose(results, 5, 50)
    assert choice.by == "accuracy"
    assert choice.chosen is not None and choice.chosen.cell.width == 0.5
    assert "most accurate" in sentences(choice)[0] and "98.00%" in sentences(choice)[0]
    partly = choose([*results[:2], result(0.6, [[3.0]])], 5, 50)
    assert partly.by == "MACs" and partly.chosen is not None and partly.chosen.cell.width == 0.75


def test_of_equally_accurate_widths_the_faster_one() -> None:
    assert choose([result(0.75, [[4.0]], 0.9), result(0.5, [[3.0]], 0.9)], 5, 50).chosen.cell.width == 0.5  # type: ignore[union-attr]


def test_accuracies_on_different_images_are_not_compared() -> None:
    other = result(0.75, [[4.0]], 0.5)
    accuracy = {"top1": 0.5, "images": 10, "data": "digits"}
    other = Result(Cell(**{**other.cell.__dict__, "accuracy": accuracy}), MEASURED, rounds=other.rounds)
    assert choose([result(0.5, [[3.0]], 0.9), other], 5, 50).by == "MACs"


def test_nearest_misses() -> None:
    choice = choose([result(w, [[10 * w] * 3]) for w in (0.25, 0.5, 0.75, 1.0)], 2, 50)
    assert choice.chosen is None
    lines = sentences(choice)
    assert lines[0].startswith("no width meets 2 ms (median per batch)")
    assert [line.split()[0] for line in lines[1:]] == ["net_0.25", "net_0.5", "net_0.75"]
    assert "0.5 ms over" in lines[1]


def test_what_was_not_measured_is_no_candidate() -> None:
    assert choose([result(0.5, [], status=NOT_MEASURED)], 5, 50).chosen is None
    assert sentences(choose([], 5, 50)) == ["no width could be measured, so none can be chosen"]


def test_a_width_that_meets_the_budget_in_some_rounds_only_is_not_chosen_but_told() -> None:
    """Whichever side of the budget its median is on."""
    for rounds in ([[4.0] * 10, [4.0] * 10, [5.5] * 9], [[4.5] * 9, [6.0] * 10, [6.0] * 10]):
        choice = choose([result(0.25, [[2.0] * 9, [2.2] * 9]), result(0.5, rounds)], 5, 50)
        assert choice.chosen is not None and choice.chosen.cell.width == 0.25
        assert [one.cell.width for one in choice.better] == [0.5] and choice.misses == ()
        lines = sentences(choice)
        assert lines[0].startswith(
            "net_0.25 (fp32, 0.25x) takes 2.1 ms, 2 to 2.2 in its rounds (median per batch): the widest"
        )
        assert lines[1].startswith("not sure: net_0.5 ") and f"{min(map(min, rounds)):g} to " in lines[1]
        assert sum("--duration" in line for line in lines) == 1


def test_noise_alone_gives_no_answer() -> None:
    choice = choose([result(0.5, [[4.0] * 3, [6.0] * 3])], 5, 50)
    assert choice.chosen is None and choice.fitting == () and choice.misses == ()
    lines = sentences(choice)
    assert lines[0].startswith("too noisy to choose: of no width every round meets 5 ms")
    assert "not sure: net_0.5" in lines[1]


def test_an_unsure_width_that_is_no_better_is_not_worth_a_word() -> None:
    results = [result(0.25, [[4.0] * 3, [6.0] * 3]), result(0.5, [[3.0] * 3, [3.1] * 3])]
    choice = choose(results, 5, 50)
    assert choice.chosen is not None and choice.chosen.cell.width == 0.5 and choice.unsure and not choice.better
    assert len(sentences(choice)) == 1


def test_of_many_unsure_widths_a_few_are_named() -> None:
    lines = sentences(choose([result(width / 10, [[4.0], [6.0]]) for width in range(1, 10)], 5, 50))
    assert sum(line.startswith("not sure: ") for line in lines) == 3 and "not sure of 6 more either" in lines


def test_a_single_round_tells_nothing_of_noise() -> None:
    choice = choose([result(0.5, [[4.0] * 10])], 5, 50)
    assert "--repeats 3" in sentences(choice, rounds=1)[-1]
    assert len(sentences(choice, rounds=3)) == 1


def test_accuracies_that_the_images_do_not_tell_apart_are_named() -> None:
    results = [result(0.25, [[1.0]], 0.9), result(0.5, [[3.0]], 0.978), result(1.0, [[4.0]], 0.98)]
    choice = choose(results, 5, 50)
    assert [one.cell.width for one in choice.as_accurate] == [0.5]  # a standard error of 360 images is 0.7 points
    assert "no less accurate within a standard error (0.7 points): 0.5x" in sentences(choice)


def test_the_choice_as_plain_values_names_the_files() -> None:
    results = [result(0.25, [[2.0]]), result(0.5, [[4.0], [6.0]]), result(1.0, [[9.0], [9.5]])]
    values = json.loads(json.dumps(as_values(choose(results, 5, 50), Path("exports/b"))))
    assert values["chosen"]["path"] == "exports/b/f.onnx" and values["chosen"]["width"] == 0.25
    assert [[one["width"] for one in values[kind]] for kind in ("fitting", "unsure", "over")] == [[0.25], [0.5], [1.0]]
    assert values["unsure"][0]["rounds_ms"] == [4.0, 6.0] and values["budget_ms"] == 5 and values["by"] == "MACs"
    assert as_values(choose(results, 1, 50), Path("b"))["chosen"] is None


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_percentiles_are_named(percentile: int) -> None:
    name = {50: "median"}.get(percentile, f"p{percentile}")
    assert name in sentences(choose([result(0.5, [[1.0]])], 5, percentile))[0]
