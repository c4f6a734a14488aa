"""Exact algebra before int8: what the new graph computes next to what the old one does, and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from slimexport.onnx_files.integer_form import integer_form
from slimexport.target.arrays import Array
from tests.support.export_helpers import Wired, conv
from tests.support.int8_helpers import build, images

SIZE = 9


def computed(model: onnx.ModelProto, x: Array) -> Array:
    (result,) = ReferenceEvaluator(model).run(None, {"input": x})
    return np.asarray(result)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def padded(ends: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> nn.Module:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.first(nn.functional.pad(x, ends, mode, value))

    return Wired(run, first=nn.Conv2d(3, 4, 3, stride=2, padding=1))


@pytest.mark.parametrize("ends", [(0, 1, 0, 1), (2, 0, 1, 3), (1, 1, 1, 1)])
def test_zeros_around_images_are_the_convolutions_own(ends: tuple[int, ...]) -> None:
    model = build(padded(ends))
    formed = integer_form(model)
    assert kinds(model)["Pad"] == 1 and kinds(formed) == {"Conv": 1}
    onnx.checker.check_model(formed, full_check=True)
    assert np.allclose(computed(formed, images()), computed(model, images()), atol=1e-6)


@pytest.mark.parametrize("network", [padded((1, 1, 1, 1), "reflect"), padded((1, 1, 1, 1), value=2.0), padded((-1, 0, 0, 0))])
def test_other_surroundings_stay(network: nn.Module) -> None:
    model = build(network)
    assert integer_form(model) == model


def test_a_pad_that_somebody_else_reads_stays() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(x, (1, 1, 1, 1))
        return self.first(x) + x[:, :1, 1:-1, 1:-1]

    model = build(Wired(run, first=nn.Conv2d(3, 1, 3)))
    assert kinds(integer_form(model))["Pad"] == kinds(model)["Pad"] == 1


def test_all_convolutions_that_read_a_pad_take_it_in() -> None:
    def run(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(x, (0, 1, 0, 1))
        return self.first(x) + self.second(x)

    model = build(Wired(run, first=nn.Conv2d(3, 4, 3), second=nn.Conv2d(3, 4, 3)))
    formed = integer_form(model)
    assert "Pad" not in kinds(formed)
    assert np.allclose(computed(formed, images()), computed(model, images()), atol=1e-6)


def normed() -> onnx.ModelProto:
    """A norm that reads the images, with scales of both signs, zero and large ones."""
    model = build(nn.Sequential(conv(3, 4)))
    draw = np.random.default_rng(3)
    values = {
        "scale": np.array([0.7, -1.3, 0.0], np.float32),
        "shift": draw.normal(size=3).astype(np.float32),
        "mean": draw.normal(size=3).astype(np.float32),
        "variance": np.array([0.1, 4, 9], np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    norm = helper.make_node("BatchNormalization", ["input", *values], ["normed"], name="norm", epsilon=1e-3)
    model.graph.node[0].input[0] = "normed"
    model.graph.node.insert(0, norm)
    return model


def test_a_norm_by_itself_is_a_convolution() -> None:
    model = normed()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "normed.weight"))  # the name is taken
    formed = integer_form(model)
    onnx.checker.check_model(formed, full_check=True)
    first = formed.graph.node[0]
    assert (first.op_type, first.name, first.output[0]) == ("Conv", "norm", "normed")
    assert np.allclose(computed(formed, images()), computed(model, images()), atol=1e-5)


@pytest.mark.parametrize("rank", [2, 3])
def test_norms_of_other_things_than_images_stay(rank: int) -> None:
    norm = helper.make_node("BatchNormalization", ["input", "a", "a", "a", "a"], ["output"])
    shape: list[str | int | None] = ["batch", 3, 7]
    sides = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape[:rank]) for name in ("input", "output")]
    ones = numpy_helper.from_array(np.ones(3, np.float32), "a")
    model = helper.make_model(helper.make_graph([norm], "norm", sides[:1], sides[1:], [ones]))
    assert integer_form(model) == model


def test_a_hard_swish_is_a_value_times_its_gate() -> None:
    model = build(nn.Sequential(conv(3, 4), nn.Hardswish()))
    before = model.SerializeToString(deterministic=True)
    formed = integer_form(model)
    assert kinds(formed) == {"Conv": 1, "HardSigmoid": 1, "Mul": 1}
    assert model.SerializeToString(deterministic=True) == before, "the source is not changed"
    onnx.checker.check_model(formed, full_check=True)
    assert np.allclose(computed(formed, 5 * images()), computed(model, 5 * images()), atol=1e-5)
