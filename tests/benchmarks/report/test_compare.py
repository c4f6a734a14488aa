"""Two runs side by side: verdicts on made-up data, and what else differs between them."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import NOT_MEASURED, Result
from benchmarks.cells.records import Recorded
from benchmarks.report.compare import (
    FASTER,
    NO_CHANGE,
    ONE_ROUND,
    ONLY_NEW,
    ONLY_OLD,
    OTHER_KIND,
    SLOWER,
    UNMEASURED,
    UNMEASURED_NEW,
    UNMEASURED_OLD,
    Change,
    compare,
    conclusion,
    differences,
    table,
)
from tests.support.bench_helpers import cell, result


def run(*results: Result, **fields: Any) -> Recorded:
    return Recorded(fields, results)


def verdict(old: Result, new: Result) -> str:
    (change,) = compare(run(old), run(new))
    return change.verdict


def test_verdicts_go_by_the_overlap_of_rounds() -> None:
    old = result([[10.0], [11.0], [12.0]])
    assert verdict(old, result([[12.5], [13.0]])) == SLOWER
    assert verdict(old, result([[9.0], [9.9]])) == FASTER
    assert verdict(old, result([[12.0], [13.0]])) == NO_CHANGE  # they touch
    assert verdict(old, result([[5.0], [20.0]])) == NO_CHANGE
    assert verdict(old, old) == NO_CHANGE


def test_medians_of_rounds_count_and_not_single_samples() -> None:
    assert verdict(result([[1.0, 1.0, 9.0]] * 3), result([[2.0, 2.0, 0.1]] * 3)) == SLOWER


def test_one_round_has_no_interval() -> None:
    assert verdict(result([[1.0]]), result([[2.0], [2.0]])) == ONE_ROUND
    assert verdict(result([[1.0], [1.0]]), result([[2.0]])) == ONE_ROUND


def test_wall_and_device_times_are_not_compared() -> None:
    assert verdict(result([[1.0], [1.0]]), result([[2.0], [2.0]], gpu=True)) == OTHER_KIND


def test_what_is_in_one_run_only_or_was_not_measured_is_told() -> None:
    failed = Result(cell("c"), NOT_MEASURED, "no")
    two = [[1.0], [1.0]]
    old = run(result(two, cell("a")), failed, result(two, cell("d")), Result(cell("e"), NOT_MEASURED, "no"))
    new = run(
        result(two, cell("b")), result(two, cell("c")), Result(cell("d"), NOT_MEASURED, ""), Result(cell("e"), NOT_MEASURED)
    )
    changes = {change.cell.name: change for change in compare(old, new)}
    assert list(changes) == ["b", "c", "d", "e", "a"]
    assert {name: change.verdict for name, change in changes.items()} == {
        "a": ONLY_OLD,
        "b": ONLY_NEW,
        "c": UNMEASURED_OLD,
        "d": UNMEASURED_NEW,
        "e": UNMEASURED,
    }
    assert all(change.ratio is None and change.chance is None for change in changes.values())
    assert (changes["b"].old, changes["a"].new) == (None, None)


@pytest.mark.parametrize(
    "change", [{"network": "x"}, {"name": "x"}, {"backend": "x"}, {"precision": "x"}, {"batch": 2}, {"image_size": 5}]
)
def test_cells_are_the_same_by_what_they_run(change: dict[str, Any]) -> None:
    two = [[1.0], [1.0]]
    assert len(compare(run(result(two)), run(result(two, cell(**change))))) == 2
    assert len(compare(run(result(two)), run(result(two, cell(bundle="elsewhere", macs=5))))) == 1


def noisy(seed: int, factor: float, rounds: int = 3, cells: int = 300) -> Recorded:
    """Cells of 10 ms, 5 % of noise within a round and 1 % between rounds."""
    generator = np.random.default_rng(seed)
    return run(
        *(
            result(
                [
                    list(10 * factor * between * (1 + 0.05 * generator.standard_normal(60)))
                    for between in 1 + 0.01 * generator.standard_normal(rounds)
                ],
                cell(f"net_{number}"),
            )
            for number in range(cells)
        )
    )


@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_without_a_change_as_many_stand_out_as_chance_says(rounds: int) -> None:
    changes = compare(noisy(0, 1, rounds), noisy(1, 1, rounds))
    out = sum(change.verdict != NO_CHANGE for change in changes)
    chance = 2 / comb(2 * rounds, rounds)
    assert changes[0].chance == pytest.approx(chance)
    expected, deviation = 300 * chance, (300 * chance * (1 - chance)) ** 0.5
    assert abs(out - expected) < 3.5 * deviation


def test_a_change_beyond_the_noise_is_seen() -> None:
    slower = compare(noisy(0, 1), noisy(1, 1.08))
    faster = compare(noisy(0, 1), noisy(1, 0.92))
    assert sum(change.verdict == SLOWER for change in slower) > 295
    assert sum(change.verdict == FASTER for change in faster) > 295
    assert np.median([change.ratio for change in slower if change.ratio]) == pytest.approx(1.08, rel=0.005)


def changes_of(verdicts: dict[str, int]) -> list[Change]:
    chances = {SLOWER: 0.1, FASTER: 0.1, NO_CHANGE: 0.1}
    return [Change(cell(), name, chance=chances.get(name)) for name, count in verdicts.items() for _ in range(count)]


def test_the_conclusion_is_one_line() -> None:
    assert conclusion(changes_of({SLOWER: 3, FASTER: 1, NO_CHANGE: 20})) == (
        "3 slower, 1 faster, 20 within noise; if nothing had changed, 2.4 would look changed by chance "
        "(more --repeats make it fewer)"
    )
    assert conclusion(changes_of({NO_CHANGE: 2, ONLY_OLD: 1, ONE_ROUND: 1})) == (
        "0 slower, 0 faster, 2 within noise, 2 not comparable"
    )
    warned = compare(run(result([[1.0], [1.0]], warnings=("noisy",))), run(result([[2.0], [2.0]])))
    assert conclusion(warned).endswith("; 1 of the changed ones had warnings, measure them again")
    unchanged = compare(run(result([[1.0], [1.0]])), run(result([[1.0], [1.0]], warnings=("noisy",))))
    assert conclusion(unchanged) == "0 slower, 0 faster, 1 within noise"
    assert conclusion([]) == "0 slower, 0 faster, 0 within noise"


def test_the_table_shows_medians_and_intervals() -> None:
    two = run(result([[10.0], [11.0]], cell("a", batch=8)), result([[1.0], [1.0]], cell("b")))
    new = run(result([[20.0], [22.0]], cell("a", batch=8)))
    header, row, gone, last = table(compare(two, new)).splitlines()
    assert " ".join(header.split()) == "backend precision batch network width before ms now ms ratio verdict"
    assert " ".join(row.split()) == "onnxruntime-cpu fp32 8 net 1.0x 10.5 [10, 11] 21 [20, 22] 2.000 slower"
    assert " ".join(gone.split()) == "onnxruntime-cpu fp32 1 net 1.0x 1 [1, 1] - only in the baseline"
    assert header.index("verdict") == row.index("slower") == gone.index("only")
    assert last.startswith("1 slower, 0 faster, 0 within noise, 1 not comparable")


def test_differences_of_runs_are_sentences() -> None:
    old = {
        "command": "one",
        "settings": {"threads": 1, "duration_s": 3.0},
        "environment": {"cpu": "A", "load_average": [1, 2], "packages": {"onnxruntime": "1.23", "numpy": "2"}, "gone": None},
    }
    new = {
        "command": "another",
        "settings": {"threads": 4, "duration_s": 3.0, "batches": (1, 8)},
        "environment": {"cpu": "A", "load_average": [3, 4], "packages": {"onnxruntime": "1.31", "numpy": "2"}},
    }
    assert differences(old, new) == [
        "settings: batches was not told, now it is [1, 8].",
        "settings: threads was 1, now it is 4.",
        "environment: packages.onnxruntime was 1.23, now it is 1.31.",
    ]
    assert differences(old, old) == []
    assert differences({"settings": {"batches": [1, 8]}}, {"settings": {"batches": (1, 8)}}) == []


def test_what_changes_by_the_minute_is_no_difference() -> None:
    names = ("load_average", "temperature_c", "busy_mhz", "date", "state", "memory_free_mib", "throttle_counts")
    assert differences({"environment": dict.fromkeys(names, 1)}, {"environment": dict.fromkeys(names, 2)}) == []
    assert len(differences({"environment": {"max_mhz": 1}}, {"environment": {"max_mhz": 2}})) == 1
