"""What is printed: a row for each policy, and what to doubt."""

from __future__ import annotations

import numpy as np

from benchmarks.cells.shares import AP, TOP1
from benchmarks.load.book import Book
from benchmarks.load.figures import PolicyFigures, WidthFacts, figures
from benchmarks.load.wording import HEADER, console, goodness, notes


def of(policy: str, latency_ms: float, width: str, send_ms: float = 0.0) -> PolicyFigures:
    book = Book(np.arange(4.0))
    for number in range(4):
        book.sent(number, send_ms)
        book.answered(number, 99.0 if number == 0 else latency_ms, width, 1, 0.0, 1.0)
    samples = book.samples()
    facts = [WidthFacts("0.5", 0.5, 0.61234), WidthFacts("1", 1.0, 0.7)]
    return figures(policy, [samples], samples, 50.0, 2.0, facts)


def test_a_row_for_each_policy() -> None:
    lines = console([of("fixed:0.5", 10.0, "0.5"), of("drain", 20.0, "2")]).splitlines()
    assert len(lines) == 3 and all(word in lines[0] for word in HEADER)
    assert lines[1].split() == ["fixed:0.5", "75.00", "1.5", "61.23", "0.500", "10.0", "85.6", "96.3", "98.7", "0", "0", "0"]
    assert lines[2].split()[3:5] == ["-", "-"]


def test_of_a_detector_the_column_is_average_precision() -> None:
    lines = console([of("fixed:0.5", 10.0, "0.5"), of("drain", 20.0, "2")], AP).splitlines()
    assert "accuracy %" not in lines[0] and lines[0].split().index("AP") == 6  # behind `policy`, `in time %` and `per s`
    assert lines[1].split()[:4] == ["fixed:0.5", "75.00", "1.5", "0.612"] and lines[2].split()[3] == "-"


def test_how_good_a_policy_is_in_a_title() -> None:
    policy = of("fixed:0.5", 10.0, "0.5")
    assert (goodness(policy, TOP1), goodness(policy, AP)) == ("accuracy 61.2 %", "AP 0.612")
    assert goodness(of("drain", 20.0, "2"), AP) == ""


def test_notes_say_what_another_policy_does_better_and_what_to_doubt() -> None:
    good, bad = of("drain", 10.0, "1"), of("fixed:0.5", 70.0, "0.5", send_ms=2.0)
    assert notes([good]) == []
    late, better = notes([good, bad])
    assert late.startswith("fixed:0.5: 100.0% of the requests were sent more than 1 ms late")
    assert better == "fixed:0.5: drain served more in time, and more accurately."
