"""Every layer of a right file is right to the last step; of a wrong one the layer is named that is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.layer_proof import proof as proving
from slimexport.onnx_files.layer_proof.proof import Layers, computes_exactly, prove_layers, why_wrong
from slimexport.onnx_files.layer_proof.values import values_of
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.parts.cutting import Cut, cut_out
from slimexport.onnx_files.typed import cast_twin
from slimexport.onnx_files.writers import WRITERS, Original
from slimtrain.data.noise import noise_images
from tests.support.graph_cases import randomized
from tests.support.onnx_writing import module_onnx

SIZE = 16
PRECISIONS = tuple(name for name in WRITERS if name != "fp32")
INTEGERS = tuple(name for name in PRECISIONS if name.startswith("int8"))
STEPS = {"fp16": 2**-10, "bf16": 2**-7, "int8-fp16": 2**-10}  # of a number, to the next one of the type around it


class Network(nn.Module):
    """A bit of everything that is quantized in its own way: norms, a residual sum, a gate, a concatenation, pools, a pad."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.BatchNorm2d(32), nn.ReLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 1), nn.Hardsigmoid()
        )
        self.thin = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.deep(self.wide(x))
        y = x + self.thin(y * self.gate(y))
        y = torch.cat([torch.nn.functional.max_pool2d(y, 2), torch.nn.functional.avg_pool2d(y, 2)], 1)
        y = torch.relu(self.norm(y))
        return self.head(y.mean((2, 3)))


@cache
def written(precision: str) -> SimpleNamespace:
    """A file and what it is to compute: not to be changed."""
    calibration = Calibration.of([noise_images(16, SIZE, 5)], "max")
    given = WRITERS[precision](Original(module_onnx(randomized(Network()), SIZE), calibration))
    assert given.recorded is not None
    return SimpleNamespace(model=given.model, recorded=given.recorded)


def proof(precision: str, change: Callable[[onnx.ModelProto], Any] = lambda model: None) -> Layers:
    file = written(precision)
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    change(model)
    return prove_layers(model, file.recorded, noise_images(2, SIZE, 1))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_right_file_is_right_to_the_last_step(precision: str) -> None:
    layers = proof(precision)
    assert layers.right and layers.error <= 1, layers
    nodes = written(precision).recorded.base.graph.node
    assert len(nodes) / 2 < layers.count


def weight_of(model: onnx.ModelProto, operator: str, number: int) -> onnx.TensorProto:
    """What the operator of a kind and number multiplies by."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    name = [node for node in model.graph.node if node.op_type == operator][number].input[1]
    return stored[source.get(name, name)]


def changed(tensor: onnx.TensorProto, change: Callable[[np.ndarray], Any]) -> None:
    values = numpy_helper.to_array(tensor).copy()
    result = change(values)
    tensor.CopyFrom(numpy_helper.from_array(values if result is None else result.astype(values.dtype), tensor.name))


def negate_one(values: np.ndarray) -> None:
    place = np.abs(values.astype(np.float64)).argmax()
    values.reshape(-1)[place] *= -1


def negate_all(values: np.ndarray) -> None:
    """Of a channel, so that it shows whichever of its inputs are zeros."""
    values[:] = -values


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("number", "change"), [*((i, negate_one) for i in range(3)), *((i, negate_all) for i in range(3, 6))])
def test_the_weights_of_any_convolution(precision: str, number: int, change: Callable[[np.ndarray], None]) -> None:
    assert not proof(precision, lambda model: changed(weight_of(model, "Conv", number), change)).right


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_channels_exchanged(precision: str) -> None:
    def exchange(values: np.ndarray) -> None:
        values[[1, 4]] = values[[4, 1]]

    assert not proof(precision, lambda model: changed(weight_of(model, "Conv", 1), exchange)).right
    assert not proof(precision, lambda model: changed(weight_of(model, "Gemm", 0), exchange)).right


@pytest.mark.parametrize("precision", STEPS)
@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_bias_that_is_little_next_to_its_layers_largest_number(precision: str, number: int) -> None:
    """Four roundings of the largest number, which is more than most numbers of a channel may be off by."""
    file = written(precision)
    node = [node for node in file.model.graph.node if node.op_type == "Conv"][number]
    values = values_of(cast_twin(file.model), file.recorded, noise_images(2, SIZE, 1), as_written=True)
    step = 4 * STEPS[precision] * np.abs(values.there[node.output[0]]).max()
    bias = next(tensor.name for tensor in file.model.graph.initializer if tensor.name == node.input[2])

    def off(model: onnx.ModelProto) -> None:
        def one_channel(values: np.ndarray) -> np.ndarray:
            moved = values.astype(np.float32)
            moved[3] += step
            return moved

        changed(next(tensor for tensor in model.graph.initializer if tensor.name == bias), one_channel)

    layers = proof(precision, off)
    assert not layers.right and layers.worst == node.output[0], layers


def test_the_first_image_that_shows_an_error_is_the_last_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    real = values_of

    def counted(model: onnx.ModelProto, recorded: Recorded, images: np.ndarray, *, as_written: bool) -> Any:
        counts.append(len(images))
        return real(model, recorded, images, as_written=as_written)

    monkeypatch.setattr(proving, "values_of", counted)
    assert not proof("fp16", lambda model: changed(weight_of(model, "Conv", 0), negate_all)).right
    assert counts == [1]


@pytest.mark.parametrize("precision", INTEGERS)
@pytest.mark.parametrize("factor", [0.5, 1.05, 2.0])
def test_any_scale(precision: str, factor: float) -> None:
    model = written(precision).model
    stored = {tensor.name for tensor in model.graph.initializer}
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"} & stored
    assert len(scales) > 5
    for name in scales:

        def scaled(model: onnx.ModelProto, name: str = name) -> None:
            changed(next(t for t in model.graph.initializer if t.name == name), lambda values: values * factor)

        assert not proof(precision, scaled).right, name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_the_output_alone(precision: str, kind: str) -> None:
    def shift(model: onnx.ModelProto) -> None:
        last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
        last.output[0] = "before"
        model.graph.initializer.append(numpy_helper.from_array(np.array(1.1, np.float32), "more"))
        model.graph.node.append(onnx.helper.make_node(kind, ["before", "more"], [model.graph.output[0].name]))

    layers = proof(precision, shift)
    assert not layers.right and "output" in layers.worst
    assert f"{layers.worst} is not what its layer makes of its inputs" in why_wrong(layers)


def test_a_cpu_that_saturates_tells_nothing_of_weights_of_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for saturating in (False, True):
        monkeypatch.setattr(proving, "saturates", lambda saturating=saturating: saturating)
        for precision in PRECISIONS:
            recorded = written(precision).recorded
            assert computes_exactly(recorded) == (not saturating or precision not in INTEGERS)
            assert computes_exactly(dataclasses.replace(recorded, levels=63))


def test_numbers_that_are_not_finite_are_wrong() -> None:
    def spoil(values: np.ndarray) -> None:
        values.reshape(-1)[0] = np.nan

    for precision in ("fp16", "bf16"):
        assert not proof(precision, lambda model: changed(weight_of(model, "Conv", 0), spoil)).right


def test_every_file_of_fewer_bits_tells_what_it_is_to_compute() -> None:
    for precision in WRITERS:
        given = WRITERS[precision](Original(written("fp16").recorded.base, Calibration.of([noise_images(4, SIZE, 5)], "max")))
        assert (given.recorded is None) == (precision == "fp32")
        assert precision == "fp32" or isinstance(given.recorded, Recorded)


def test_images_take_turns_where_their_values_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = values_of

    def counted(model: onnx.ModelProto, recorded: Recorded, images: np.ndarray, *, as_written: bool) -> Any:
        batches.append(len(images))
        return real(model, recorded, images, as_written=as_written)

    monkeypatch.setattr(proving, "values_of", counted)
    file = written("int8-cpu")
    for most, expected in ((2**30, [1, 4]), (0, [1, 1, 1, 1, 1])):
        monkeypatch.setattr(proving, "MOST_BYTES", most)
        batches.clear()
        assert prove_layers(file.model, file.recorded, noise_images(5, SIZE, 1)).right
        assert batches == expected


class Dense(nn.Module):
    """A map that is a result and is read on, as of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        return x, torch.relu(self.second(x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_result_that_is_read_on_is_right_too(precision: str) -> None:
    calibration = Calibration.of([noise_images(8, SIZE, 5)], "max", 7)
    given = WRITERS[precision](Original(module_onnx(Dense(), SIZE), calibration))
    assert given.recorded is not None
    layers = prove_layers(given.model, given.recorded, noise_images(2, SIZE, 1))
    assert layers.right and layers.count >= 3, layers


@pytest.mark.parametrize("precision", PRECISIONS)
def test_numbers_that_a_linear_layer_reads_first_are_right_too(precision: str) -> None:
    """Of a file for TensorRT 10 they are fp16 before they are integers."""
    whole = module_onnx(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 32), nn.ReLU()), SIZE)
    (linear,) = [node for node in whole.graph.node if node.op_type == "Gemm"]
    model = cut_out(whole, Cut((linear.input[0],), ("output",)))
    rows = noise_images(24, SIZE, 5).reshape(24, -1)
    given = WRITERS[precision](Original(model, Calibration.of([rows], "max", 7)))
    assert given.recorded is not None
    layers = prove_layers(given.model, given.recorded, rows)
    assert layers.right, layers
