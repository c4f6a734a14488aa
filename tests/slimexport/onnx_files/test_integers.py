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
    """A hyperbolic tangent has no integer form here; what reads it is quantized again."""
    model = build(nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 8)))
    nodes = list(model.graph.node)
    nodes[1].CopyFrom(onnx.helper.make_node("Tanh", list(nodes[1].input), list(nodes[1].output), name="1"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert integer_values(model) == ["input", "1", "0", "output"]
    ours = quantized(model, images())
    onnx.checker.check_model(ours.SerializeToString(), full_check=True)
    assert optimized(ours, tmp_path)["QLinearConv"] == 2
    assert near(ours, model, images()) < 0.02


def as_integers(x: Array, form: Affine) -> Array:
    """Numbers as uint8 holds them, in numpy, float64."""
    integers = np.clip(np.rint(x / float(form.scale)) + int(form.zero), 0, 255)
    return (integers - int(form.zero)) * float(form.scale)


def test_a_hard_swish_runs_in_integers_and_computes_what_they_compute(tmp_path: Path) -> None:
    """Next to a simulation in numpy; the gate is cut off at 0 and at 1, which both occur."""
    network = nn.Sequential(conv(3, 16), nn.Hardswish(), conv(16, 8))
    model = build(network)
    x = 6 * images()
    ranges = measure_ranges(model, [x], integer_values(model))
    assert list(ranges) == ["input", "0", "1", "output"], "a gate's interval is known"
    taken = intervals(ranges, "max")
    ours = to_integers(model, taken)
    first, _, last = network
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)

    def convolved(values: Array, layer: nn.Conv2d) -> Array:
        weight, bias = simulated_weights(layer, 127), layer.bias
        assert bias is not None
        result = nn.functional.conv2d(torch.from_numpy(values), weight, bias.double(), layer.stride, layer.padding)
        return np.asarray(result.detach())

    values = as_integers(convolved(as_integers(x.astype(np.float64), affine(taken["input"])), first), affine(taken["0"]))
    gate = as_integers(np.clip(values / 6 + 0.5, 0, 1), affine((0.0, 1.0)))
    assert (gate == 0).any() and (gate > 1 - 1e-6).any()
    values = as_integers(values * gate, affine(taken["1"]))
    expected = as_integers(convolved(values, last), affine(taken["output"]))
    step = float(affine(taken["output"]).scale)
    assert np.abs(written_out(ours, x) - expected).max() < 3 * step
    assert np.abs(logits(ours, x) - expected).max() < 3 * step
    operators = optimized(ours, tmp_path)
    assert not (FLOATS | {"HardSigmoid", "Mul"}) & operators.keys(), operators
    assert (operators["QLinearConv"], operators["QLinearAdd"], operators["QLinearMul"]) == (2, 1, 1)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (1, 1)


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid()])
def test_gates_of_channels_run_in_integers(gate: nn.Module, tmp_path: Path) -> None:
    def gated(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        return self.last(x * self.gate(self.inner(self.pool(x))))

    parts = {"start": conv(3, 16), "pool": nn.AdaptiveAvgPool2d(1), "inner": nn.Conv2d(16, 16, 1), "last": conv(16, 8)}
    model = build(Wired(gated, **parts, gate=gate))
    ours = quantized(model, images(16))
    operators = optimized(ours, tmp_path)
    assert not (FLOATS | {"HardSigmoid", "Sigmoid", "Mul"}) & operators.keys(), operators
    assert operators["QLinearMul"] == 1 and operators["DequantizeLinear"] == 1, "none is left over"
    assert near(ours, model, images()) < 0.02


class Block(nn.Module):
    """As of a transformer, on places of images."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.norm, self.wide, self.narrow = conv(3, 16), nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x).flatten(2).transpose(1, 2)
        for _ in range(2):
            x = x + self.narrow(nn.functional.gelu(self.wide(self.norm(x))))
        return torch.as_tensor(self.last(x.mean(1)))


def test_linear_layers_of_transformers_read_integers_and_give_floats(tmp_path: Path) -> None:
    model = build(Block())
    ours = quantized(model, images(16))
    onnx.checker.check_model(ours, full_check=True)
    operators = optimized(ours, tmp_path)
    assert operators["MatMulIntegerToFloat"] == 4 and "QLinearAdd" not in operators and "MatMul" not in operators
    assert near(ours, model, images()) < 0.01
    assert finite(agreement(logits(ours, images()), written_out(ours, images()))).logit_distance < 0.01


def test_the_weights_of_a_matrix_have_a_scale_for_each_column() -> None:
    """Columns of very different size, one of them all zero: each is as exact as its own largest weight lets it be."""
    columns = np.array([100.0, 1.0, 0.01, 0.0], np.float32)
    values = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32) * columns
    model = build(nn.Sequential(conv(3, 4)))
    model.graph.initializer.append(numpy_helper.from_array(values, "matrix"))
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("MatMul", ["input", "matrix"], ["output"], name="product"))
    ours = quantized(model, images(16))
    x = as_integers(
        images().astype(np.float64), affine(intervals(measure_ranges(model, [images(16)], ["input"]), "max")["input"])
    )
    steps = np.maximum(np.abs(values).max(0) / 127, 1e-6)
    expected = x @ (np.rint(values / steps) * steps)
    scale = np.abs(expected).max((0, 1, 2)) + 1e-30
    assert (np.abs(logits(ours, images()) - expected).max((0, 1, 2)) < 1e-4 * scale).all()
    assert (np.abs(expected - x @ values.astype(np.float64)).max((0, 1, 2))[:3] < 0.02 * scale[:3]).all()


def test_a_norm_by_itself_is_exact_but_for_its_activations(tmp_path: Path) -> None:
    """As in DenseNet: norm, then ReLU, then a convolution. One weight per channel has no rounding, whatever its scale."""

    def normed(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        return self.last(self.relu(self.norm(x)) + x)

    parts = {"start": conv(3, 16), "norm": nn.BatchNorm2d(16), "relu": nn.ReLU(), "last": conv(16, 8)}
    model = build(Wired(normed, **parts))
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    ours = quantized(model, images(16))
    operators = optimized(ours, tmp_path)
    assert not (FLOATS | {"BatchNormalization"}) & operators.keys(), operators
    assert near(ours, model, images()) < 0.02


def test_results_are_told_as_floats_and_read_on() -> None:
    """Features that a network gives out and goes on from, moved ones among them; a last gate is no integer either."""

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.pool, self.second = conv(3, 16), nn.MaxPool2d(2), conv(16, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            pooled = self.pool(self.start(x).relu())
            return pooled, torch.sigmoid(self.second(pooled))

    model = build(Features())
    ours = quantized(model, images(16))
    onnx.checker.check_model(ours, full_check=True)
    assert [result.name for result in ours.graph.output] == [result.name for result in model.graph.output]
    writers = {node.output[0]: node.op_type for node in ours.graph.node}
    assert [writers[result.name] for result in ours.graph.output] == ["MaxPool", "Sigmoid"]
    session, exact = (onnxruntime.InferenceSession(one.SerializeToString()) for one in (ours, model))
    for a, b in zip(session.run(None, {"input": images()}), exact.run(None, {"input": images()}), strict=True):
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()


def test_images_that_are_moved_first_become_integers_where_a_layer_reads_them() -> None:
    def moved(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.first(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1))

    model = build(Wired(moved, first=nn.Conv2d(6, 8, 3)), size=8)
    ours = quantized(model, images(16, 8))
    onnx.checker.check_model(ours, full_check=True)
    assert near(ours, model, images(4, 8)) < 0.02


def test_names_of_the_network_are_not_taken() -> None:
    """A network whose own values are called as pairs' are."""
    model = build(Wired(lambda self, x: self.d2(self.q1(x)), q1=conv(3, 16), d2=conv(16, 8)))
    ours = quantized(model, images())
    onnx.checker.check_model(ours.SerializeToString(), full_check=True)
    assert near(ours, model, images()) < 0.02
