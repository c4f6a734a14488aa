"""Int8: where pairs sit on every kind of network, both emissions, and the numbers next to numpy's and to
onnxruntime.quantization's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime.quantization as ort_quantization
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import nn
from torch.nn import functional as F

from slimexport.onnx_files.calibration import agreement
from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.onnx_files.ranges import Range, activation_scales, measure_ranges, weight_scales
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimtrain.base.errors import UserError
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import Wired, conv
from tests.support.int8_helpers import Pair, build, finite, images, pairs, quantized_layers, scaled, small
from tests.support.onnx_helpers import ARCHITECTURES, SIZE, logits, network_model, relative, stored

FLOORS = {False: np.float32(1e-6), True: np.float32(2.0**-14)}

# Old versions of onnxruntime quantize fp16 wrongly on a CPU; there the cast twin shows what the file computes.
# onnxruntime 1.23 is off by one step.
HALVES = [False, True] if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 31) else [False]


# ---------------------------------------------------------------------------------------------------------- placement


@pytest.fixture(params=[(name, half) for name in ARCHITECTURES for half in (False, True)], ids=lambda p: f"{p[0]}-{p[1]}")
def placed(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto, bool]:
    """An fp32 network, its int8 form, and whether that has fp16 around its pairs."""
    name, half = request.param
    model = network_model(name)
    return model, scaled(model, half), half


Placed = tuple[onnx.ModelProto, onnx.ModelProto, bool]


def test_every_pair_follows_the_rules(placed: Placed) -> None:
    model, quantized, half = placed
    through, weights, biases = pairs(quantized), stored(model), stored(quantized)
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in quantized.graph.node:
        for i, name in enumerate(node.input):
            if name in through:
                readers.setdefault(name, []).append((node.op_type, i))
    assert readers.keys() == through.keys(), "every pair is read"
    for name, pair in through.items():
        assert pair.zero.dtype == np.int8 and not pair.zero.any() and pair.zero.shape == pair.scale.shape
        assert pair.scale.dtype == (np.float16 if half else np.float32)
        assert (pair.scale > 0).all() and np.isfinite(pair.scale).all()
        if pair.stored is not None:
            assert pair.axis == 0 and pair.stored.dtype == np.int8
            assert list(pair.stored.shape) == list(weights[pair.source].dims) and pair.scale.shape == (len(pair.stored),)
            assert set(readers[name]) <= {("Conv", 1), ("Gemm", 1)}
        else:
            assert pair.axis is None and pair.scale.shape == ()
            assert set(readers[name]) <= {("Conv", 0), ("Gemm", 0), ("Add", 0), ("Add", 1)}
    for node in quantized.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert (node.input[0] in through) == (node.input[1] in through), "both operands or neither"
            assert node.input[2] in weights and node.input[2] in biases, "biases stay float"


def quantized_weights(through: dict[str, Pair]) -> list[str]:
    return [pair.source for pair in through.values() if pair.stored is not None]


def test_pairs_are_all_that_is_added(placed: Placed) -> None:
    """Taking them out again gives the network that was."""
    model, quantized, half = placed
    through = pairs(quantized)
    left = []
    for node in quantized.graph.node:
        if not node.op_type.endswith("Linear") and node.op_type != "Cast":
            node.input[:] = [through[name].source if name in through else name for name in node.input]
            left.append(node)
    assert not set(quantized_weights(through)) & set(stored(quantized)), "no weight is there twice"
    if half:
        first, last = model.graph.input[0].name, model.graph.output[0].name
        for node in left:
            node.input[:] = [first if name == f"{first}.typed" else name for name in node.input]
            node.output[:] = [last if name == f"{last}.typed" else name for name in node.output]
    assert left == list(model.graph.node)
    kept = [name for name in stored(model) if name not in quantized_weights(through)]
    assert [tensor.name for tensor in quantized.graph.initializer][: len(kept)] == kept


def test_both_emissions_are_valid_and_say_what_they_are(placed: Placed) -> None:
    model, quantized, half = placed
    assert [(entry.domain, entry.version) for entry in quantized.opset_import] == [("", 19 if half else 17)]
    assert quantized.ir_version == (9 if half else 8)
    assert {entry.key: entry.value for entry in quantized.metadata_props}["precision"] == ("int8-fp16" if half else "int8")
    assert {entry.key: entry.value for entry in model.metadata_props}["precision"] == "fp32", "the source is not changed"
    onnx.checker.check_model(quantized.SerializeToString(), full_check=True)
    graph = onnx.shape_inference.infer_shapes(quantized, check_type=True, strict_mode=True, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    around = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    for node in quantized.graph.node:
        for name in node.output:
            if name != "output":
                assert kinds[name] == (TensorProto.INT8 if node.op_type == "QuantizeLinear" else around), name
    assert (quantized.graph.input, quantized.graph.output) == (model.graph.input, model.graph.output)
    assert sum(node.op_type == "Cast" for node in quantized.graph.node) == (2 if half else 0)


def sources(model: onnx.ModelProto) -> dict[str, int]:
    """What made the activations that have a pair: operators, with their number."""
    operators = {name: node.op_type for node in model.graph.node for name in node.output}
    counts: dict[str, int] = {}
    for pair in pairs(model).values():
        if pair.source in operators:
            counts[operators[pair.source]] = counts.get(operators[pair.source], 0) + 1
    return counts


def test_mobilenet_v1_has_pairs_after_the_clip_and_none_below_16_channels() -> None:
    model = network_model("mobilenet_v1")
    quantized = scaled(model)
    layers = {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    # 3 -> 8 (the stem), 8 depthwise, 8 -> 16: too few channels; from the depthwise convolution of 16 on all are quantized
    assert layers - quantized_layers(quantized) == {"features.0.0", "features.1.body.0", "features.1.body.3"}
    assert sources(quantized) == {"Clip": 24, "Flatten": 1}
    readers = [node for node in quantized.graph.node if node.op_type == "Clip"]
    operators = {name: node.op_type for node in quantized.graph.node for name in node.output}
    assert {operators[node.input[0]] for node in readers} == {"Conv"}, "nothing between a convolution and its Clip"


@pytest.mark.parametrize(("width", "sums"), [(0.35, 9), (0.5, 10)])  # at 0.35 the first sum has 8 channels
def test_mobilenet_v2_sums_have_a_pair_on_the_identity_branch_only(width: float, sums: int) -> None:
    model = network_model("mobilenet_v2", width)
    quantized = scaled(model)
    through = pairs(quantized)
    writers = {name: node for node in quantized.graph.node for name in node.output}
    seen = 0
    for node in quantized.graph.node:
        if node.op_type == "Add":
            block = node.name.removesuffix(".add")
            branch = [name for name in node.input if name == f"{block}.body.6"]
            assert len(branch) == 1 and writers[branch[0]].op_type == "Conv", "the branch ends in its convolution, unpaired"
            (identity,) = (name for name in node.input if name not in branch)
            if branch[0] in quantized_layers(quantized):
                source = through[identity].source
                assert not source.startswith(block) and writers[source].op_type in ("Conv", "Add")
                expand = writers[f"{block}.body.0"].input[0]
                assert expand == identity, "the block's input has one pair for both of its readers"
                seen += 1
            else:
                assert identity not in through
    assert seen == sums
    assert set(sources(quantized)) == {"Clip", "Conv", "Add", "Flatten"}


def test_resnet_sums_have_a_pair_on_the_shortcut_so_that_the_main_branch_fuses() -> None:
    quantized = scaled(network_model("resnet50"))
    through = pairs(quantized)
    writers = {name: node for node in quantized.graph.node for name in node.output}
    kinds = []
    for node in quantized.graph.node:
        if node.op_type == "Add":
            block = node.name.removesuffix(".add")
            (main,) = (name for name in node.input if name == f"{block}.body.6")
            (other,) = (name for name in node.input if name != main)
            assert writers[main].op_type == "Conv" and main in quantized_layers(quantized)
            source = writers[through[other].source]
            kinds.append(source.op_type)
            assert source.name == f"{block}.shortcut.0" if source.op_type == "Conv" else not source.name.startswith(block)
    assert (kinds.count("Conv"), kinds.count("Relu")) == (4, 12)
    assert sources(quantized)["MaxPool"] == 1, "the pair of the first block is after the pool"
    assert quantized_layers(quantized) == {
        node.name for node in quantized.graph.node if node.op_type in ("Conv", "Gemm") and node.name != "features.0.0"
    }


def test_shufflenet_sums_do_not_fuse_with_a_convolution_and_have_no_pair() -> None:
    quantized = scaled(network_model("shufflenet", 1.0))
    through = pairs(quantized)
    sums = [node for node in quantized.graph.node if node.op_type == "Add"]
    assert len(sums) == 13
    assert not any(name in through for node in sums for name in node.input)
    # thirds of 24 // 3 = 8 head channels and of 60 // 3 = 20 inner ones, and the first unit's 24 -> 20 on all channels
    left = {node.name for node in quantized.graph.node if node.op_type == "Conv"} - quantized_layers(quantized)
    assert left == {"head_0.0", "head_1.0", "head_2.0"}


def residual(project: bool, before: int, inner: int = 16, swap: bool = False) -> onnx.ModelProto:
    """A block whose input has `before` channels, with a plain identity or with a convolution on its shortcut."""

    def wiring(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        branch, shortcut = self.end(self.relu(self.body(x))), self.shortcut(x) if project else x
        return self.fc(self.flatten(self.pool(shortcut + branch if swap else branch + shortcut)))

    parts: dict[str, nn.Module] = {
        "start": conv(3, before),
        "body": conv(before, inner, 1),
        "relu": nn.ReLU(),
        "end": conv(inner, before, 1),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(1),
        "fc": nn.Linear(before, 4),
    }
    if project:
        parts["shortcut"] = conv(before, before, 1)
    return build(Wired(wiring, **parts))


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("project", "expected"), [(False, "start"), (True, "shortcut")])
def test_a_sum_takes_its_pair_on_either_side(project: bool, expected: str, swap: bool) -> None:
    quantized = scaled(residual(project, 16, swap=swap))
    through = pairs(quantized)
    (node,) = (node for node in quantized.graph.node if node.op_type == "Add")
    assert [through[name].source if name in through else name for name in node.input] == (
        [expected, "end"] if swap else ["end", expected]
    )
    assert sum(name in through for name in node.input) == 1
    onnx.checker.check_model(quantized.SerializeToString(), full_check=True)


def test_a_sum_after_a_convolution_that_stays_float_has_no_pair() -> None:
    quantized = scaled(residual(False, 15))
    assert quantized_layers(quantized) == {"fc"}
    (node,) = (node for node in quantized.graph.node if node.op_type == "Add")
    assert not any(name in pairs(quantized) for name in node.input)


def test_a_sum_of_anything_but_convolutions_has_no_pair() -> None:
    model = build(
        Wired(
            lambda self, x: self.last(self.relu(self.a(x)) + self.relu6(self.b(x))),
            **{"a": conv(3, 16), "b": conv(3, 16), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "last": conv(16, 16)},
        )
    )
    assert [pair.source for pair in pairs(scaled(model)).values()] == ["last.weight", "add"]


@pytest.mark.parametrize(
    ("layer", "gains"),
    [
        (conv(16, 16, 1), True),
        (conv(15, 16), False),
        (conv(16, 15), False),
        (conv(16, 16, groups=16), True),
        (conv(16, 16, 1, groups=16), False),
        (conv(12, 12, groups=12), False),
        (conv(32, 32, groups=2), True),
        (conv(24, 24, groups=2), False),
        (nn.Conv2d(16, 16, (1, 3), groups=16), True),
    ],
    ids=str,
)
def test_convolutions_that_gain_nothing_are_left_alone(layer: nn.Conv2d, gains: bool) -> None:
    model = build(nn.Sequential(conv(3, layer.in_channels), nn.ReLU(), layer))
    assert quantized_layers(scaled(model)) == ({"2"} if gains else set())
    assert quantized_inputs(model) == (["1"] if gains else [])


def test_an_activation_without_a_scale_stays_float() -> None:
    model = build(small())
    quantized = quantize(model, {"5": 0.1})
    assert quantized_layers(quantized) == {"6"}
    assert quantize(model, {}).graph == model.graph
    assert "6.weight" not in stored(quantized) and "2.weight" in stored(quantized)


def test_weights_that_run_twice_have_one_pair() -> None:
    def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.relu(self.same(self.start(x))))

    quantized = scaled(build(Wired(twice, start=conv(3, 16), same=conv(16, 16), relu=nn.ReLU())))
    assert sorted(pair.source for pair in pairs(quantized).values()) == ["relu", "same.weight", "start"]
    onnx.checker.check_model(quantized.SerializeToString(), full_check=True)


# ------------------------------------------------------------------------------------------------------------ numbers


def fake(values: Array, scale: Array | float) -> Array:
    """`values` as int8 holds them: to the nearest multiple of `scale`, halves to even, 127 at most. In float64."""
    steps = np.asarray(scale, np.float64)
    if steps.ndim:
        steps = steps.reshape(-1, *[1] * (values.ndim - 1))
    return np.clip(np.round(values.astype(np.float64) / steps), -128, 127) * steps


def outputs(model: onnx.ModelProto, names: list[str], kind: int, x: Array) -> list[Array]:
    """Inner values of a model, in onnxruntime without its optimizations."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(names, {"input": x})]


@pytest.mark.parametrize("half", HALVES)
def test_dequantized_weights_are_numpys_fake_quantization(half: bool) -> None:
    model = network_model("mobilenet_v1")
    quantized = scaled(model, half)
    weights = {name: pair for name, pair in pairs(quantized).items() if pair.stored is not None}
    assert len(weights) == 25
    kind = np.dtype(np.float16 if half else np.float32)
    dequantized = outputs(quantized, list(weights), TensorProto.FLOAT16 if half else TensorProto.FLOAT, noise_images(1, SIZE))
    for pair, values in zip(weights.values(), dequantized, strict=True):
        exact = numpy_helper.to_array(stored(model)[pair.source])
        largest = np.abs(exact.reshape(len(exact), -1)).max(1)
        by_hand = np.maximum(np.float32(largest / 127), FLOORS[half]).astype(kind)
        np.testing.assert_allclose(pair.scale, by_hand, rtol=2e-7, atol=0)
        wanted = fake(exact, pair.scale).astype(kind)
        assert values.dtype == kind
        if half:  # a scale that fp16 rounds down would take the largest weight to 128
            np.testing.assert_allclose(values, wanted, atol=1.01 * float(pair.scale.max()))
            assert (values != wanted).mean() < 0.05
        else:
            np.testing.assert_array_equal(values, wanted)
        assert np.abs(values - exact).max() <= pair.scale.max() * (0.5 + 0.1 * half)
        reached = np.abs(values.reshape(len(exact), -1)).max(1) / pair.scale.astype(np.float64)
        np.testing.assert_allclose(reached[largest > 127 * FLOORS[half]], 127, rtol=1e-3)


def test_a_network_computes_what_fake_quantization_computes() -> None:
    """With activations that reach beyond their scale's range, so that clipping shows."""
    network = small()
    model = build(network)
    quantized = quantize(model, {"1": 0.01, "5": 0.02})
    first, second, last = (network[i] for i in (0, 2, 6))
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(last, nn.Linear)

    def faked(tensor: torch.Tensor, scale: Array | float) -> torch.Tensor:
        return torch.from_numpy(fake(tensor.detach().numpy(), scale))

    with torch.no_grad():
        x = F.relu(first(torch.from_numpy(images())))
        assert (x > 1.5).any() and second.bias is not None
        x = F.conv2d(
            faked(x, float(np.float32(0.01))), faked(second.weight, weight_scales(second.weight.numpy())), second.bias.double()
        )
        x = x.clamp(0, 6).mean((2, 3))
        expected = F.linear(
            faked(x.float(), float(np.float32(0.02))),
            faked(last.weight, weight_scales(last.weight.numpy())),
            last.bias.double(),
        ).numpy()
    assert relative(logits(quantized, images()), expected) <= 1e-5
    assert relative(logits(model, images()), expected) > 1e-2


@pytest.mark.parametrize("half", [False, True])
def test_dead_channels_give_zeros_and_no_division_by_zero(half: bool) -> None:
    network = small()
    model = build(network)
    dead = next(tensor for tensor in model.graph.initializer if tensor.name == "2.weight")
    values = numpy_helper.to_array(dead).copy()
    values[3] = 0
    dead.CopyFrom(numpy_helper.from_array(values, dead.name))
    ranges = measure_ranges(model, [np.zeros_like(images())], quantized_inputs(model))
    ranges["1"] = Range()  # as where every ReLU is closed
    quantized = quantize(model, activation_scales(ranges, "max"), half)
    through = {pair.source: (name, pair) for name, pair in pairs(quantized).items()}
    floor = FLOORS[half].astype(np.float16 if half else np.float32)
    assert through["1"][1].scale == floor and float(floor) > 0
    assert through["2.weight"][1].scale[3] == floor and (np.delete(through["2.weight"][1].scale, 3) > floor).all()
    (dequantized,) = outputs(quantized, [through["2.weight"][0]], TensorProto.FLOAT16 if half else TensorProto.FLOAT, images())
    assert not dequantized[3].any() and dequantized[4].any()
    assert np.isfinite(logits(quantized, images())).all()


def test_activations_beyond_fp16_are_refused_for_the_fp16_emission_only() -> None:
    model = build(small())
    scales = {"1": 600.0, "5": 0.1}
    with pytest.raises(UserError, match=r"1: activations of up to 7.62e\+04 .* fp16 holds 65504"):
        quantize(model, scales, half=True)
    assert len(pairs(quantize(model, scales))) == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_int8_logits_are_near_float32s_in_both_emissions(architecture: str) -> None:
    model, probes = network_model(architecture), noise_images(4, SIZE, 9)
    ranges = measure_ranges(model, [noise_images(8, SIZE, 5)], quantized_inputs(model))
    quantized = {half: quantize(model, activation_scales(ranges, "max"), half) for half in (False, True)}
    expected = logits(model, probes)
    outputs_of = {half: logits(cast_twin(quantized[half]) if half else quantized[half], probes) for half in quantized}
    for half in quantized:
        assert outputs_of[half].dtype == np.float32
        near = finite(agreement(outputs_of[half], expected))
        assert 1e-4 < near.logit_distance < 0.05 and near.cosine > 0.99, near
    assert finite(agreement(outputs_of[True], outputs_of[False])).logit_distance < 0.03


# ---------------------------------------------------------------------------------------------- next to onnxruntime's


class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """Batches, as onnxruntime.quantization wants them."""

    def __init__(self, batches: list[NDArray[np.float32]]) -> None:
        self.left: Iterator[NDArray[np.float32]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.left, None)
        return None if batch is None else {"input": batch}


def onnxruntimes(model: onnx.ModelProto, batches: list[NDArray[np.float32]], folder: Path) -> onnx.ModelProto:
    """`model` quantized by onnxruntime under the same rules: symmetric, per channel, the same operators, float biases."""
    onnx.save(model, folder / "fp32.onnx")
    ours = quantized_inputs(model)
    left = [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm") and node.input[0] not in ours]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ort_quantization.quantize_static(
            folder / "fp32.onnx",
            folder / "int8.onnx",
            Reader(batches),
            quant_format=ort_quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm"],
            nodes_to_exclude=left,
            per_channel=True,
            activation_type=ort_quantization.QuantType.QInt8,
            weight_type=ort_quantization.QuantType.QInt8,
            calibrate_method=ort_quantization.CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
            },
        )
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize(
    ("architecture", "distance"),
    # It does not quantize residual sums, and shares scales through a channel shuffle.
    [("mobilenet_v1", 1e-6), ("shufflenet", 0.01), ("resnet50", 0.02)],
)
def test_side_by_side_with_onnxruntimes_quantization(architecture: str, distance: float, tmp_path: Path) -> None:
    model, batches, held = network_model(architecture), [noise_images(8, SIZE, 5)], noise_images(8, SIZE, 9)
    theirs = onnxruntimes(model, batches, tmp_path)
    ranges = measure_ranges(model, batches, quantized_inputs(model))
    ours = quantize(model, activation_scales(ranges, "max"))
    exact, own_logits, other = (logits(m, held) for m in (model, ours, theirs))
    assert finite(agreement(own_logits, other)).logit_distance <= distance
    ours_off, theirs_off = (finite(agreement(int8_logits, exact)).logit_distance for int8_logits in (own_logits, other))
    assert ours_off <= 1.1 * theirs_off + 1e-4
    their_scales = {name: numpy_helper.to_array(tensor) for name, tensor in stored(theirs).items() if name.endswith("_scale")}
    compared = 0
    for pair in pairs(ours).values():
        scale = their_scales.get(f"{pair.source}_scale")
        if scale is not None and architecture == "mobilenet_v1":
            np.testing.assert_allclose(scale, pair.scale, rtol=1e-6)
            compared += 1
    assert compared == (50 if architecture == "mobilenet_v1" else 0)
