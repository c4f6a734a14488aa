"""The models that layers are measured with: valid, of the stated shape, and different by the layer alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.cells.backends import TENSORRT
from benchmarks.cells.cell import Array, NotMeasured
from benchmarks.layers.layer_times import MOST_MODELS, ChannelPoint, LayerTime, copies_of, groups, measure_layer, models_of
from benchmarks.layers.model_timer import TABLE_BACKENDS, Model, ModelTimer
from benchmarks.onnx_models.layer import COPIES, with_layer, without_layer
from benchmarks.onnx_models.network import network_model
from slimtrain.costs.cost import CostCounter
from slimtrain.costs.layer_shapes import CONV, DEPTHWISE, LINEAR, LayerShape, layer_shapes
from slimtrain.models.published import published_spec
from tests.support.channel_fakes import OTHER_MS, START_MS, FormulaTimer, layer_ms, linear_ms, model_ms

LAYERS = {
    "stem": LayerShape("stem", CONV, 3, 2, 32, 3, 16, "relu6"),
    "pointwise": LayerShape("pointwise", CONV, 1, 1, 7, 24, 40, "relu"),
    "bare": LayerShape("bare", CONV, 3, 1, 7, 24, 40),
    "depthwise": LayerShape("depthwise", DEPTHWISE, 5, 2, 14, 24, 24, "relu6"),
    "linear": LayerShape("linear", LINEAR, 1, 1, 7, 24, 10),
}


def run(content: bytes, images: Array) -> Array:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": images})[0])


def sizes(layer: LayerShape, count: int) -> ChannelPoint:
    inp = 3 if layer.inp == 3 else count
    return inp, inp if layer.kind == DEPTHWISE else 10 if layer.kind == LINEAR else count + 8


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [1, 8, 12, 14, 24])
def test_models_are_valid_run_and_make_ordinary_numbers(name: str, count: int) -> None:
    layer = LAYERS[name]
    inp, out = sizes(layer, count)
    images = np.random.default_rng(0).standard_normal((2, 3, layer.side, layer.side)).astype(np.float32)
    for content, features in ((with_layer(layer, inp, out, 3), 3 * out), (without_layer(layer, inp, 3), 3 * inp)):
        onnx.checker.check_model(content, full_check=True)
        made = run(content, images)
        assert made.shape == (2, features) and np.isfinite(made).all()
        if count > 1:  # one random weight may be small
            assert 0.1 < made.std() < 10
        for tensor in onnx.load_model_from_string(content).graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.size > 1:  # not a bound of relu6
                assert (np.abs(values) > 1e-12).all()
                assert values.std() < 2


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [14, 24])
def test_the_difference_is_the_layer_and_its_activation(name: str, count: int) -> None:
    layer = LAYERS[name]
    inp, out = sizes(layer, count)
    rest, whole = (
        Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)
        for content in (without_layer(layer, inp, 4), with_layer(layer, inp, out, 4))
    )
    more = whole - rest
    less = rest - whole
    if layer.kind == LINEAR:  # it needs no probe: its result is small
        assert more == {"GlobalAveragePool": 4, "Gemm": 4, "Flatten": 4} and sum(less.values()) == 4
        return
    wanted = Counter({"Conv": 4})
    if layer.activation:
        wanted["Relu" if layer.activation == "relu" else "Clip"] = 4
    if layer.inp == 3 and out % 4 == 0:  # the image's probe is a pool, the layer's a convolution
        wanted["Conv"] += 4
        assert less == {"MaxPool": 4}
    else:
        assert not less
    assert more == wanted


def test_copies_have_weights_of_their_own() -> None:
    graph = onnx.load_model_from_string(with_layer(LAYERS["pointwise"], 24, 40, 4)).graph
    weights = [numpy_helper.to_array(each) for each in graph.initializer if list(each.dims) == [40, 24, 1, 1]]
    assert len(weights) == 4
    assert all(not np.array_equal(weights[0], each) for each in weights[1:])
    assert with_layer(LAYERS["pointwise"], 24, 40) == with_layer(LAYERS["pointwise"], 24, 40)  # and are the same each time


def known_ms(layer: LayerShape, inp: int, out: int) -> float:
    if layer.kind == LINEAR:  # with the pool before it; a probe less
        probe = layer_ms(1, 1, inp, inp, 1) if inp % 4 == 0 else OTHER_MS
        return linear_ms(inp, out) + 2 * OTHER_MS - probe
    positions = layer.out_side**2
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
    found = measure_layer(FormulaTimer(), layer, points, 0.1, taken.append)
    assert set(found) == set(points) and [(time.inp, time.out) for time in taken] == list(dict.fromkeys(points))
    for point, time in found.items():
        assert time.ms == pytest.approx(known_ms(layer, *point), rel=1e-9), point
        assert time.with_ms > time.without_ms and time.noise_ms == 0


def test_noise_is_what_both_models_rounds_differ_by() -> None:
    layer = LAYERS["pointwise"]
    timer = FormulaTimer(noise=0.1)
    (time,) = measure_layer(timer, layer, [(24, 40)], 0.1).values()
    assert time.noise_ms == pytest.approx(0.1 * (time.with_ms + time.without_ms) / 2 / time.copies)


def test_large_layers_have_fewer_copies() -> None:
    wide = LayerShape("wide", CONV, 3, 1, 7, 512, 512)
    assert copies_of(wide, [(512, 512)]) == 1
    assert copies_of(wide, [(64, 64)]) == COPIES
    assert copies_of(LAYERS["depthwise"], [(960, 960)]) == COPIES  # not 960 x 960 weights
    assert copies_of(LayerShape("pw", CONV, 1, 1, 7, 1024, 1024), [(1024, 1024), (8, 8)]) == 2


def test_few_models_are_open_at_once_and_shared_ones_once() -> None:
    points = [(inp, out) for inp in (8, 16, 24) for out in range(8, 80, 8)]
    parts = list(groups(points))
    assert [point for part in parts for point in part] == points
    for part in parts:
        assert len(part) + len({inp for inp, _ in part}) <= MOST_MODELS
    timer = FormulaTimer()
    measure_layer(timer, LAYERS["pointwise"], points, 0.1)
    assert sum(timer.calls) == models_of(points) < 2 * len(points)
    assert models_of([(8, 8), (8, 8)]) == 2


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "s_resnet50", "s_shufflenet", "autoslim_mnasnet"])
def test_whole_networks_are_the_architecture_s(name: str) -> None:
    """Weights and MACs are the cost counter's, and logits are ordinary and depend on the image."""
    spec, size = published_spec(name, classes=10), 64
    plan = spec.plans[0]
    content = network_model(spec, plan, size)
    onnx.checker.check_model(content, full_check=True)
    graph = onnx.load_model_from_string(content).graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    layered = [weights[source] for node in graph.node if node.op_type in ("Conv", "Gemm") for source in node.input[1:]]
    cost = CostCounter(spec, size)(plan)
    assert sum(each.size for each in layered) == cost.params
    assert len(layered) == 2 * cost.layers == 2 * len(layer_shapes(spec, size))
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    made = run(content, images)
    assert made.shape == (2, 10) and 0.1 < made.std() < 100
    assert not np.allclose(made[0], made[1], atol=1e-7)


def test_a_network_computes_what_the_dense_one_does() -> None:
    """The same weights in a dense torch network give the same logits: order, shuffles, sums and pools are right."""
    import torch
    from torch import nn

    from slimtrain.slimmable.build import DenseLayers

    for name in ("s_shufflenet", "s_resnet50", "us_mobilenet_v2"):
        spec = published_spec(name, classes=7)
        plan = spec.plans[0]
        content = network_model(spec, plan, 64)
        graph = onnx.load_model_from_string(content).graph
        weights = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
        pairs = [[weights[each] for each in node.input[1:]] for node in graph.node if node.op_type in ("Conv", "Gemm")]
        dense = spec.build(DenseLayers(plan)).eval()
        modules = dict(dense.named_modules())
        for module in modules.values():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for path, (weight, bias) in zip((layer.name for layer in layer_shapes(spec, 64)), pairs, strict=True):
                modules[path].weight.copy_(weight)
                if isinstance(modules[path], nn.Linear):
                    modules[path].bias.copy_(bias)
                else:  # its norm, at the statistics 0 and 1, adds the bias
                    parent, _, place = path.rpartition(".")
                    modules[f"{parent}.{int(place) + 1}"].bias.copy_(bias)
            wanted = dense(images).numpy()
        np.testing.assert_allclose(run(content, images.numpy()), wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_real_timer_measures_and_refuses() -> None:
    pytest.importorskip("onnxruntime")
    layer = LAYERS["pointwise"]
    timer = ModelTimer("onnxruntime-cpu", 2, 1)
    models = {"with": Model(7, lambda: with_layer(layer, 24, 40)), "without": Model(7, lambda: without_layer(layer, 24))}
    found = timer(models, 0.01)
    assert set(found) == set(models) and all(0 < each.ms <= each.high_ms for each in found.values())
    assert timer.settings["threads"] == 1 and timer.settings["provider"] == "CPUExecutionProvider"
    with pytest.raises(NotMeasured, match=f"Choose from {', '.join(TABLE_BACKENDS)}"):
        ModelTimer(TENSORRT, 1, 1)(models, 0.01)
    with pytest.raises(NotMeasured, match="bad: "):
        timer({"bad": Model(7, lambda: b"no model")}, 0.01)
    assert model_ms(models["with"].make()) > START_MS
