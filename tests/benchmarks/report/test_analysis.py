"""What latencies mean: figures worked out by hand, verdicts checked pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import INTERRUPTED, Cell, Result, ceiling_key
from benchmarks.cells.statistics import rank_correlation
from benchmarks.report.analysis import ACCURACY, MACS, AnalysisRow, Group, analyse, capability, faster, floors_ms, listed
from tests.support.shown_results import cell, failed, figures, noisy, result, steady, widths

CEILING = {"macs_per_s": 1e9, "bytes_per_s": 1e8, "seconds_per_operator": 1e-5}


def group(results: list[Result], ceiling: dict[str, float] | None = None) -> Group:
    (only,) = analyse(results, {ceiling_key(results[0].cell): ceiling} if ceiling else {})
    return only


def reference(results: list[Result]) -> str:
    analysed = group(results).reference
    assert analysed is not None
    return analysed.cell.label


def known(label: str, macs: int, top1: float) -> Cell:
    return cell(label, macs, accuracy={"top1": top1, "images": 100, "data": "photos"})


def test_figures_by_hand() -> None:
    analysed = group([steady(cell("1.0x", 4_000_000, batch=2), 16.0), steady(cell("0.5x", 1_000_000, batch=2), 8.0)], CEILING)
    half, full = analysed.rows
    assert [row.cell.label for row in analysed.rows] == ["0.5x", "1.0x"]
    assert analysed.reference is full
    assert (half.speedup, half.promised, half.efficiency) == pytest.approx((2, 4, 0.5))
    assert (full.speedup, full.promised, full.efficiency) == pytest.approx((1, 1, 1))
    assert (half.macs_per_s, full.macs_per_s) == pytest.approx((2 * 1e6 / 8e-3, 2 * 4e6 / 16e-3))
    assert (half.ceiling_share, full.ceiling_share) == pytest.approx((0.25, 0.5))
    # 10,000 weights and, for each of 2 images, 300 values of the image and 1000 activations, written and read
    assert half.floors_ms == pytest.approx(
        {"compute": 2e6 / 1e9 * 1e3, "memory": 4 * (10_000 + 2 * (300 + 2000)) / 1e8 * 1e3, "launch": 20 * 1e-5 * 1e3}
    )
    assert half.bound == "compute" and half.bound_share == pytest.approx(0.25)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("tf32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)])
def test_bytes_follow_the_precision(precision: str, size: int) -> None:
    of = cell("1.0x", 1, precision=precision, params=1000, activations=10, image_size=2)
    assert floors_ms(of, {"bytes_per_s": 1000.0}) == {"memory": pytest.approx(size * (1000 + 12 + 20))}


@pytest.mark.parametrize(
    ("latency_ms", "ceiling", "changes", "bound", "share"),
    [
        (4.0, CEILING, {}, "compute", 0.25),
        (4.1, CEILING, {}, "none", 1 / 4.1),
        (2.0, CEILING, {"layers": 150}, "launch", 0.75),
        (2.0, CEILING, {"layers": 300}, "compute", 0.5),  # 3 ms to start them, and it took 2: that is no floor
        (2.1, CEILING, {"activations": 20_000}, "memory", 2.012 / 2.1),  # 4 bytes of 10,000 + 300 + 2 * 20,000 elements
        (2.0, CEILING, {"activations": 20_000}, "compute", 0.5),  # the bytes would take longer: they do not come from memory
        (2.0, CEILING, {"activations": None}, "compute", 0.5),
        (2.0, CEILING, {"activations": None, "layers": None}, "compute", 0.5),
        (2.0, {"seconds_per_operator": 1e-5}, {"layers": None}, None, None),
        (2.0, {"macs_per_s": None, "bytes_per_s": None, "seconds_per_operator": None}, {}, None, None),
        (2.0, None, {}, None, None),
    ],
)
def test_bound(
    latency_ms: float, ceiling: dict[str, float] | None, changes: dict[str, Any], bound: str | None, share: float | None
) -> None:
    (row,) = group([steady(cell("1.0x", 1_000_000, **changes), latency_ms)], ceiling).rows
    assert (row.bound, row.bound_share) == (bound, share if share is None else pytest.approx(share))
    assert (row.ceiling_share is None) == (not (ceiling or {}).get("macs_per_s"))


def test_what_fits_in_the_cache_costs_no_memory() -> None:
    of = cell("1.0x", 1_000_000)
    moved = 4 * (10_000 + 300 + 2000)
    assert floors_ms(of, CEILING, moved)["memory"] == 0
    assert floors_ms(of, CEILING, moved - 1)["memory"] == pytest.approx(moved / 1e8 * 1e3)
    (row,) = group([result(of, [[1.0]], settings={"cache_bytes": moved})], CEILING).rows
    assert row.floors_ms["memory"] == 0


def test_reference() -> None:
    labels = {"1.5x": 3000, "1.0x": 2000, "0.5x": 1000}
    results = [steady(cell(label, macs), macs / 100) for label, macs in labels.items()]
    assert reference(results) == "1.0x"
    results[1] = failed(results[1].cell)
    analysed = group(results)
    assert reference(results) == "1.5x"
    assert [row.speedup for row in analysed.rows] == [pytest.approx(3), None, pytest.approx(1)]
    switches = [steady(cell(label, macs), 1.0) for label, macs in (("s1", 10), ("s2", 20), ("s3", 30))]
    assert switches[0].cell.width == 1.0
    assert reference(switches) == "s3"
    plans = [steady(cell(label, macs), 1.0) for label, macs in (("thin", 10), ("thick", 20))]
    assert reference(plans) == "thick"


def test_nothing_measured() -> None:
    analysed = group([failed(cell("0.5x", 10)), failed(cell("1.0x", 20))], CEILING)
    assert (analysed.reference, analysed.rank_correlation) == (None, None)
    assert (analysed.sentences, analysed.front, analysed.worth) == ((), (), ())
    assert analysed.measured == [] and [row.result.reason for row in analysed.rows] == ["no room for it"] * 2
    assert all(row.speedup is None and row.floors_ms == {} and row.bound is None for row in analysed.rows)


def test_one_width() -> None:
    analysed = group([steady(cell("0.5x", 10), 1.0, 1.1)])
    assert (analysed.rows[0].speedup, analysed.rows[0].efficiency) == (1, 1)
    assert (analysed.sentences, analysed.rank_correlation) == ((), None)
    assert [row.cell.label for row in analysed.front] == [row.cell.label for row in analysed.worth] == ["0.5x"]


def test_interrupted_cells_count_with_what_they_have() -> None:
    cut = result(cell("1.0x", 20), [[2.0, 2.0]], status=INTERRUPTED, reason="interrupted in round 2 of 3")
    empty = result(cell("0.75x", 15), [], status=INTERRUPTED, reason="interrupted")
    analysed = group([steady(cell("0.5x", 10), 1.0), cut, empty])
    assert [row.cell.label for row in analysed.measured] == ["0.5x", "1.0x"]
    assert analysed.rows[0].speedup == pytest.approx(2)


def test_groups_are_apart_and_in_order() -> None:
    results = [
        steady(cell("1.0x", 10, batch=batch, precision=precision, backend=backend, bundle=bundle), 1.0)
        for bundle, backend, precision, batch in (
            ("b", "x", "fp32", 8),
            ("a", "x", "fp32", 8),
            ("b", "x", "fp16", 8),
            ("b", "y", "fp32", 1),
        )
    ]
    analysed = analyse([*results, steady(cell("0.5x", 5, batch=8, backend="x", bundle="b"), 1.0)], {"x fp16": CEILING})
    assert [interval.key for interval in analysed] == [interval.cell.group for interval in results]
    assert [len(interval.rows) for interval in analysed] == [2, 1, 1, 1]
    assert [bool(interval.rows[0].floors_ms) for interval in analysed] == [False, False, True, False]


def spans(**intervals: tuple[float, float]) -> list[Result]:
    """Results a, b, ... of rising MACs whose rounds' medians have these ends."""
    return [steady(cell(label, 100 * (place + 1)), *ends) for place, (label, ends) in enumerate(intervals.items())]


@pytest.mark.parametrize(
    ("intervals", "sentences"),
    [
        ({"a": (1, 1.1), "b": (2, 2.1), "c": (3, 3.1)}, ["every width is faster here than all wider ones"]),
        (
            {"a": (1, 1.1), "b": (2.9, 3.0), "c": (3, 3.1)},
            ["b is no faster than c here (2.95 ms against 3.05 ms, within noise)"],
        ),
        ({"a": (1, 1.1), "b": (4, 4.2), "c": (3, 3.1)}, ["b is slower than c here (4.1 ms against 3.05 ms, beyond noise)"]),
        ({"a": (2.9, 3), "b": (2.95, 3), "c": (2.9, 3), "d": (3, 3.1)}, ["a to c are no faster than d here (within noise)"]),
        (
            {"a": (3, 3.1), "b": (1, 1.1), "c": (3, 3.1), "d": (3, 3.1)},
            [
                "a and c are no faster than d here (within noise)",
            ],
        ),
        (
            {"a": (1, 1.1), "b": (1, 1.1), "c": (2, 2.1), "d": (3, 3.1), "e": (2, 2.1)},
            [
                "c is no faster than e here (2.05 ms against 2.05 ms, within noise)",
                "d is slower than e here (3.05 ms against 2.05 ms, beyond noise)",
                "a is no faster than b here (1.05 ms against 1.05 ms, within noise)",
            ],
        ),
        ({"a": (1, 1.1)}, []),
    ],
)
def test_sentences(intervals: dict[str, tuple[float, float]], sentences: list[str]) -> None:
    assert list(group(spans(**intervals)).sentences) == sentences


def test_equal_macs_are_not_compared() -> None:
    analysed = group([steady(cell("a", 10), 1, 1.1), steady(cell("b", 10), 1, 1.1)])
    assert analysed.sentences == ("every width is faster here than all wider ones",)


def test_a_single_round_tells_no_noise() -> None:
    analysed = group([steady(cell("0.5x", 10), 1.0), steady(cell("1.0x", 20), 1.01)])
    assert analysed.sentences[-1] == "with a single round, differences between widths cannot be told from noise"


@pytest.mark.parametrize("seed", range(20))
def test_every_width_that_beats_no_wider_one_is_named_once(seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = random.uniform(1, 3, 9)
    results = [steady(cell(f"w{i}", 100 + i), start, start + 0.2 * random.uniform()) for i, start in enumerate(starts)]
    analysed = group(results)
    rows = analysed.measured
    behind = {narrow.cell.label for at, narrow in enumerate(rows) for wide in rows[at + 1 :] if not faster(narrow, wide)}
    subjects: list[str] = []
    for sentence in analysed.sentences:
        if " than all " in sentence:
            continue
        named = sentence.partition(" is " if " is " in sentence else " are ")[0]
        for part in named.replace(" and ", ", ").split(", "):
            first, _, last = part.partition(" to ")
            numbers = range(int(first[1:]), int((last or first)[1:]) + 1)
            subjects += [f"w{number}" for number in numbers]
    assert len(subjects) == len(set(subjects))
    # a width that only fails against one which is named itself need not be: whoever ships the widest of these is served
    assert set(subjects) <= behind
    kept = [row for row in rows if row.cell.label not in subjects]
    assert all(faster(narrow, wide) for at, narrow in enumerate(kept) for wide in kept[at + 1 :])
    assert rows[-1] in kept


def test_listed() -> None:
    labels = list("abcdefg")
    assert listed(labels, [2]) == "c"
    assert listed(labels, [0, 1]) == "a and b"
    assert listed(labels, [0, 2, 3, 4, 6]) == "a, c to e and g"
    assert listed(labels, range(7)) == "a to g"


def test_front_against_accuracy_by_definition() -> None:
    random = np.random.default_rng(3)
    results = [
        noisy(known(f"w{i}", 100 + i, float(random.choice([0.5, 0.6, 0.7, 0.8]))), float(random.uniform(1, 5)))
        for i in range(12)
    ]
    analysed = group(results)
    assert analysed.against == ACCURACY

    def point(row: AnalysisRow) -> tuple[float, float]:
        return figures(row).median_ms, -capability(row, ACCURACY)

    def beats(one: AnalysisRow, other: AnalysisRow) -> bool:
        a, b = point(one), point(other)
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    rows = analysed.measured
    expected = [row for row in rows if not any(beats(other, row) for other in rows)]
    assert sorted(row.cell.label for row in analysed.front) == sorted(row.cell.label for row in expected)
    latencies = [figures(row).median_ms for row in analysed.front]
    assert latencies == sorted(latencies)


def test_worth_shipping_leaves_out_what_noise_hides() -> None:
    cells = [known("0.25x", 10, 0.6), known("0.5x", 20, 0.7), known("0.75x", 30, 0.8), known("1.0x", 40, 0.9)]
    ends = [(1, 1.1), (2, 2.1), (2.9, 3.1), (3, 3.2)]
    analysed = group([steady(of, *interval) for of, interval in zip(cells, ends, strict=True)])
    assert [row.cell.label for row in analysed.front] == ["0.25x", "0.5x", "0.75x", "1.0x"]
    assert [row.cell.label for row in analysed.worth] == ["0.25x", "0.5x", "1.0x"]


@pytest.mark.parametrize(
    "accuracy", [None, {"top1": 0.9, "images": 200, "data": "photos"}, {"top1": 0.9, "images": 100, "data": "others"}]
)
def test_accuracies_that_cannot_be_compared_give_way_to_macs(accuracy: dict[str, Any] | None) -> None:
    analysed = group([steady(known("0.5x", 10, 0.95), 1, 1.1), steady(cell("1.0x", 20, accuracy=accuracy), 2, 2.1)])
    assert analysed.against == MACS
    assert [row.cell.label for row in analysed.front] == ["0.5x", "1.0x"]


def test_accuracy_of_what_was_not_measured_is_not_needed() -> None:
    analysed = group([steady(known("0.5x", 10, 0.95), 1, 1.1), failed(cell("1.0x", 20))])
    assert analysed.against == ACCURACY


def test_rank_correlation_is_of_medians_with_macs() -> None:
    medians = [3.0, 1.0, 2.0, 5.0, 4.0]
    analysed = group([steady(cell(label, 10 + place), medians[place]) for place, label in enumerate(widths(5))])
    assert analysed.rank_correlation == rank_correlation(range(5), medians) == pytest.approx(0.6)
