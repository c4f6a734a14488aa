"""The choice of a calibration method: the nearer one on held-back images, and figures by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from torch import nn

from slimexport.onnx_files.calibration import Calibrated, Calibration, MethodChoice, Scheme, agreement, integers, symmetric
from slimexport.onnx_files.integers import integer_values, to_integers
from slimexport.onnx_files.methods import usual_images
from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.onnx_files.ranges import activation_scales, intervals, measure_ranges
from slimtrain.base.errors import UserError
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import conv
from tests.support.int8_helpers import build, finite, images, small
from tests.support.onnx_helpers import SIZE, logits, network_model

Batches = list[NDArray[np.float32]]


def choose_method(
    model: onnx.ModelProto, fit: Batches, held: Batches, methods: str = "auto", scheme: Scheme | None = None
) -> MethodChoice:
    scheme = scheme or symmetric()
    return Calibrated(model, Calibration(fit, held, methods), [scheme]).choose(scheme)


def distance_of(choice: MethodChoice, method: str) -> float:
    return finite(choice.tried[method]).logit_distance


def test_agreement_by_hand() -> None:
    reference = np.array([[3.0, 4.0], [-8.0, 6.0]])
    outputs = np.array([[4.0, 3.0], [-8.0, 6.0]])
    near = finite(agreement(outputs, reference))
    assert near.logit_distance == pytest.approx(np.sqrt(2 / 4) / 8)
    assert near.top1_agreement == 0.5
    assert near.cosine == pytest.approx((24 / 25 + 1) / 2)
    assert finite(agreement(reference, reference)).logit_distance == 0
    assert agreement(outputs * np.nan, reference) is None


@pytest.mark.parametrize("architecture", ["mobilenet_v1", "mnasnet"])
def test_the_method_chosen_is_the_nearer_one_on_held_back_images(architecture: str) -> None:
    model = network_model(architecture)
    fit, held = [noise_images(4, SIZE, 5), noise_images(3, SIZE, 6)], [noise_images(4, SIZE, 9), noise_images(2, SIZE, 8)]
    choice = choose_method(model, fit, held)
    distances = {}
    ranges = measure_ranges(model, fit, quantized_inputs(model))
    exact = logits(model, np.concatenate(held)).astype(np.float64)
    for method in ("max", "percentile"):
        int8_logits = logits(quantize(model, activation_scales(ranges, method)), np.concatenate(held))
        distances[method] = float(np.sqrt(((int8_logits - exact) ** 2).mean()) / np.abs(exact).max())
    assert choice.method == min(distances, key=distances.__getitem__)
    described = choice.described(8)
    assert (described.method, described.images, described.held_back, described.weight_bits) == (choice.method, 7, 6, 8)
    tried = {method: finite(result) for method, result in described.tried.items()}
    assert {method: result.logit_distance for method, result in tried.items()} == pytest.approx(distances, rel=0.05)
    assert all(0 <= (result.top1_agreement or 0.0) <= 1 and 0.9 < result.cosine <= 1 for result in tried.values())


@pytest.mark.parametrize("bits", [8, 7])
def test_files_for_cpus_choose_by_their_own_models(bits: int) -> None:
    model = network_model("mobilenet_v1")
    fit, held = [noise_images(4, SIZE, 5)], [noise_images(4, SIZE, 9)]
    choice = choose_method(model, fit, held, scheme=integers(bits))
    ranges = measure_ranges(model, fit, integer_values(model))
    for method, result in choice.tried.items():
        expected = agreement(logits(to_integers(model, intervals(ranges, method), bits), held[0]), logits(model, held[0]))
        assert finite(result).logit_distance == pytest.approx(finite(expected).logit_distance, rel=0.05)
    assert choice.described(bits).weight_bits == bits


def test_ranges_are_measured_once_for_all_schemes() -> None:
    model = build(small())
    both = [symmetric(), integers(8)]
    calibrated = Calibrated(model, Calibration([images()], [images(seed=2)], "max"), both)
    assert set(calibrated.ranges) == {*quantized_inputs(model), *integer_values(model)}
    assert {calibrated.choose(scheme).method for scheme in both} == {"max"}


def test_an_outlier_among_the_images_makes_it_the_percentile() -> None:
    model = build(small(), size=48)
    fit = images(64, 48)
    fit[7, :, 20, 20] = 300  # 9 of 46 * 46 * 64 places see it, under 0.01 %
    choice = choose_method(model, [fit], [images(8, 48, seed=2)])
    assert choice.method == "percentile"
    assert distance_of(choice, "percentile") < 0.2 * distance_of(choice, "max")
    assert choose_method(model, [fit], [images(8, 48, seed=2)], methods="max").method == "max"


def test_rare_values_that_decide_make_it_the_maximum() -> None:
    """One bright pixel of 110 * 110, under 0.01 %, is what a network with maximum pooling answers to."""
    model = build(nn.Sequential(conv(3, 16, 1), conv(16, 16, 1), nn.MaxPool2d(110), nn.Flatten(1)), size=110)
    draw = np.random.default_rng(0)

    def bright(count: int) -> NDArray[np.float32]:
        batch = np.zeros((count, 3, 110, 110), np.float32)
        batch[:, :, 50, 50] = draw.uniform(1, 100, (count, 3))
        return batch

    choice = choose_method(model, [bright(6)], [bright(6)])
    assert choice.method == "max"
    assert distance_of(choice, "max") < 0.2 * distance_of(choice, "percentile")


def test_equals_take_the_first_method() -> None:
    model = build(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4)))  # nothing gains, so nothing is quantized
    choice = choose_method(model, [images()], [images(seed=2)])
    assert choice.method == "max"
    assert [distance_of(choice, method) for method in choice.tried] == [0, 0]


def test_a_choice_needs_images_on_both_sides() -> None:
    model = build(small())
    with pytest.raises(UserError, match="no images to calibrate"):
        choose_method(model, [], [images()])
    with pytest.raises(UserError, match="no calibration images were held back"):
        choose_method(model, [images()], [])
    with pytest.raises(UserError, match="not finite"):
        choose_method(model, [images()], [images() * np.float32(np.inf)])


def test_large_images_are_fewer_and_run_one_by_one() -> None:
    assert usual_images(224 * 224) == 512 and usual_images(800 * 1344) == 62 and usual_images(2**24) == 32
    large = Calibration.of([np.zeros((5, 1, 800, 1344), np.float32)], "max")
    assert [len(batch) for batch in large.fit] == [1] * 4 and [len(batch) for batch in large.held] == [1]
    small = Calibration.of([np.zeros((15, 1, 32, 32), np.float32)], "max")
    assert [len(batch) for batch in small.fit] == [8, 4] and [len(batch) for batch in small.held] == [3]
