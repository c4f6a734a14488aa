"""Every operator that the ONNX writer knows, against torch: odd sizes, asymmetric windows, groups, padding, no bias."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from slimexport.onnx_files.graph import to_onnx
from tests.support.export_helpers import Wired, check_onnx, conv, run_onnx


def norm(channels: int, eps: float = 1e-5) -> nn.BatchNorm2d:
    """A norm of which all four tensors matter."""
    module = nn.BatchNorm2d(channels, eps)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        module.weight.normal_(generator=draw)
        module.bias.normal_(generator=draw)
        module.running_mean.normal_(generator=draw)  # type: ignore[union-attr]
        module.running_var.uniform_(0.1, 2, generator=draw)  # type: ignore[union-attr]
    return module


@contextlib.contextmanager
def largest_value(network: nn.Module) -> Iterator[Callable[[], float]]:
    """The largest magnitude that any module reads or gives: rounding is of its size, also where the end is near 0."""
    values = [0.0]

    def look(module: nn.Module, read: tuple[Tensor, ...], given: Tensor) -> None:
        values.extend(value.abs().max().item() for value in (*read, given))

    handles = [module.register_forward_hook(look) for module in network.modules()]
    try:
        yield lambda: max(values)
    finally:
        for handle in handles:
            handle.remove()


def in_float64(model: onnx.ModelProto) -> Any:
    """What `model` means by ONNX's own definition of its operators, with its float32 weights, computed in float64."""
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    for weight in exact.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    for value in (*exact.graph.input, *exact.graph.output, *exact.graph.value_info):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return ReferenceEvaluator(exact)


def with_float32_eps(network: nn.Module) -> nn.Module:
    """A copy in float64 whose norms have the eps that an ONNX attribute can hold."""
    exact = copy.deepcopy(network).double()
    for module in exact.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = float(np.float32(module.eps))
    return exact


def check(network: nn.Module, size: int = 17, batches: tuple[int, ...] = (1, 3)) -> None:
    """The ONNX model is valid, declares the shape that torch gives, means exactly what torch computes, and computes it in
    onnxruntime."""
    network.eval()
    content = to_onnx(network, size, {}).SerializeToString()
    model = check_onnx(content)
    exact, meant = with_float32_eps(network), in_float64(model)
    declared = [axis.dim_param or axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    for batch in batches:
        images = 3 * torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad(), largest_value(exact) as largest:
            expected = exact(images.double()).numpy()
        defined = meant.run(None, {"input": images.double().numpy()})[0]
        outputs = run_onnx(content, images.numpy())
        assert declared == ["batch", *expected.shape[1:]]
        assert outputs.shape == defined.shape == expected.shape and outputs.dtype == np.float32
        np.testing.assert_allclose(defined, expected, rtol=0, atol=1e-13 * largest())
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=2e-6 * largest())


@pytest.mark.parametrize("size", [5, 16, 17, 31])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_convolutions_of_any_stride_and_padding(size: int, stride: int, padding: int) -> None:
    check(nn.Sequential(conv(3, 5, 5, stride=stride, padding=padding), conv(5, 2, 1, bias=False)), size)


@pytest.mark.parametrize(
    "layer",
    [
        conv(3, 6, groups=3),
        conv(3, 3, groups=3, bias=False),
        conv(3, 9, kernel=1, groups=3, stride=2),
        nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(0, 2)),
        nn.Conv2d(3, 4, (1, 4), padding=(1, 3), bias=False),
    ],
    ids=["grouped", "depthwise", "1x1 strided", "asymmetric", "padded wider than its kernel needs"],
)
def test_convolutions_of_any_form(layer: nn.Module) -> None:
    check(layer if isinstance(layer, nn.Sequential) else nn.Sequential(layer))


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_a_norm_that_was_not_folded_keeps_its_eps(eps: float) -> None:
    check(nn.Sequential(norm(3, eps), conv(3, 4), norm(4, eps)))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True)])
def test_activations_clip_where_torch_clips(activation: nn.Module) -> None:
    class Scaled(nn.Sequential):
        """Values from far below 0 to far above 6."""

    layer = conv(3, 8)
    with torch.no_grad():
        layer.weight.mul_(8)
    check(Scaled(layer, activation))


@pytest.mark.parametrize("size", [6, 7, 17, 18])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d((2, 3), (1, 2), (1, 0)),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 2, padding=1),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d((3, 2), (2, 1), (1, 1), count_include_pad=False),
        nn.AvgPool2d(2),
    ],
    ids=str,
)
def test_pools_of_any_window(pool: nn.Module, size: int) -> None:
    check(nn.Sequential(conv(3, 4, padding=1), pool), size)


def test_a_max_pool_pads_with_nothing_and_not_with_zeros() -> None:
    layer = conv(3, 4, padding=1)
    nn.init.constant_(layer.bias, -100.0)  # type: ignore[arg-type]
    check(nn.Sequential(layer, nn.MaxPool2d(3, 2, padding=1)))


@pytest.mark.parametrize("output", [1, (1, 1)])
@pytest.mark.parametrize("size", [1, 5, 8])
def test_the_classifiers_end_pools_flattens_and_multiplies(output: int | tuple[int, int], size: int) -> None:
    for bias in (True, False):
        end = nn.Linear(7, 4, bias=bias)
        check(nn.Sequential(conv(3, 7, 1), nn.AdaptiveAvgPool2d(output), nn.Flatten(1), end), size)


def test_flatten_keeps_the_order_of_channels_rows_and_columns() -> None:
    check(nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(4 * 4 * 4, 5)), size=6)


@pytest.mark.parametrize(("channels", "groups"), [(6, 3), (6, 2), (12, 3), (12, 4), (3, 3), (3, 1)])
def test_a_channel_shuffle_transposes_its_groups(channels: int, groups: int) -> None:
    check(nn.Sequential(conv(3, channels, padding=1), nn.ChannelShuffle(groups), nn.ReLU()))


def test_sums_and_concatenations_take_any_two_layers() -> None:
    parts: dict[str, nn.Module] = {"a": conv(padding=1), "b": conv(padding=1)}
    check(Wired(lambda self, x: self.a(x) + self.b(x), **parts))
    check(Wired(lambda self, x: self.a(x) + x, **parts))
    check(Wired(lambda self, x: torch.add(x, self.b(x)), **parts))
    check(Wired(lambda self, x: torch.cat([self.a(x), x, self.b(x)], 1), **parts))
    check(Wired(lambda self, x: torch.cat((self.a(x), x), dim=1), **parts))


def test_a_sum_of_one_value_with_itself_doubles_it() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y: Tensor = self.a(x)
        return y + y

    check(Wired(forward, a=conv()))


@pytest.mark.parametrize("number", [2, 3, 6])
def test_chunks_are_taken_in_order_and_in_any_number(number: int) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        parts = torch.chunk(self.a(x), number, 1)
        return torch.cat([parts[-1], self.r(parts[0]), parts[1]], 1)

    check(Wired(forward, a=conv(3, 6), r=nn.ReLU()))


def test_one_activation_module_may_serve_many_layers() -> None:
    check(Wired(lambda self, x: self.r(self.a(self.r(x))), a=conv(), r=nn.ReLU6()))


def test_blocks_within_blocks_run() -> None:
    inner = Wired(lambda self, x: x + self.body(x), body=nn.Sequential(conv(padding=1), norm(3), nn.ReLU6()))
    outer = Wired(lambda self, x: torch.cat([self.inner(x), x], 1), inner=inner)
    check(nn.Sequential(outer, conv(6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)), batches=(1, 2, 7))


@pytest.mark.parametrize("seed", range(6))
def test_random_chains_of_layers_agree_with_torch(seed: int) -> None:
    draw = np.random.default_rng(seed)
    channels = 3
    layers: list[nn.Module] = []
    for _ in range(8):
        kind = draw.integers(7)
        if kind == 0:
            out = int(draw.integers(1, 5)) * 3
            layers.append(conv(channels, out, int(draw.integers(1, 4)), padding=1, stride=int(draw.integers(1, 3))))
            channels = out
        else:
            choices = (
                nn.ReLU(),
                nn.ReLU6(),
                norm(channels),
                nn.ChannelShuffle(3),
                nn.MaxPool2d(3, 2, 1),
                nn.AvgPool2d(3, 1, 1),
            )
            layers.append(choices[kind - 1])
    check(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)), size=int(draw.integers(24, 40))
    )
