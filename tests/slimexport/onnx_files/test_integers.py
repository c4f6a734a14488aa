"""Int8 for CPUs: the numbers next to a simulation in float64, what onnxruntime makes of the graph, and sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from slimexport.onnx_files.calibration import agreement
from slimexport.onnx_files.integers import affine, integer_values, to_integers
from slimexport.onnx_files.pairs import Affine
from slimexport.onnx_files.ranges import intervals, measure_ranges
from slimexport.target.arrays import Array
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import Wired, conv
from tests.support.int8_helpers import build, finite, images, small
from tests.support.onnx_helpers import ARCHITECTURES, SIZE, logits, network_model

FLOATS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "Add", "Concat", "AveragePool", "GlobalAveragePool", "Relu", "Clip"}


def quantized(model: onnx.ModelProto, batch: Array, bits: int = 8) -> onnx.ModelProto:
    return to_integers(model, intervals(measure_ranges(model, [batch], integer_values(model)), "max"), bits)


def optimized(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def written_out(model: onnx.ModelProto, x: Array) -> Array:
    """What the graph says, operator by operator in ONNX's own reference implementation, which begins at opset 19."""
    later = onnx.ModelProto()
    later.CopyFrom(model)
    later.opset_import[0].version, later.ir_version = 19, 9
    (result,) = ReferenceEvaluator(later).run(None, {"input": x})
    return np.asarray(result)


def near(model: onnx.ModelProto, other: onnx.ModelProto, x: Array) -> float:
    """The distance of two models' outputs on images, over the largest."""
    a, b = (logits(m, x).reshape(len(x), -1) for m in (model, other))
    return finite(agreement(a, b)).logit_distance


# ------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "interval", [(0.0, 6.0), (-1.0, 3.0), (-2.5, 0.0), (0.5, 4.0), (-3.0, -1.0), (0.0, 0.0), (-1e-3, 900.0)]
)
def test_a_form_holds_its_interval_and_zero_exactly(interval: tuple[float, float]) -> None:
    form = affine(interval)
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    held = float(form.scale) * (np.arange(256) - int(form.zero))
    assert form.zero.dtype == np.uint8 and form.scale.dtype == np.float32 and form.scale > 0
    assert held[0] <= low + 0.51 * form.scale and held[-1] >= high - 0.51 * form.scale
    assert 0.0 in held


@pytest.mark.parametrize("high", [6.0, 5.9999995, 0.1, 3.3333333])
def test_no_number_of_a_form_is_beyond_what_its_activation_lets_through(high: float) -> None:
    form = affine((0.0, high), (0.0, high))
    assert form.zero == 0 and form.scale * np.float32(255) <= high


def simulated(x: torch.Tensor, form: Affine) -> torch.Tensor:
    """Numbers as uint8 holds them, in float64."""
    integers = torch.clamp(torch.round(x.double() / float(form.scale)) + int(form.zero), 0, 255)
    return (integers - int(form.zero)) * float(form.scale)


def simulated_weights(layer: Any, levels: int) -> torch.Tensor:
    weight = layer.weight.detach().double()
    steps = (weight.reshape(len(weight), -1).abs().amax(1) / levels).clamp(min=1e-6).reshape(-1, *[1] * (weight.ndim - 1))
    return torch.round(weight / steps) * steps


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (7, 63)])
def test_a_network_computes_what_integers_compute(bits: int, levels: int) -> None:
    """Layer by layer in torch, float64, with values that reach beyond their intervals, so that clipping shows."""
    network = small()
    model = build(network)
    forms = {"input": (-2.0, 1.5), "1": (0.0, 1.0), "3": (0.0, 1.2), "4": (0.0, 0.9)}
    assert integer_values(model) == list(forms)
    ours = to_integers(model, forms, bits)
    first, second, last = (network[i] for i in (0, 2, 6))
    assert isinstance(last, nn.Linear)
    x = simulated(torch.from_numpy(images()), affine(forms["input"]))
    assert np.abs(images()).max() > 2
    with torch.no_grad():
        for layer, name, limit in ((first, "1", np.inf), (second, "3", 6.0)):
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            x = nn.functional.conv2d(x, simulated_weights(layer, levels), layer.bias.double(), layer.stride, layer.padding)
            x = simulated(x.clamp(0, limit), affine(forms[name], (0.0, limit)))
        x = simulated(x.mean((2, 3)), affine(forms["4"]))
        expected = nn.functional.linear(x, simulated_weights(last, levels), last.bias.double()).numpy()
    scale = np.abs(expected).max()
    assert np.abs(written_out(ours, images()) - expected).max() < 1e-2 * scale  # biases in int32, halves rounded elsewhere
    assert np.abs(logits(ours, images()) - expected).max() < 1e-2 * scale
    assert np.abs(logits(model, images()) - expected).max() > 3e-2 * scale


@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compute_what_the_graph_says_near_to_fp32(architecture: str, bits: int) -> None:
    model, probes = network_model(architecture), noise_images(4, SIZE, 9)
    ours = quantized(model, noise_images(8, SIZE, 5), bits)
    onnx.checker.check_model(ours.SerializeToString(), full_check=True)
    kernels, exact = logits(ours, probes), logits(model, probes)
    distance = finite(agreement(kernels, exact))
    assert 1e-5 < distance.logit_distance < 0.05 and distance.cosine > 0.99, distance
    assert finite(agreement(kernels, written_out(ours, probes))).logit_distance < 0.02


def test_weights_of_7_bits_cannot_saturate_16() -> None:
    """Two products of an input of 255 with the largest weights: what x86 without VNNI adds in 16 bits."""
    model = network_model("mobilenet_v1")
    for bits, fits in ((8, False), (7, True)):
        ours = quantized(model, noise_images(4, SIZE, 5), bits)
        weights = [tensor for tensor in ours.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        largest = max(int(np.abs(numpy_helper.to_array(tensor).astype(int)).max()) for tensor in weights)
        assert (2 * 255 * largest < 2**15) is fits


# --------------------------------------------------------------------------------------------------------------- graph


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnxruntime_runs_it_in_integers_from_the_images_to_the_last_layer(architecture: str, tmp_path: Path) -> None:
    model = network_model(architecture)
    operators = optimized(quantized(model, noise_images(4, SIZE, 5)), tmp_path)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not FLOATS & operators.keys(), operators
    assert (operators["QLinearConv"], operators["QGemm"]) == (kinds["Conv"], 1)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (1, 0)
    assert operators["QLinearAdd"] == kinds["Add"] and operators["QLinearConcat"] == kinds["Concat"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_valid_and_says_what_it_is(architecture: str) -> None:
    model = network_model(architecture)
    before = model.SerializeToString(deterministic=True)
    ours = quantized(model, noise_images(4, SIZE, 5))
    assert model.SerializeToString(deterministic=True) == before, "the source is not changed"
    onnx.shape_inference.infer_shapes(ours, check_type=True, strict_mode=True, data_prop=True)
    assert [(entry.domain, entry.version) for entry in ours.opset_import] == [("", 17)] and ours.ir_version == 8
    assert {entry.key: entry.value for entry in ours.metadata_props}["precision"] == "int8-cpu"
    assert (ours.graph.input, ours.graph.output) == (model.graph.input, model.graph.output)
    floats = [t for t in ours.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert not floats, "no weight is a float"
    named = {node.name for node in ours.graph.node if node.name}
    assert named == {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")}


def test_joined_branches_share_the_scale_of_what_they_are_joined_to() -> None:
    def joined(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        return self.last(self.flatten(self.pool(torch.cat([self.relu(self.a(x)), self.b(x)], 1))))

    parts = {"start": conv(3, 8), "a": conv(8, 8), "b": conv(8, 8), "relu": nn.ReLU()}
    ends = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(1), "last": nn.Linear(16, 4)}
    model = build(Wired(joined, **parts, **ends))
    ours = quantized(model, images())
    quantizers = {node.input[0]: list(node.input[1:]) for node in ours.graph.node if node.op_type == "QuantizeLinear"}
    through = {node.output[0]: node.input[0] for node in ours.graph.node if node.op_type == "DequantizeLinear"}
    sources = {node.output[0]: node.input[0] for node in ours.graph.node if node.op_type == "QuantizeLinear"}
    (concat,) = (node for node in ours.graph.node if node.op_type == "Concat")
    a, b = (quantizers[sources[through[name]]] for name in concat.input)
    # What is joined has negative numbers, so the branch whose ReLU cuts off at zero keeps a form that does.
    assert b == quantizers[concat.output[0]] and a != b
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in ours.graph.initializer}
    assert arrays[a[1]] == 0 and arrays[b[1]] > 0
    assert near(ours, model, images()) < 0.02


def test_layers_that_run_twice_have_one_weight_and_a_bias_for_each_input() -> None:
    def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.relu(self.same(self.start(x))))

    model = build(Wired(twice, start=conv(3, 16), same=conv(16, 16), relu=nn.ReLU()))
    ours = quantized(model, images())
    kinds = Counter(tensor.data_type for tensor in ours.graph.initializer if len(tensor.dims))
    assert kinds[onnx.TensorProto.INT8] == 2 and kinds[onnx.TensorProto.INT32] == 3
    assert near(ours, model, images()) < 0.02


def test_a_model_that_ends_in_a_convolution_keeps_its_results_name(tmp_path: Path) -> None:
    model = build(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4)))
    ours = quantized(model, images())
    operators = optimized(ours, tmp_path)
    assert operators["QLinearConv"] == 2 and not FLOATS & operators.keys()
    assert logits(ours, images()).shape == logits(model, images()).shape
    assert near(ours, model, images()) < 0.02


def test_unknown_operators_stay_float_between_integers(tmp_path: Path) -> None:
    """A sigmoid has no integer form here; what reads it is quantized again."""
    model = build(nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 8)))
    nodes = list(model.graph.node)
    nodes[1].CopyFrom(onnx.helper.make_node("Sigmoid", list(nodes[1].input), list(nodes[1].output), name="1"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert integer_values(model) == ["input", "1", "0", "output"]
    ours = quantized(model, images())
    onnx.checker.check_model(ours.SerializeToString(), full_check=True)
    assert optimized(ours, tmp_path)["QLinearConv"] == 2
    assert near(ours, model, images()) < 0.02


def test_names_of_the_network_are_not_taken() -> None:
    """A network whose own values are called as pairs' are."""
    model = build(Wired(lambda self, x: self.d2(self.q1(x)), q1=conv(3, 16), d2=conv(16, 8)))
    ours = quantized(model, images())
    onnx.checker.check_model(ours.SerializeToString(), full_check=True)
    assert near(ours, model, images()) < 0.02
