"""The models that layers are measured with: valid, of the stated shape, and different by the layer alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.onnx_models.layer import image_channels, reads_images, with_layer, without_layer
from slimtrain.base.image_size import sides
from slimtrain.costs.layer_shapes import CONV, DEPTHWISE, LINEAR, LayerShape
from tests.support.bench_models import LAYERS, run, sizes


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [1, 8, 12, 14, 24])
def test_models_are_valid_run_and_make_ordinary_numbers(name: str, count: int) -> None:
    layer = LAYERS[name]
    inp, out = sizes(layer, count)
    images = np.random.default_rng(0).standard_normal((2, image_channels(layer), *sides(layer.size))).astype(np.float32)
    for content, features in ((with_layer(layer, inp, out, 3), 3 * out), (without_layer(layer, inp, 3), 3 * inp)):
        onnx.checker.check_model(content, full_check=True)
        outputs = run(content, images)
        assert outputs.shape == (2, features) and np.isfinite(outputs).all()
        if count > 1:  # one random weight may be small
            assert 0.1 < outputs.std() < 10
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
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer if list(tensor.dims) == [40, 24, 1, 1]]
    assert len(weights) == 4
    assert all(not np.array_equal(weights[0], tensor) for tensor in weights[1:])
    assert with_layer(LAYERS["pointwise"], 24, 40) == with_layer(LAYERS["pointwise"], 24, 40)  # and are the same each time


@pytest.mark.parametrize("count", [1, 14, 24])
@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (LayerShape("gray stem", CONV, 3, 2, (32, 20), 1, 16, "relu6"), 1),
        (LayerShape("stem of four", CONV, 3, 2, (20, 33), 4, 16, "relu"), 4),
        (LayerShape("tall", DEPTHWISE, 3, 2, (15, 6), 24, 24, "relu6"), 3),
        (LayerShape("wide", CONV, 1, 1, (6, 15), 24, 40), 3),
        (LayerShape("pooled", LINEAR, 1, 1, (2, 3), 24, 10), 3),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_layers_of_other_images(layer: LayerShape, channels: int, count: int) -> None:
    """The image has the layer's size and a stem's channels; what is before it has its inputs; probes see one pixel."""
    assert image_channels(layer) == channels
    inp = channels if reads_images(layer) else count
    out = inp if layer.kind == DEPTHWISE else 10 if layer.kind == LINEAR else count + 8
    images = np.random.default_rng(0).standard_normal((2, channels, *sides(layer.size))).astype(np.float32)
    for content, features in ((with_layer(layer, inp, out, 3), 3 * out), (without_layer(layer, inp, 3), 3 * inp)):
        onnx.checker.check_model(content, full_check=True)
        outputs = run(content, images)
        assert outputs.shape == (2, features) and np.isfinite(outputs).all()
