"""fp16, bf16 and int8 files of traced networks: operators that published networks lack, several outputs, computed weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from slimexport.onnx_files.graph_proof import outputs_of
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.quantize import quantize, quantized_inputs
from slimexport.onnx_files.ranges import activation_scales, measure_ranges
from slimexport.onnx_files.runner import cpu_session
from slimexport.onnx_files.typed import cast_twin, to_typed
from tests.support.graph_cases import traced

TOLERANCE = {"fp16": 5e-3, "bf16": 5e-2}


class Many(nn.Module):
    """Reductions, a Split into equal parts, resized images, masks with infinities, sizes computed from the batch, casts,
    weights that images make."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.token = nn.Conv2d(3, 16, 3, 2, 1), nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv(images)
        x = (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 0.1).sqrt() + x.amax((2, 3), True)
        x = x + F.interpolate(F.interpolate(x, size=(3, 3), mode="bilinear"), size=(8, 8))
        first, second = torch.cat([x, x * 2]).chunk(2)
        x = first * (second > 0).float() + F.conv2d(x, x.mean(0)[:, None, :3, :3], padding=1, groups=16) * 0.01
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        tokens = F.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
        return tokens[:, 0], F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False), tokens.argmax(1)


@pytest.fixture(scope="module")
def many() -> tuple[onnx.ModelProto, np.ndarray, list[Tensor]]:
    torch.manual_seed(0)
    sizing, tensors = traced(Many().eval(), (3, 16, 16))
    images = torch.randn(3, 3, 16, 16)
    return write_graph(sizing, tensors, metadata={"precision": "fp32"}), images.numpy(), outputs_of(sizing, tensors, images)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_typed_file_of_any_graph_is_valid_and_near(
    precision: str, many: tuple[onnx.ModelProto, object, list[Tensor]]
) -> None:
    model, images, wanted = many
    typed, _ = to_typed(model, precision)
    onnx.checker.check_model(typed, full_check=True)
    kinds = [value.type.tensor_type.elem_type for value in typed.graph.output]
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64]
    outputs = cpu_session(cast_twin(typed)).run(None, {"input": images})
    for output, exact in zip(outputs[:2], wanted[:2], strict=True):
        assert output.dtype == np.float32
        assert np.abs(output - exact.numpy()).max() < TOLERANCE[precision] * exact.abs().max()


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_images_make_are_not_quantized(half: bool, many: tuple[onnx.ModelProto, np.ndarray, object]) -> None:
    model, images, _ = many
    names = quantized_inputs(model)
    scales = activation_scales(measure_ranges(model, [images], names), "max")
    quantized = quantize(model, scales, half)
    onnx.checker.check_model(quantized, full_check=True)
    readers = [node for node in quantized.graph.node if node.op_type == "Conv" and "conv2d" in node.name]
    computed = {name for node in model.graph.node for name in node.output}
    assert sum(node.input[1] in computed for node in readers) == 1
