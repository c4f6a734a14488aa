"""fp16 and bf16 graphs: rounding bit by bit, every tensor's type, and logits next to float32's, to the ONNX reference
evaluator's and to onnxruntime's own fp16."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from slimexport.onnx_files.typed import cast_twin, to_typed
from slimexport.target.records import to_json
from slimtrain.base.errors import UserError
from slimtrain.data.noise import noise_images
from tests.support.export_helpers import Wired, conv
from tests.support.onnx_helpers import ARCHITECTURES, SIZE, Array, logits, network_model, relative, stored
from tests.support.onnx_writing import module_onnx
from tests.support.rtx import small_onnx

KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TOLERANCE = {"fp16": 1e-2, "bf16": 5e-2}  # of the logits' scale: what engines of these precisions are allowed


def evaluated(model: onnx.ModelProto, images: Array) -> Array:
    """A model's output in the ONNX reference evaluator."""
    results: Any = ReferenceEvaluator(model).run(None, {"input": images})
    return np.asarray(results[0])


def bits(values: Array, precision: str) -> bytes:
    """float32 `values` rounded to the nearest, ties to even, from the definition of the formats."""
    if precision == "fp16":
        return struct.pack(f"<{values.size}e", *values.ravel().tolist())
    whole = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype("<u2").tobytes()


def one_layer(*values: float, name: str = "weight") -> onnx.ModelProto:
    """A model whose only weights are `values`, and whose two bounds are scalars."""
    weight = np.array(values, np.float32).reshape(1, 1, 1, -1)
    bounds = [numpy_helper.from_array(np.array(bound, np.float32), str(bound)) for bound in (0, 1e-30)]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", name], ["made"], kernel_shape=weight.shape[2:]),
            helper.make_node("Clip", ["made", "0", "1e-30"], ["output"]),
        ],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 1, len(values)])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 1, 1, 1])],
        [numpy_helper.from_array(weight, name), *bounds],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --------------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("precision", KINDS)
def test_weights_are_rounded_to_nearest_even(precision: str) -> None:
    draw = np.random.default_rng(0)
    ties = [1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-9), 2.0**-25, 2.0**-24, 3 * 2.0**-26]
    spread = draw.standard_normal(20000) * 10.0 ** draw.uniform(-9, 4.5, 20000)
    model = one_layer(*ties, *np.clip(spread, -65000, 65000))
    source = numpy_helper.to_array(model.graph.initializer[0])
    typed, _ = to_typed(model, precision)
    assert typed.graph.initializer[0].raw_data == bits(source, precision)


@pytest.mark.parametrize("precision", KINDS)
def test_every_float_of_a_network_is_rounded_and_every_integer_stays(precision: str) -> None:
    model = network_model("shufflenet")
    typed, rounding = to_typed(model, precision)
    after, before = stored(typed), stored(model)
    assert after.keys() == before.keys()
    floats = {name for name, tensor in before.items() if tensor.data_type == TensorProto.FLOAT}
    assert 0 < len(floats) < len(before)
    for name, tensor in after.items():
        if name in floats:
            assert (tensor.data_type, tensor.dims) == (KINDS[precision], before[name].dims)
            assert tensor.raw_data == bits(numpy_helper.to_array(before[name]), precision)
        else:
            assert tensor == before[name]
    assert rounding.weights == sum(numpy_helper.to_array(before[name]).size for name in floats)


def test_lost_and_subnormal_fp16_weights_are_counted() -> None:
    lost = [1e-8, -2.9e-8, 2.0**-25]  # half of the smallest goes to zero, which is even
    subnormal = [3.1e-8, -(2.0**-24), 6e-5, -1.5 * 2.0**-15]
    exact = [0.0, -0.0, 2.0**-14, 6.2e-5, -1.0, 65504.0, 65519.0]  # 65519 rounds down to the largest
    rounded_up = [2.0**-14 - 2.0**-30]  # to the smallest normal
    typed, rounding = to_typed(one_layer(*lost, *subnormal, *exact, *rounded_up), "fp16")
    assert to_json(rounding) == {"weights": 15, "underflow_to_zero": 3, "subnormal": 4}, "scalars are no weights"
    values = numpy_helper.to_array(typed.graph.initializer[0]).ravel()
    assert (values[:3] == 0).all() and (values[3:7] != 0).all() and values[-2] == 65504


def test_bf16_keeps_what_fp16_loses() -> None:
    _, rounding = to_typed(one_layer(1e-8, 1e-30, 1e20, 2.0**-126, 1e-39, 1e-42), "bf16")
    assert to_json(rounding) == {"weights": 6, "underflow_to_zero": 1, "subnormal": 1}


@pytest.mark.parametrize(
    ("precision", "value", "parts"),
    [
        ("fp16", 65520.0, ("6.55e+04", "Export fp32 or bf16.")),
        ("fp16", -1e30, ("6.55e+04", "Export fp32 or bf16.")),
        ("bf16", 3.4e38, ("3.39e+38", "Export fp32.")),
        ("bf16", -np.inf, ("3.39e+38", "Export fp32.")),
    ],
)
def test_weights_that_overflow_are_refused_by_name(precision: str, value: float, parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        to_typed(one_layer(1.0, value, name="features.3.weight"), precision)
    for part in (precision, "features.3.weight", *parts):
        assert part in str(caught.value)


def test_a_message_names_three_overflowing_tensors_and_counts_the_rest() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network_model("mobilenet_v1"))
    changed = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight")][:5]
    for tensor in changed:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e9), tensor.name))
    with pytest.raises(UserError) as caught:
        to_typed(model, "fp16")
    names = [tensor.name for tensor in changed]
    assert f"{', '.join(names[:3])} and 2 more" in str(caught.value)
    assert names[3] not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ the graph


@pytest.mark.parametrize("precision", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_between_the_ends_has_the_type(architecture: str, precision: str) -> None:
    model = network_model(architecture)
    typed, _ = to_typed(model, precision)
    onnx.checker.check_model(typed.SerializeToString(), full_check=True)
    graph = onnx.shape_inference.infer_shapes(typed, check_type=True, strict_mode=True, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    written = {name for node in graph.node for name in node.output}
    assert written == kinds.keys() | {"output"}
    assert set(kinds.values()) == {KINDS[precision]}
    ends = [(value.name, value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)]
    assert ends == [("input", TensorProto.FLOAT), ("output", TensorProto.FLOAT)]
    assert (typed.graph.input, typed.graph.output) == (model.graph.input, model.graph.output)
    operators = Counter(node.op_type for node in typed.graph.node)
    assert operators == Counter(node.op_type for node in model.graph.node) + Counter(Cast=2)
    assert {tensor.data_type for tensor in graph.initializer} <= {KINDS[precision], TensorProto.INT64}


@pytest.mark.parametrize(("precision", "opset", "ir_version"), [("fp16", 17, 8), ("bf16", 22, 10)])
def test_opset_ir_version_and_metadata_say_what_it_is(precision: str, opset: int, ir_version: int) -> None:
    model = network_model("mobilenet_v1")
    before = model.SerializeToString(deterministic=True)
    typed, _ = to_typed(model, precision)
    assert [(entry.domain, entry.version) for entry in typed.opset_import] == [("", opset)]
    assert typed.ir_version == ir_version
    assert {entry.key: entry.value for entry in typed.metadata_props} == {"network": "mobilenet_v1", "precision": precision}
    assert model.SerializeToString(deterministic=True) == before, "the source is not changed"
    again, _ = to_typed(model, precision)
    assert typed.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_a_typed_file_is_half_as_large() -> None:
    model = network_model("resnet50")
    before = model.ByteSize()
    for precision in KINDS:
        assert to_typed(model, precision)[0].ByteSize() < 0.51 * before


def test_types_that_were_inferred_before_do_not_stay() -> None:
    inferred = onnx.shape_inference.infer_shapes(network_model("mobilenet_v1"))
    assert inferred.graph.value_info
    typed, _ = to_typed(inferred, "fp16")
    onnx.checker.check_model(typed.SerializeToString(), full_check=True)


def test_an_output_that_the_network_reads_again_stays_typed_inside() -> None:
    model = one_layer(1.0, 2.0)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "output"
    model.graph.node[1].output[0] = "unread"
    typed, _ = to_typed(model, "fp16")
    onnx.checker.check_model(typed.SerializeToString(), full_check=True)
    assert logits(typed, np.ones((1, 1, 1, 2), np.float32)).item() == 3.0


# ----------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("precision", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_near_float32s(architecture: str, precision: str) -> None:
    model, images = network_model(architecture), noise_images(4, SIZE, 5)
    expected = logits(model, images)
    typed, _ = to_typed(model, precision)
    twin = cast_twin(typed)
    onnx.checker.check_model(twin.SerializeToString(), full_check=True)
    outputs = logits(twin, images)
    assert outputs.shape == expected.shape and outputs.dtype == np.float32
    assert relative(np.ptp(expected, 0), expected) > 0.1, "images that the network tells apart"
    assert 1e-5 < relative(outputs, expected) <= TOLERANCE[precision]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_twin_is_near_onnxruntimes_own_fp16(architecture: str) -> None:
    """Which keeps some values in float32 between operators, so that both are off by different roundings."""
    images = noise_images(4, SIZE, 5)
    typed, _ = to_typed(network_model(architecture), "fp16")
    direct = logits(typed, images)
    assert direct.dtype == np.float32
    assert relative(logits(cast_twin(typed), images), direct) <= TOLERANCE["fp16"]


def build(network: nn.Module, size: int = 9) -> onnx.ModelProto:
    with torch.no_grad():
        draw = torch.Generator().manual_seed(4)
        for parameter in network.parameters():
            parameter.normal_(generator=draw)
    return module_onnx(network, size)


def once(channels: int) -> nn.Conv2d:
    """A convolution of one product per value: nothing is summed, so that there is one rounding and one right result."""
    return conv(channels, channels, 1, groups=channels, bias=False)


def rounding_once() -> onnx.ModelProto:
    """Every operator of the networks that sums at most two values."""

    def wiring(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.max(self.relu6(self.stem(torch.cat([x, self.second(x)], 1))))
        left, right = torch.chunk(x, 2, 1)
        x = torch.cat([self.relu(self.left(left)), self.right(right)], 1) + self.shuffle(x)
        return self.flatten(self.end(x))

    layers = {"second": once(3), "stem": once(6), "left": once(3), "right": once(3), "end": once(6)}
    others = {"relu6": nn.ReLU6(), "relu": nn.ReLU(), "max": nn.MaxPool2d(2, 2), "shuffle": nn.ChannelShuffle(3)}
    return build(Wired(wiring, **layers, **others, flatten=nn.Flatten(1)))


@pytest.mark.parametrize("precision", KINDS)
def test_the_twin_is_the_reference_evaluator_bit_by_bit(precision: str) -> None:
    typed, _ = to_typed(rounding_once(), precision)
    images = np.random.default_rng(1).standard_normal((3, 3, 9, 9)).astype(np.float32)
    expected = evaluated(typed, images)
    outputs = logits(cast_twin(typed), images)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(outputs, expected)
    assert relative(logits(rounding_once(), images), expected) > 1e-4, "rounding makes a difference here"


def summing() -> onnx.ModelProto:
    """Every operator of the networks, sums and averages too."""

    def wiring(self: Any, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.chunk(self.max(self.relu6(self.stem(x))), 2, 1)
        x = self.shuffle(torch.cat([self.relu(self.depthwise(left)), self.average(right)], 1))
        return self.fc(self.flatten(self.all(x + self.point(x))))

    parts = {
        "stem": conv(3, 8, 3, stride=2, padding=1),
        "depthwise": conv(4, 4, 3, padding=1, groups=4),
        "point": conv(8, 8, 1),
        "relu6": nn.ReLU6(),
        "relu": nn.ReLU(),
        "max": nn.MaxPool2d(3, 1, 1),
        "average": nn.AvgPool2d(3, 1, 1),
        "shuffle": nn.ChannelShuffle(2),
        "all": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(1),
        "fc": nn.Linear(8, 5),
    }
    return build(Wired(wiring, **parts))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("bf16", 1.6e-2)])
def test_the_twin_is_the_reference_evaluator_but_for_the_order_of_sums(precision: str, tolerance: float) -> None:
    """Which rounds inside of an operator too: after products, before the bias. Tolerances are four units in the last place."""
    typed, _ = to_typed(summing(), precision)
    images = np.random.default_rng(1).standard_normal((3, 3, 9, 9)).astype(np.float32)
    expected = evaluated(typed, images)
    assert relative(logits(cast_twin(typed), images), expected) <= tolerance
    if precision == "fp16":
        assert relative(logits(typed, images), expected) <= tolerance


@pytest.mark.parametrize("precision", KINDS)
def test_no_optimization_removes_the_twins_rounding(precision: str) -> None:
    twin = cast_twin(to_typed(summing(), precision)[0])
    images = np.random.default_rng(1).standard_normal((3, 3, 9, 9)).astype(np.float32)
    expected = evaluated(twin, images)
    for optimized in (True, False):
        assert relative(logits(twin, images, optimized), expected) <= 1e-6
    assert relative(logits(summing(), images), expected) > 1e-5
    assert {tensor.data_type for tensor in twin.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}


def test_hard_swish_in_bf16_is_the_product_that_it_stands_for() -> None:
    """TensorRT's parser takes HardSwish of fp32 and fp16 only."""
    model = small_onnx(operator="HardSwish")
    half, _ = to_typed(model, "fp16")
    brief, _ = to_typed(model, "bf16")
    assert [node.op_type for node in half.graph.node].count("HardSwish") == 1
    onnx.checker.check_model(brief, full_check=True)
    kinds = [node.op_type for node in brief.graph.node]
    assert "HardSwish" not in kinds and kinds.count("HardSigmoid") == kinds.count("Mul") == 1
    images = noise_images(3, 32, 1)
    twin = cast_twin(brief)
    assert relative(logits(twin, images), logits(model, images)) < 2e-2
