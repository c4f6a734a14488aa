"""What layers give by themselves, and how far the least jitter of their inputs moves that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slimexport.onnx_files.layer_proof.layers import layers_alone, moved_alone
from slimexport.onnx_files.layer_proof.values import Values, values_of
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.typed import cast_twin
from slimexport.onnx_files.writers import WRITERS, Original
from slimtrain.data.noise import noise_images
from tests.support.onnx_writing import module_onnx

SIZE = 16
JITTER = 2**-22


def values_in(module: nn.Module, precision: str, images: np.ndarray) -> tuple[Recorded, Values]:
    written = WRITERS[precision](Original(module_onnx(module.eval(), SIZE), None))
    assert written.recorded is not None
    return written.recorded, values_of(cast_twin(written.model), written.recorded, images, as_written=True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_number_that_is_rounded_the_other_way_is_not_taken_for_one_that_jitter_moves(precision: str) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    recorded, values = values_in(module, precision, noise_images(4, SIZE, 2))
    moved, expected = moved_alone(recorded, values, JITTER, 3), layers_alone(recorded, values)
    assert set(moved) == set(expected)
    for value, most in moved.items():
        assert most.min() >= 0 and most.max() < 2**-18 * np.abs(expected[value]).max(), value
    convolutions = [node.output[0] for node in recorded.base.graph.node if node.op_type == "Conv"]
    assert all((moved[value] > 0).mean() > 0.9 for value in convolutions)


def test_a_norm_of_what_is_nearly_alike_magnifies_jitter() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(1, 3, eps=1e-12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    draw = np.random.default_rng(3)
    alike = (1 + 2**-9 * draw.integers(0, 2, (2, 3, SIZE, SIZE))).astype(np.float32)
    apart = draw.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    most = []
    for images in (alike, apart):
        recorded, values = values_in(Norm(), "fp16", images)
        moved = moved_alone(recorded, values, JITTER, 3)
        most.append(max(float(numbers.max() / np.abs(values.there[value]).max()) for value, numbers in moved.items()))
    assert most[0] > 10 * most[1]
