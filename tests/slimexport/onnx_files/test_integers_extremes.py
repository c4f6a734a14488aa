"""Int8 for CPUs where weights or activations are next to nothing, as norms leave pruned channels: only biases are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from slimexport.onnx_files.calibration import agreement
from slimexport.onnx_files.integers import affine, integer_values, to_integers
from slimexport.onnx_files.ranges import intervals, measure_ranges
from tests.support.export_helpers import Wired, conv
from tests.support.int8_helpers import finite, images
from tests.support.onnx_helpers import logits
from tests.support.onnx_writing import module_onnx


def both(module: nn.Module, bits: int = 8) -> tuple[onnx.ModelProto, float]:
    """A module in integers, and how far its outputs on images are from its own, over the largest."""
    model = module_onnx(module, 9, {"precision": "fp32"})
    ours = to_integers(model, intervals(measure_ranges(model, [images()], integer_values(model)), "max"), bits)
    a, b = (logits(m, images()).reshape(len(images()), -1) for m in (ours, model))
    return ours, finite(agreement(a, b)).logit_distance


@pytest.mark.parametrize(("silent", "faint", "bits"), [(True, 1e-3, 8), (True, 1e-3, 7), (False, 1e-12, 8)])
def test_biases_beside_next_to_no_weights_and_inputs_are_kept(silent: bool, faint: float, bits: int) -> None:
    def wiring(self: Any, x: torch.Tensor) -> torch.Tensor:
        first = self.start(x)
        return self.last(first + self.faint(self.relu(self.low(x) if silent else first)))

    torch.manual_seed(0)
    module = Wired(wiring, start=conv(3, 16), low=conv(3, 16), faint=conv(16, 16, 1), relu=nn.ReLU(), last=conv(16, 4))
    with torch.no_grad():
        module.get_parameter("low.bias").fill_(-50)
        module.get_parameter("faint.weight").mul_(faint)
        module.get_parameter("faint.bias").copy_(torch.linspace(-3, 3, 16) if silent else torch.linspace(-300, 300, 16))
    assert both(module, bits)[1] < 0.02


def test_layers_that_run_twice_keep_weights_for_each_of_their_biases_steps() -> None:
    """A layer that reads next to nothing the second time has coarser weights there: one form would be wrong for one of its
    biases, whose own steps kernels do not read."""

    def twice(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.start(x)) + self.same(self.faint(x))

    torch.manual_seed(0)
    module = Wired(twice, start=conv(3, 16), faint=conv(3, 16), same=conv(16, 16))
    with torch.no_grad():
        for name in ("faint.weight", "faint.bias"):
            module.get_parameter(name).mul_(1e-6)
        module.get_parameter("same.bias").copy_(torch.linspace(-300, 300, 16))
    ours, distance = both(module)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in ours.graph.initializer}
    written = {node.output[0]: node for node in ours.graph.node}
    convolutions = [node for node in ours.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions:
        images_by, weights_by, bias_by = (arrays[written[name].input[1]].astype(np.float64) for name in node.input)
        np.testing.assert_allclose(bias_by, images_by * weights_by, rtol=1e-6)
    assert distance < 0.02


@pytest.mark.parametrize("limit", [None, (0.0, np.inf), (0.0, 6.0), (0.0, 0.5)])
def test_what_was_zero_on_all_images_has_steps_of_an_ordinary_size(limit: tuple[float, float] | None) -> None:
    form = affine((0.0, 0.0), limit)
    assert form.zero == 0 and 0.5 / 256 < form.scale <= np.float32(1 / 255)
    assert limit is None or form.scale * np.float32(255) <= limit[1]
