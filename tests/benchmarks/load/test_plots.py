"""The picture's numbers are the samples'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.book import LATE, Book, Samples
from benchmarks.load.comparing import PolicyRun
from benchmarks.load.figures import WidthFacts, figures
from benchmarks.load.plots import BINS, draw, rates_over_time, shades

LABELS = ("0.5", "1")
FACTS = (WidthFacts("0.5", 0.5, 0.6), WidthFacts("1", 1.0, 0.7))


def samples() -> Samples:
    """Ten a second for six seconds: the first half on 0.5, then 1; every fifth is refused, one is too late."""
    times = np.arange(60) / 10 + 0.01
    book = Book(times)
    for number, at in enumerate(times):
        if number % 5 == 4:
            book.refused(number, LATE)
        else:
            book.answered(number, 99.0 if number == 0 else 5.0, LABELS[int(at >= 3)], 1, 0.0, 5.0)
    return book.samples()


def test_rates_are_counted_by_width_and_what_is_missed_is_on_top() -> None:
    edges, rates = rates_over_time(samples(), LABELS, 50.0, 6.0)
    assert len(edges) == BINS + 1 and rates.shape == (3, BINS)
    assert rates.sum(0) * 0.1 == pytest.approx(np.ones(BINS))
    assert (rates * 0.1).sum(1) == pytest.approx([23, 24, 13])
    assert rates[0, 30:].sum() == 0 and rates[1, :30].sum() == 0
    _, of_two = rates_over_time(samples(), ("2", *LABELS), 50.0, 6.0, rounds=2)
    assert of_two[0].sum() == 0 and of_two[1:] == pytest.approx(rates / 2)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    given = samples()
    runs = [PolicyRun(name, given, figures(name, [given], given, 50.0, 6.0, FACTS)) for name in ("fixed:1", "drain")]
    path = draw(runs, LABELS, 50.0, 6.0, ("a network under load", "on a machine"), tmp_path)
    assert path.name == "load.png" and image.open(path).size[0] > 1000
    assert path.read_bytes() == draw(runs, LABELS, 50.0, 6.0, ("a network under load", "on a machine"), tmp_path).read_bytes()


def test_wider_is_darker() -> None:
    pytest.importorskip("matplotlib")
    brightness = [sum(int(shade[at : at + 2], 16) for at in (1, 3, 5)) for shade in shades(5)]
    assert brightness == sorted(brightness, reverse=True) and len(set(brightness)) == 5 and len(shades(1)) == 1
