"""Every number that a file of fewer bits stores is compared, also those that no image shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimexport import job as jobs
from slimexport.job import Job
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.layer_proof.proof import prove_layers
from slimexport.onnx_files.layer_proof.stored import wrong_number
from slimexport.onnx_files.writers import WRITERS, Original
from slimexport.results import results_of
from slimexport.target.precision import EXACT, PRECISIONS
from slimexport.target.verification import Verification
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.costs.cost import CostCounter
from slimtrain.data.images import preprocessing_of
from slimtrain.data.noise import noise_images
from tests.support.graph_cases import randomized
from tests.support.onnx_writing import module_onnx
from tests.support.stored_tensors import changed

SIZE = 16
LOW = tuple(name for name in WRITERS if name != EXACT)
INTEGERS = tuple(name for name in LOW if PRECISIONS[name].calibrated)
STILL = 5  # a channel of the first layer that no image moves


class Network(nn.Module):
    """Layers of all kinds that have weights: one of its own kind for each way of storing them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.BatchNorm2d(32), nn.ReLU())
        self.gate = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Hardsigmoid())
        self.slope = nn.PReLU(32)
        self.norm = nn.LayerNorm(32)
        self.mixed = nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.deep(self.wide(self.stem(x)))
        x = self.slope(x + x * self.gate(x))
        rows = self.mixed(self.norm(x.flatten(2).transpose(1, 2)))
        return self.head(torch.relu(rows.mean(1)))


def network() -> nn.Module:
    with torch.no_grad():
        module = randomized(Network())
        norm = module.get_submodule("stem.1")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight[STILL], norm.bias[STILL] = 0, -1
    return module


@cache
def written(precision: str, bits: int = 8) -> SimpleNamespace:
    """A file and what it is to compute: not to be changed."""
    calibration = Calibration.of([noise_images(16, SIZE, 5)], "max", bits)
    given = WRITERS[precision](Original(module_onnx(network(), SIZE), calibration))
    assert given.recorded is not None
    return SimpleNamespace(model=given.model, recorded=given.recorded)


@pytest.mark.parametrize("bits", [7, 8])
@pytest.mark.parametrize("precision", LOW)
def test_a_right_file_stores_what_it_should(precision: str, bits: int) -> None:
    file = written(precision, bits)
    assert wrong_number(file.model, file.recorded) == ""


def test_weights_of_other_bits_are_wrong() -> None:
    assert "scales of stem.0" in wrong_number(written("int8-cpu", 7).model, written("int8-cpu", 8).recorded)


def stored(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    """What numbers a model stores, without those that the fp32 model has none of: a hard sigmoid's offset in 8 bits, and axes,
    which opset 17 has as attributes. Layers show both."""
    source = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    offsets = {
        name for node in model.graph.node if node.op_type == "Add" if (end := source.get(node.input[1])) for name in end.input
    }
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name not in offsets and not tensor.name.startswith("axes"):
            yield tensor.name, values


@pytest.mark.parametrize("precision", LOW)
def test_any_number_that_is_a_step_off_is_seen(precision: str) -> None:
    """The first, the last and one between, of each stored tensor: integers by 1, others by 4 steps of their type."""
    file = written(precision)
    count = 0
    for name, values in stored(file.model):
        for place in {0, values.size // 2, values.size - 1}:

            def step(flat: np.ndarray, place: int = place) -> None:
                if flat.dtype.kind in "iu":
                    flat[place] = flat[place] + 1 if flat[place] < 100 else flat[place] - 1
                else:
                    flat[place] += 4 * np.spacing(flat[place])

            assert wrong_number(changed(file.model, name, step), file.recorded), (name, place, values.reshape(-1)[place])
            count += 1
    assert count > 30


@pytest.mark.parametrize("precision", LOW)
def test_a_weight_that_no_image_shows_is_seen(precision: str) -> None:
    """It multiplies what is always zero."""
    file = written(precision)
    (node,) = [node for node in file.model.graph.node if node.name == "wide.0"]
    source = {node.output[0]: node.input[0] for node in file.model.graph.node if node.op_type == "DequantizeLinear"}

    def negated(flat: np.ndarray) -> None:
        weights = flat.reshape(32, 16)
        row = np.abs(weights[:, STILL].astype(np.float32)).argmax()
        weights[row, STILL] *= -1

    wrong = changed(file.model, source.get(node.input[1], node.input[1]), negated)
    assert prove_layers(wrong, file.recorded, noise_images(4, SIZE, 1)).right
    assert "1 of 512 weights of wide.0 are wrong" in wrong_number(wrong, file.recorded) or precision not in INTEGERS
    assert "wide.0" in wrong_number(wrong, file.recorded)


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize(("name", "value"), [("strides", [1, 1]), ("pads", [0, 0, 1, 1]), ("group", 2)])
def test_what_a_convolution_is_told_is_compared(precision: str, name: str, value: object) -> None:
    file = written(precision)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(file.model)
    (node,) = [node for node in wrong.graph.node if node.name == "stem.0"]
    (own,) = [attribute for attribute in node.attribute if attribute.name == name]
    own.CopyFrom(onnx.helper.make_attribute(name, value))
    assert f"{name}={value}" in wrong_number(wrong, file.recorded)


@pytest.mark.parametrize("precision", INTEGERS)
def test_scales_along_another_dimension_are_wrong(precision: str) -> None:
    file = written(precision)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(file.model)
    (own,) = [
        attribute
        for node in wrong.graph.node
        for attribute in node.attribute
        if node.op_type == "DequantizeLinear" and node.input[0] == weights_of(wrong, "wide.0") and attribute.name == "axis"
    ]
    own.i = 1
    assert "scales along dimension 1, expected 0" in wrong_number(wrong, file.recorded)


def weights_of(model: onnx.ModelProto, name: str) -> str:
    """Of an operator's integers, their name."""
    (node,) = [node for node in model.graph.node if node.name == name]
    return next(other.input[0] for other in model.graph.node if other.output[0] == node.input[1])


def verified(precision: str, change: Callable[[np.ndarray], None], folder: Path) -> Verification:
    """What an export makes of an untrained network's file once the weights of its second layer are changed."""
    checkpoint = open_checkpoint("random:us_mobilenet_v1")
    counter, results = CostCounter(checkpoint.spec, 32), results_of(checkpoint)
    calibration = Calibration.of([noise_images(4, 32, 5)], "max", 7)
    files, images = (PRECISIONS[precision],), noise_images(2, 32, 1)
    job = Job(checkpoint, preprocessing_of(checkpoint, 32), counter, images, files, calibration, results=results)
    plan = checkpoint.spec.plans[0]
    expected = job.reference(plan)
    ((artifact, content, recorded),) = job.emit(plan)
    path = folder / artifact.file
    path.write_bytes(content)
    assert job.verify(path, precision, plan, expected, recorded).passed
    model = onnx.load_from_string(content)
    second = [node for node in model.graph.node if node.op_type == "Conv"][1]
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    onnx.save(changed(model, source.get(second.input[1], second.input[1]), change), path)
    return job.verify(path, precision, plan, expected, recorded)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_export_refuses_a_weight_whose_sign_is_lost_in_roundings(precision: str, tmp_path: Path) -> None:
    def negated(flat: np.ndarray) -> None:
        flat[np.abs(flat.astype(np.float32)).argmin()] *= -1

    check = verified(precision, negated, tmp_path)
    assert not check.passed and "is not the fp32 model's" in (check.reason or "")


def test_integers_are_compared_where_this_cpu_cannot_add_their_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(flat: np.ndarray) -> None:
        flat[0] += 1 if flat[0] < 0 else -1

    monkeypatch.setattr(jobs, "computes_exactly", lambda recorded: False)
    check = verified("int8-cpu", more, tmp_path)
    assert check.layers is None and not check.passed and "weights of" in (check.reason or "")
