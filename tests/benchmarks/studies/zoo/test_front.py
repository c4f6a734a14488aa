"""The joint front, against its definition by brute force, and names of what is on it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.studies.zoo.front import Point, counted_points, joint_front, measured_points, switches_named
from tests.support.shown_results import cell, failed, steady


def point(error: float, low: float, high: float | None = None, network: str = "s_mobilenet_v1", label: str = "0.5x") -> Point:
    high = low if high is None else high
    return Point(cell(label, 1000, network=network), error, (low + high) / 2, low, high)


def test_a_switch_that_is_only_faster_within_the_noise_beats_nobody() -> None:
    accurate, same, faster, beaten = point(25, 9, 11), point(30, 8, 10), point(31, 4, 5), point(31, 6, 7)
    front = joint_front([accurate, same, faster, beaten])
    assert front.points == (faster, same, accurate)
    assert front.worth == (faster, accurate)  # nobody ships what takes as long for all that is known and errs more


def test_of_equal_errors_the_faster_one_is_on_the_front() -> None:
    slow, fast = point(30, 2), point(30, 1)
    assert joint_front([slow, fast]).points == (fast,)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_front_is_what_no_other_beats(noise: float) -> None:
    random = np.random.default_rng(0)
    points = []
    for error, cost in zip(random.integers(20, 50, 60), random.uniform(1, 20, 60), strict=True):
        points.append(Point(cell("0.5x", 1), float(error), cost, cost * (1 - noise), cost * (1 + noise)))
    front = joint_front(points)
    for at in points:
        beaten = any(other.error <= at.error and other.high < at.low for other in points)
        assert (at not in front.points) == beaten
    assert {id(at) for at in front.worth} <= {id(at) for at in front.points}
    assert all(one.high < other.low and one.error >= other.error for one, other in pairwise(front.worth))
    assert min(points, key=lambda at: (at.error, at.cost)) == front.worth[-1]
    for at in front.points:  # what is left out is no faster, by more than noise, than something at least as good
        assert at in front.worth or any(other.error <= at.error and not at.high < other.low for other in front.worth)


def test_points_of_results() -> None:
    of = cell("0.5x", 149_000, network="us_mobilenet_v1")
    (measured,) = measured_points([steady(of, 2.0, 1.0, 3.0), failed(of)])
    assert (measured.cost, measured.low, measured.high, measured.error) == (2.0, 1.0, 3.0, 35.8)
    assert measured.name == "US-MobileNet v1 0.5x"
    assert [at.cost for at in counted_points([failed(of)])] == [149_000]


def test_neighbours_are_named_as_a_range() -> None:
    labels = ("0.25x", "0.275x", "0.3x", "0.325x", "0.35x")
    every = [point(40 - at, at + 1, network="us_mobilenet_v1", label=label) for at, label in enumerate(labels)]
    every = [
        Point(cell(at.cell.label, 100 * (n + 1), network="us_mobilenet_v1"), at.error, at.cost, at.low, at.high)
        for n, at in enumerate(every)
    ]
    others = [point(30, 9, network="autoslim_mnasnet", label="s1")]
    assert switches_named([every[0], every[1], every[2], every[4]], [*every, *others]) == "0.25x to 0.3x, 0.35x"
    assert switches_named(others, [*every, *others]) == "s1"
