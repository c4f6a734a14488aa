"""Figures are those of their definitions, counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from benchmarks.load.book import FAILED, LATE, Book, Samples
from benchmarks.load.figures import PolicyFigures, WidthFacts, beaten, faults, figures, sending_warning

FACTS = (WidthFacts("0.5", 0.5, 0.6), WidthFacts("1", 1.0, 0.8))


def samples(
    latencies: Mapping[str, Sequence[float]], late: int = 0, failed: int = 0, lost: int = 0, send_ms: float = 0.1
) -> Samples:
    ends = [(label, ms) for label, values in latencies.items() for ms in values]
    book = Book(np.arange(len(ends) + late + failed + lost, dtype=np.float64))
    for number, (label, ms) in enumerate(ends):
        book.answered(number, ms, label, 2, 0.0, ms)
    for number in range(len(ends), len(ends) + late):
        book.refused(number, LATE)
    for number in range(len(ends) + late, len(ends) + late + failed):
        book.refused(number, FAILED)
    for number in range(len(ends) + late + failed + lost):
        book.sent(number, send_ms)
    return book.samples()


def of(given: Samples, facts: tuple[WidthFacts, ...] = FACTS, slo_ms: float = 50.0) -> PolicyFigures:
    return figures("drain", [given], given, slo_ms, 2.0, facts)


def test_attainment_is_of_all_requests_and_accuracy_of_those_served_in_time() -> None:
    got = of(samples({"0.5": [10, 20, 30], "1": [40, 60]}, late=3, failed=1, lost=1))
    assert (got.requests, got.answered, got.in_time, got.late, got.failed, got.lost) == (10, 5, 4, 3, 1, 1)
    assert got.attainment == pytest.approx(0.4) and got.goodput == pytest.approx(2.0)
    assert got.mean_width == pytest.approx((3 * 0.5 + 1.0) / 4) and got.mean_accuracy == pytest.approx((3 * 0.6 + 0.8) / 4)
    assert got.widths == {"0.5": pytest.approx(0.6), "1": pytest.approx(0.4)} and got.mean_batch == 2


def test_percentiles_are_of_answered_requests() -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 5000)
    got = of(samples({"1": values.tolist()}, late=100))
    for name, share in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99), ("p999_ms", 99.9)):
        assert getattr(got, name) == pytest.approx(np.percentile(values, share))
    assert got.max_ms == values.max()


def test_an_accuracy_that_one_width_lacks_is_unknown_unless_that_served_nothing() -> None:
    facts = (WidthFacts("0.5", 0.5, None), FACTS[1])
    assert of(samples({"0.5": [1], "1": [1]}), facts).mean_accuracy is None
    assert of(samples({"0.5": [99], "1": [1]}), facts).mean_accuracy == 0.8
    assert of(samples({"2": [1]})).mean_width is None, "a width that nobody knows"


def test_nothing_answered_has_no_percentiles() -> None:
    got = of(samples({}, late=4))
    assert got.attainment == 0 and got.p50_ms is None and got.mean_accuracy is None and got.mean_width is None


def test_rounds_are_told_apart() -> None:
    first, second = samples({"1": [1, 99]}), samples({"1": [1, 1]})
    assert figures("drain", [first, second], first, 50.0, 2.0, FACTS).attainments == (0.5, 1.0)


def test_a_sender_that_falls_behind_is_warned_of() -> None:
    assert sending_warning(of(samples({"1": [1] * 10}, send_ms=0.9))) is None
    said = sending_warning(of(samples({"1": [1] * 10}, send_ms=3.0)))
    assert said is not None and "100.0% of the requests were sent more than 1 ms late (3.0 ms at p99)" in said


def test_what_is_better_in_both_beats() -> None:
    good = of(samples({"1": [1] * 9 + [99]}))  # 0.9 in time, 0.8
    worse = of(samples({"0.5": [1] * 8 + [99] * 2}))
    same = of(samples({"1": [1] * 9 + [99]}))
    assert beaten(worse, [good, worse]) == [good] and beaten(good, [good, worse, same]) == []
    unknown = of(samples({"0.5": [1] * 8 + [99] * 2}), (WidthFacts("0.5", 0.5, None), WidthFacts("1", 1.0, None)))
    assert beaten(unknown, [good]) == [good], "by width where accuracy is not known"


def test_lost_and_doubled_requests_are_faults() -> None:
    assert faults(of(samples({"1": [1]}, late=2))) is None
    assert faults(of(samples({"1": [1]}, lost=1))) == "drain: 1 lost request."
