"""Products in float64, beside torch's own of the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimtrain.tracing.doubles import products


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def arguments(layer: nn.Conv2d, x: Tensor) -> Any:
    """What a layer gives torch."""
    return (x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


@torch.no_grad()
def agrees(given: Any) -> None:
    """What is computed from numbers as they are stored is what torch gives of them in float64."""
    compute = products.quick(*given)
    assert compute is not None
    x, weight, bias, *how = given
    double = torch.conv2d if how else nn.functional.linear
    expected = double(x, weight.double(), bias if bias is None else bias.double(), *how)
    result = compute(*given)
    assert result.is_contiguous()  # so that there is any view of it that a module asks for
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        (3, {"padding": 1}),
        (3, {"stride": 2}),
        ((5, 1), {"padding": (2, 0), "stride": (1, 3)}),
        ((2, 4), {"padding": (0, 3), "dilation": (3, 1)}),
        (1, {"bias": False}),
        (7, {"padding": 3, "stride": 4, "dilation": 2, "bias": False}),
    ],
)
@pytest.mark.parametrize("kind", ["depthwise", "few places"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_are_torch_s(
    kind: str, kernel: Any, how: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE", 1)
    monkeypatch.setattr(products, "FEW", 1000)
    monkeypatch.setattr(products, "BLOCK", 500)  # some blocks, the last one smaller
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6 if kind == "depthwise" else 13, kernel, groups=6 if kind == "depthwise" else 1, **how).to(dtype)
    x = drawn(2, 6, 17, 14)
    for batch in (x, x.to(memory_format=torch.channels_last)):
        assert products.quick(*arguments(layer, batch)) is getattr(
            products, "depthwise" if kind == "depthwise" else "convolution"
        )
        agrees(arguments(layer, batch))


@pytest.mark.parametrize("shape", [(300,), (1, 300), (4, 7, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_layers_are_torch_s(shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK", 30_000)  # 100 rows of 270
    weight = drawn(270, 300, dtype=dtype)
    for bias in (None, drawn(270)):
        agrees((drawn(*shape), weight, bias))
    assert products.quick(drawn(*shape), weight) is products.linear


def test_other_products_are_left_to_torch() -> None:
    x, large = drawn(1, 64, 4, 4), drawn(128, 64, 3, 3)
    pairs: Any = ((1, 1), (1, 1), (1, 1))
    assert products.quick(x, large, None, *pairs, 1) is products.convolution
    assert products.quick(x.float(), large.float(), None, *pairs, 1) is None
    assert products.quick(x, large.to(torch.complex128), None, *pairs, 1) is None
    assert products.quick(x[0], large, None, *pairs, 1) is None
    assert products.quick(x, large, None) is None and products.quick(x, large, None, 1, 1, 1, 1) is None
    assert products.quick(x, large, None, (1, 1), "same", (1, 1), 1) is None
    assert products.quick(x, large[:64], None, *pairs, 1) is None  # few numbers
    assert products.quick(drawn(1, 64, 9, 9), large, None, *pairs, 1) is None  # many places
    assert products.quick(drawn(3, 64, 4, 4), large, None, *pairs, 1) is None  # of several images
    assert products.quick(x, drawn(128, 32, 3, 3), None, *pairs, 2) is None  # two groups
    whole, twice, one = drawn(6, 6, 3, 3), drawn(12, 1, 3, 3), drawn(6, 1, 3, 3)
    maps = drawn(1, 6, 8, 8)
    assert products.quick(maps, one, None, *pairs, 6) is products.depthwise
    assert products.quick(maps, whole, None, *pairs, 1) is None and products.quick(maps, twice, None, *pairs, 6) is None
    assert products.quick(drawn(33, 300), drawn(270, 300)) is None and products.quick(drawn(1, 30), drawn(27, 30)) is None
    assert products.quick(drawn(1, 300), drawn(300)) is None  # a weight of one output
