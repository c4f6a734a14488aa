"""Convolutions of small maps, next to torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from slimexport.references import small_maps as module
from slimexport.references.bands import InBands
from slimexport.references.small_maps import small

SETTINGS = [
    (1, 6, {}),
    (3, 6, {"padding": 1}),
    (3, 6, {"padding": (2, 0), "stride": (1, 2), "dilation": (2, 1)}),
    (1, 8, {"groups": 8}),
    (3, 8, {"groups": 8, "padding": 1, "stride": 2}),
]


class Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts those that torch computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "conv2d" in func.name() or "convolution" in func.name()
        return func(*args, **(kwargs or {}))


def drawn(outputs: int, kernel: int, groups: int = 1, side: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    sizes = (3, 8, side, side + 1), (outputs, 8 // groups, kernel, kernel), (outputs,)
    x, weight, bias = (torch.randn(size, generator=draw, dtype=torch.float64) for size in sizes)
    return x, weight, bias


@pytest.mark.parametrize(("kernel", "outputs", "settings"), SETTINGS, ids=str)
def test_a_small_map_is_what_torch_gives_without_its_convolutions(kernel: int, outputs: int, settings: dict[str, Any]) -> None:
    x, weight, bias = drawn(outputs, kernel, settings.get("groups", 1))
    for biases in (None, bias):
        with torch.inference_mode(), Convolutions() as torchs, InBands():
            given = torch.conv2d(x, weight, biases, **settings)
        assert not torchs.count
        assert given.is_contiguous()
        torch.testing.assert_close(given, torch.conv2d(x, weight, biases, **settings), rtol=1e-12, atol=1e-12)


def test_weights_of_a_narrow_plan_are_multiplied_where_they_are() -> None:
    x, weight, _ = drawn(12, 1)
    corner = torch.cat([weight, weight], 1)[:6, :8]
    with InBands():
        given = torch.conv2d(x, corner)
    torch.testing.assert_close(given, torch.conv2d(x, corner), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 8])
def test_of_a_large_map_torch_computes_it(groups: int) -> None:
    x, weight, bias = drawn(8, 3, groups, side=40)
    with torch.inference_mode(), Convolutions() as torchs, InBands():
        torch.conv2d(x, weight, bias, 1, 1, 1, groups)
    assert torchs.count


@pytest.mark.parametrize("groups", [1, 8])
def test_a_window_larger_than_its_map_is_torch_s_to_refuse(groups: int) -> None:
    x, weight, _ = drawn(8, 3, groups, side=1)
    with InBands(), pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        torch.conv2d(x, weight, None, 2, 0, 1, groups)


def test_how_small_a_map_is_depends_on_what_a_call_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of a depthwise convolution takes all images, a product each alone."""
    monkeypatch.setattr(module, "FEW", 60)
    monkeypatch.setattr(module, "FEW_OF_AN_IMAGE", 21)
    x, weight, _ = drawn(8, 1, 8)
    assert small(x, weight, 4, 5, 8) is not None
    assert small(x, weight, 4, 6, 8) is None
    _, weight, _ = drawn(8, 1)
    assert small(x, weight, 4, 5, 1) is not None
    assert small(x, weight, 3, 7, 1) is None
    assert small(x, drawn(8, 3, 2)[1], 1, 1, 2) is None  # groups of several channels are torch's
