"""Convolutions some rows at a time, next to all rows at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from slimexport.references import bands as module
from slimexport.references.bands import InBands

SETTINGS = [
    {},
    {"padding": 1},
    {"padding": (3, 1), "stride": 2},
    {"padding": 2, "dilation": (2, 1), "stride": (1, 2)},
    {"padding": [1], "stride": [3]},
    {"padding": 1, "groups": 2},
    {"padding": 4, "stride": 3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("windows", [1, 5_000, 2**40])
def test_bands_give_what_all_rows_do(settings: dict[str, Any], windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOWS", windows)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 11, 9, generator=draw, dtype=torch.float64)
    weight = torch.randn(6, 4 // settings.get("groups", 1), 3, 2, generator=draw, dtype=torch.float64)
    bias = torch.randn(6, generator=draw, dtype=torch.float64)
    with InBands():
        given = torch.conv2d(x, weight, bias, **settings)
    torch.testing.assert_close(given, torch.conv2d(x, weight, bias, **settings), rtol=1e-12, atol=1e-12)


def test_no_convolution_sees_more_rows_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(1, 4, 40, 10, dtype=torch.float64), torch.randn(4, 4, 3, 3, dtype=torch.float64)
    monkeypatch.setattr(module, "WINDOWS", 5 * 4 * 9 * 10 * 8)  # five rows
    seen = []
    whole = torch.conv2d

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is whole:
                seen.append(args[0].shape[2])
            return func(*args, **(kwargs or {}))

    with Watched(), InBands():
        torch.conv2d(x, weight, None, 1, 1)
    assert seen == [7] * 8


def test_of_no_region_there_is_nothing_to_compute() -> None:
    """As of a head where nothing is detected."""
    x, weight = torch.zeros(0, 4, 14, 14, dtype=torch.float64), torch.zeros(6, 4, 3, 3, dtype=torch.float64)
    with InBands():
        assert torch.conv2d(x, weight, None, 1, 1).shape == (0, 6, 14, 14)


def test_other_numbers_are_left_as_they_are() -> None:
    x, weight = torch.randn(1, 4, 40, 10), torch.randn(4, 4, 3, 3)
    with InBands():
        given = torch.conv2d(x, weight)
    assert torch.equal(given, torch.conv2d(x, weight))
