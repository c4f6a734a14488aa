"""The table follows what runs take, at its percentile."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slimexport.target.serving.correcting import LEAST, MOST, Corrected
from tests.support.serving_helpers import latencies

TABLE = latencies([[1.0, 2.0], [4.0, 8.0], [10.0, 20.0]], [1, 4])
P95 = 1.6448536269514722  # of the standard normal distribution


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_it_converges_to_the_95th_percentile(scale: float, sigma: float) -> None:
    """Of lognormal times, whose median is `scale` times the table's: 5 % of later runs take longer than it says."""
    draw = np.random.default_rng(3)
    corrected, longer, said = Corrected(TABLE, 0.95), [], []
    for number in range(6000):
        width, images = int(draw.integers(3)), int(draw.choice([1, 2, 4]))
        ms = TABLE.of(width, images) * scale * math.exp(sigma * draw.standard_normal())
        if number >= 1000:
            longer.append(ms > corrected.now().of(width, images))
            said.append(corrected.now().of(width, images) / TABLE.of(width, images))
        corrected.seen(width, images, ms)
    assert np.mean(longer) == pytest.approx(0.05, abs=0.01)
    assert np.mean(said) == pytest.approx(scale * math.exp(sigma * P95), rel=0.15)


def test_it_follows_a_drift() -> None:
    """A clock that goes down to a third over 2,000 runs, and up again."""
    draw = np.random.default_rng(4)
    corrected, longer = Corrected(TABLE, 0.95), []
    for number in range(4000):
        scale = 3 ** (1 - abs(number - 2000) / 2000)
        width = int(draw.integers(3))
        ms = TABLE.of(width, 1) * scale * math.exp(0.1 * draw.standard_normal())
        longer.append(ms > corrected.now().of(width, 1))
        corrected.seen(width, 1, ms)
    for start in range(200, 4000, 400):
        assert 0.01 <= np.mean(longer[start : start + 400]) <= 0.12


def test_one_width_tells_of_the_others() -> None:
    """A noisy neighbor slows all: those that do not run are corrected too, and a row that was wrong is its own."""
    corrected = Corrected(TABLE, 0.95)
    for _ in range(60):
        corrected.seen(0, 1, 5.0)
    assert corrected.now().of(0, 1) > 3.5
    assert corrected.now().of(2, 4) > 2 * TABLE.of(2, 4)
    own = Corrected(TABLE, 0.95)
    for _ in range(3000):
        own.seen(0, 1, 1.0)
        own.seen(1, 1, 12.0)
        own.seen(2, 1, 10.0)
    now = own.now()
    assert now.of(1, 1) == pytest.approx(12, rel=0.2) and now.of(2, 1) == pytest.approx(10, rel=0.2)
    assert now.of(1, 4) == pytest.approx(24, rel=0.2), "the whole row"


def test_a_trial_that_was_quicker_is_believed_at_once() -> None:
    """Else the table would come down by half a percent a trial, and there is one a second."""
    corrected = Corrected(TABLE, 0.95)
    for _ in range(30):
        corrected.seen(0, 1, 50.0)
    assert corrected.now().of(0, 1) > 15 * TABLE.of(0, 1)
    corrected.tried(0, 1, 1.2)
    assert corrected.now().of(0, 1) == pytest.approx(1.2)
    corrected.tried(0, 1, 9.0)
    assert 1.2 < corrected.now().of(0, 1) < 1.4, "one that was slower is seen as any other"


@pytest.mark.parametrize("ms", [float("nan"), float("inf"), 0.0, -1.0])
def test_times_that_cannot_be_change_nothing(ms: float) -> None:
    corrected = Corrected(TABLE, 0.95)
    corrected.seen(1, 2, ms)
    corrected.tried(1, 2, ms)
    assert corrected.now() == TABLE


def test_factors_stay_in_their_range() -> None:
    for ms, bound in ((1e9, MOST**2), (1e-9, LEAST**2)):
        corrected = Corrected(TABLE, 0.95)
        for _ in range(5000):
            corrected.seen(0, 1, ms)
        factor = corrected.now().of(0, 1) / TABLE.of(0, 1)
        assert math.isfinite(factor) and min(1, bound) * 0.99 <= factor <= max(1, bound) * 1.01


def test_without_a_width_the_others_are_as_they_were() -> None:
    corrected = Corrected(TABLE, 0.95)
    for number in range(50):
        corrected.seen(number % 3, 1, 7.0)
    rest = corrected.without(1)
    assert rest.now().widths == ("0", "2")
    rest.seen(0, 1, TABLE.of(0, 1))
    corrected.seen(0, 1, TABLE.of(0, 1))
    assert rest.now().ms == (corrected.now().ms[0], corrected.now().ms[2])
