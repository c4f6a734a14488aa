"""Drawn numbers are the same everywhere, and sums of a layer's numbers are as large as they should be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from slimexport.target.arrays import Array
from slimexport.target.inside.drawn import BUCKETS, MEANS, WEIGHTED, drawn, off_by, sketch

DRAW = np.random.default_rng(11)
VALUES = DRAW.normal(size=(4, 100, 5, 7)).astype(np.float32)


def test_what_is_drawn_is_written_down() -> None:
    """Of seed and name alone: bundles hold what files gave of these."""
    np.testing.assert_array_equal(drawn(0, "conv", (3,)), np.array([-1.0862086, 1.0614359, 1.5658925], np.float32))
    np.testing.assert_array_equal(drawn(0, "conv", (3, 1))[:, 0], drawn(0, "conv", (3,)))
    assert not np.array_equal(drawn(1, "conv", (3,)), drawn(0, "conv", (3,)))
    assert not np.array_equal(drawn(0, "other", (3,)), drawn(0, "conv", (3,)))


def test_drawn_numbers_are_as_large_as_is_said() -> None:
    numbers = drawn(3, "x", (100_000,))
    assert numbers.dtype == np.float32 and abs(numbers.mean()) < 0.02 and numbers.std() == pytest.approx(1, abs=0.02)
    assert np.abs(numbers).max() <= np.sqrt(6) and len(np.unique(numbers)) > 98_000


def test_of_noise_sums_are_as_large_as_the_noise() -> None:
    sums, scales = sketch(0, "x", DRAW.normal(size=(8, 2000, 6, 6)))
    assert scales == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.square(sums[WEIGHTED]).mean()) == pytest.approx(1, abs=0.3)
    assert 0 < np.sqrt(np.square(sums[MEANS]).mean()) < 1


def _swapped(values: Array) -> Array:
    return values[:, [1, 0, *range(2, 100)]]


def _shifted(values: Array) -> Array:
    values[:, 3] += 0.01
    return values


def _one(values: Array) -> Array:
    values[2, 40, 3, 3] += 0.5
    return values


@pytest.mark.parametrize("change", [_swapped, _shifted, _one, lambda values: np.roll(values, 1, 3), lambda v: v[::-1]])
def test_whatever_is_changed_shows(change: object) -> None:
    assert callable(change)
    sums, scales = sketch(0, "x", VALUES)
    other, _ = sketch(0, "x", change(VALUES.copy()))
    assert off_by(other, sums, scales).max() > 0.003
    assert off_by(sums, sums, scales).max() == 0


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (1, 70, 2, 2)])
def test_values_of_any_shape_have_sums(shape: tuple[int, ...]) -> None:
    sums, scales = sketch(0, "x", np.ones(shape))
    assert sums.shape == (2, BUCKETS) and scales.shape == (BUCKETS,)
    assert np.isfinite(sums).all() and (scales[: shape[1] if len(shape) > 1 else 1] == pytest.approx(1))


def test_what_is_not_finite_is_infinitely_far_off() -> None:
    sums, scales = sketch(0, "x", VALUES)
    for number in (np.nan, np.inf, -np.inf):
        other = VALUES.copy()
        other[0, 0, 0, 0] = number
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isinf(off_by(sketch(0, "x", other)[0], sums, scales)).all()
    none = np.zeros_like(sums)
    assert off_by(none, none, np.zeros_like(scales)).max() == 0


def test_damaged_scales_warn_nobody() -> None:
    sums, scales = sketch(0, "x", VALUES)
    for number in (3e38, -3e38, 0):
        scales = scales.astype(np.float32)
        scales[2] = number
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert off_by(sums, sums, scales).max() == 0


def test_channels_that_are_small_next_to_others_are_not_measured_by_themselves() -> None:
    values = VALUES.copy()
    values[:, 5] *= 1e-6
    sums, scales = sketch(0, "x", values)
    other = sums.copy()
    other[:, 5] += 1e-5  # ten times what the channel is
    values[:, 69] = 0  # of the same bucket
    assert off_by(sketch(0, "x", values)[0], sums, scales).max() > 0.1
    assert off_by(other, sums, scales).max() < 1e-3


@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (2, 128), (1, 70, 2, 2)])
def test_a_bucket_of_few_numbers_that_are_near_zero_is_no_measure(shape: tuple[int, ...]) -> None:
    """As of a token, or of maps of one place: of 64 some are near 0 by chance, and a rounding of the others is no defect."""
    draw = np.random.default_rng(3)
    values = draw.normal(size=shape)
    values[:, 5] = 1e-5
    off = values + 2.0**-11 * draw.choice([-1.0, 1.0], size=shape)
    sums, scales = sketch(0, "layer", values.astype(np.float32))
    others, _ = sketch(0, "layer", off.astype(np.float32))
    assert off_by(others, sums, scales).max() < 5e-3


def test_what_is_drawn_in_blocks_is_what_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(3, "x", (7, 11))
    monkeypatch.setattr("slimexport.target.inside.drawn.BLOCK", 10)
    np.testing.assert_array_equal(drawn(3, "x", (7, 11)), whole)
