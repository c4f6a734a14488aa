"""A layer's time out of the difference of two models."""

from __future__ import annotations

import pytest

from benchmarks.layers.layer_models import ShapeModels
from benchmarks.layers.layer_times import MOST_MODELS, LayerTime, copies_of, groups, measure_layer, models_of
from benchmarks.onnx_models.layer import COPIES
from slimtrain.costs.layer_shapes import CONV, DEPTHWISE, LINEAR, LayerShape
from tests.support.bench_models import LAYERS, sizes
from tests.support.channel_fakes import OTHER_MS, FormulaTimer, layer_ms, linear_ms


def known_ms(layer: LayerShape, inp: int, out: int) -> float:
    if layer.kind == LINEAR:  # with the pool before it; a probe less
        probe = layer_ms(1, 1, inp, inp, 1) if inp % 4 == 0 else OTHER_MS
        return linear_ms(inp, out) + 2 * OTHER_MS - probe
    positions = layer.positions
    own = layer_ms(layer.kernel, 1, inp, inp, positions) if layer.kind == DEPTHWISE else 0
    own = own or layer_ms(layer.kernel, inp, out, 1, positions)
    probes = [layer_ms(1, 1, count, count, 1) if count % 4 == 0 else OTHER_MS for count in (out, inp)]
    return own + (OTHER_MS if layer.activation else 0) + probes[0] - probes[1]


@pytest.mark.parametrize("name", LAYERS)
def test_differences_recover_known_times(name: str) -> None:
    """Whatever the neighbours and the session take: what comes out is the layer, its activation and the probes' difference."""
    layer = LAYERS[name]
    points = [sizes(layer, count) for count in (8, 12, 14, 16, 24, 48, 100)]
    taken: list[LayerTime] = []
    times = measure_layer(FormulaTimer(), ShapeModels(layer), points, 0.1, taken.append)
    assert set(times) == set(points) and [(time.inp, time.out) for time in taken] == list(dict.fromkeys(points))
    for point, time in times.items():
        assert time.ms == pytest.approx(known_ms(layer, *point), rel=1e-9), point
        assert time.with_ms > time.without_ms and time.noise_ms == 0


def test_noise_is_what_both_models_rounds_differ_by() -> None:
    layer = LAYERS["pointwise"]
    timer = FormulaTimer(noise=0.1)
    (time,) = measure_layer(timer, ShapeModels(layer), [(24, 40)], 0.1).values()
    assert time.noise_ms == pytest.approx(0.1 * (time.with_ms + time.without_ms) / 2 / time.copies)


def test_large_layers_have_fewer_copies() -> None:
    wide = LayerShape("wide", CONV, 3, 1, 7, 512, 512)
    assert copies_of(ShapeModels(wide), [(512, 512)]) == 1
    assert copies_of(ShapeModels(wide), [(64, 64)]) == COPIES
    assert copies_of(ShapeModels(LAYERS["depthwise"]), [(960, 960)]) == COPIES  # not 960 x 960 weights
    assert copies_of(ShapeModels(LayerShape("pw", CONV, 1, 1, 7, 1024, 1024)), [(1024, 1024), (8, 8)]) == 2


def test_few_models_are_open_at_once_and_shared_ones_once() -> None:
    points = [(inp, out) for inp in (8, 16, 24) for out in range(8, 80, 8)]
    layer = ShapeModels(LAYERS["pointwise"])
    parts = list(groups(layer, points))
    assert [point for part in parts for point in part] == points
    for part in parts:
        assert len(part) + len({inp for inp, _ in part}) <= MOST_MODELS
    timer = FormulaTimer()
    measure_layer(timer, layer, points, 0.1)
    assert sum(timer.calls) == models_of(layer, points) < 2 * len(points)
    assert models_of(layer, [(8, 8), (8, 8)]) == 2
