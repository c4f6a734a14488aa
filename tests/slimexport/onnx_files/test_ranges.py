"""Ranges and scales of int8: by hand, next to numpy's percentiles, and next to what torch sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimexport.onnx_files.quantize import quantized_inputs
from slimexport.onnx_files.ranges import BINS, Range, activation_scales, measure_ranges, weight_scales
from slimtrain.base.errors import UserError
from tests.support.int8_helpers import build, images, small


def test_scales_by_hand() -> None:
    ranges = {"a": Range(), "b": Range(), "dead": Range()}
    for name, values in {"a": [0.5, -12.7, 3], "b": [254, 1], "dead": [0, 0]}.items():
        ranges[name].widen(np.array(values, np.float32))
        ranges[name].count(np.array(values, np.float32))
    scales = activation_scales(ranges, "max")
    assert scales == {"a": pytest.approx(0.1), "b": 2.0, "dead": pytest.approx(1e-6)}
    assert activation_scales(ranges, "percentile") == pytest.approx(scales)
    weight = np.array([[[[1.27, -0.1]]], [[[0, -254]]], [[[0, 0]]]], np.float32)
    scales_of_weights = weight_scales(weight)
    assert scales_of_weights.dtype == np.float32
    np.testing.assert_allclose(scales_of_weights, [0.01, 2, 1e-6], rtol=1e-6)


@pytest.mark.parametrize("percent", [50, 90, 99, 99.99, 100])
def test_percentiles_are_numpys_to_the_width_of_a_bin(percent: float) -> None:
    draw = np.random.default_rng(0)
    batches = [draw.standard_normal((5, 40, 50)).astype(np.float32) ** 3 for _ in range(4)]
    batches[2][0, 0, 0] = -200
    measured = Range()
    for batch in batches:
        measured.widen(batch)
    for batch in batches:
        measured.count(batch)
    everything = np.abs(np.concatenate(batches))
    assert measured.largest == everything.max() == 200
    assert measured.counts.sum() == everything.size
    np.testing.assert_array_equal(np.abs(measured.counts.sum(0) - np.histogram(everything, BINS, (0, 200))[0]) <= 2, True)
    exact = np.percentile(everything, percent, method="inverted_cdf")
    assert exact <= measured.percentile(percent) * (1 + 1e-6) and measured.percentile(percent) <= exact + 1.001 * 200 / BINS


def test_a_percentile_is_of_all_values_zeros_too() -> None:
    measured = Range()
    values = np.concatenate([np.zeros(9990), np.full(9, 1.0), [100.0]]).astype(np.float32)
    measured.widen(values)
    measured.count(values)
    assert measured.percentile(99.9) == pytest.approx(100 / BINS)
    assert measured.percentile(99.99) == pytest.approx(1, abs=100 / BINS)
    assert measured.percentile(100) == 100


def test_ranges_are_those_that_torch_sees_over_all_batches() -> None:
    network = small()
    model = build(network)
    batches = [images(3, seed=1), images(1, seed=2), 4 * images(2, seed=3)]
    names = quantized_inputs(model)
    assert names == ["1", "5"]
    ranges = measure_ranges(model, iter(batches), names)
    with torch.no_grad():
        seen = [network[:2](torch.from_numpy(batch)).numpy() for batch in batches]
        pooled = [network[:6](torch.from_numpy(batch)).numpy() for batch in batches]
    for name, expected in zip(names, (seen, pooled), strict=True):
        assert ranges[name].largest == pytest.approx(max(float(np.abs(values).max()) for values in expected), rel=1e-5)
        assert ranges[name].counts.sum() == sum(values.size for values in expected)


def test_the_input_itself_can_be_measured() -> None:
    model = build(small())
    for names in (["input"], ["input", "1"]):
        ranges = measure_ranges(model, [images()], names)
        assert ranges["input"].largest == np.abs(images()).max()
        assert list(ranges) == names


def test_calibration_without_images_or_with_broken_ones_is_refused() -> None:
    model = build(small())
    with pytest.raises(UserError, match="no images to calibrate int8"):
        measure_ranges(model, [], quantized_inputs(model))
    for value in (np.nan, np.inf, -np.inf):
        broken = images()
        broken[0, 0, 4, 4] = value
        for names in (quantized_inputs(model), ["input"]):
            with pytest.raises(UserError, match=r"(1|input): is not finite"):
                measure_ranges(model, [images(), broken], names)


@pytest.mark.parametrize("percent", [75, 90, 99.99])
def test_an_interval_leaves_out_as_many_values_on_each_side(percent: float) -> None:
    values = (np.random.default_rng(3).standard_normal(20_000) * 2 + 1).astype(np.float32)
    measured = Range()
    measured.widen(values)
    measured.count(values)
    assert measured.interval() == (values.min(), values.max())
    low, high = measured.interval(percent)
    width = measured.largest / BINS
    allowed = len(values) * (100 - percent) / 100
    assert (values < low).sum() <= allowed and (values > high).sum() <= allowed
    assert (values > high - 2 * width).sum() > allowed - 1, "no further than needed"
    assert low == 0 or (values < low + 2 * width).sum() > allowed - 1


def test_an_interval_holds_zero_and_no_more_than_there_is() -> None:
    for values, expected in (([1.0, 2.0], (0, 2)), ([-3.0, -1.0], (-3, 0)), ([0.0, 0.0], (0, 0)), ([-1.0, 4.0], (-1, 4))):
        measured = Range()
        measured.widen(np.array(values, np.float32))
        measured.count(np.array(values, np.float32))
        assert measured.interval() == expected
        low, high = measured.interval(99.99)
        assert expected[0] <= low <= 0 <= high <= expected[1]


def test_as_many_as_may_be_left_out_are() -> None:
    """Of four values half: the interval ends at the second."""
    known = Range()
    values = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    known.widen(values)
    known.count(values)
    low, high = known.interval(50)
    assert low == 0 and 2 <= high <= 2.001
