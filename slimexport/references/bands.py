"""Convolutions some rows at a time, those of small maps all images at once (`small_maps.py`).

torch has no kernels of its own for float64: it multiplies by a matrix of every window of all images, 1.2 GB for one image of
800x1344 at a pyramid's finest level. Of a few rows that matrix is small, and malloc keeps its memory at hand; larger ones come
from the system anew each time, page by page, which took longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from slimexport.references.small_maps import small

WINDOWS = 2**24  # bytes of windows at a time


class InBands(TorchFunctionMode):
    """While it is entered, `torch.conv2d` of float64 on CPUs computes a band of its output after the other, whose windows take
    WINDOWS bytes; one row, where that takes more. The same sums, of small maps in another order."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    kernel = weight.shape[2:]
    other = x.ndim != 4 or x.dtype != torch.float64 or x.device.type != "cpu" or not x.numel()  # of no region
    if isinstance(padding, str) or other:
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    steps, pads, spread = _two(stride), _two(padding), _two(dilation)
    reach = [(size - 1) * gap + 1 for size, gap in zip(kernel, spread, strict=True)]
    sides = zip(x.shape[2:], pads, reach, steps, strict=True)
    height, width = ((side + 2 * pad - reached) // step + 1 for side, pad, reached, step in sides)
    rows = WINDOWS // (len(x) * weight.shape[1] * kernel.numel() * max(width, 1) * x.element_size())
    if rows >= height or kernel.numel() == 1:  # of which the map itself is the windows
        quick = small(x, weight, height, width, groups)
        return (quick or torch.conv2d)(x, weight, bias, steps, pads, spread, groups)
    result = x.new_empty((len(x), len(weight), height, width))
    for begin in range(0, height, max(rows, 1)):
        end = min(begin + max(rows, 1), height)
        first, last = begin * steps[0] - pads[0], (end - 1) * steps[0] - pads[0] + reach[0]
        band = x[:, :, max(first, 0) : max(last, 0)]
        beyond = min(max(-first, 0), last - first), min(max(last - x.shape[2], 0), last - first)
        padded = F.pad(band, (0, 0, *beyond)) if any(beyond) else band
        result[:, :, begin:end] = torch.conv2d(padded, weight, bias, steps, (0, pads[1]), spread, groups)
    return result


def _two(value: int | Sequence[int]) -> tuple[int, int]:
    """A setting of both axes, which is one number or two."""
    both = [value] * 2 if isinstance(value, int) else [*value] * (2 // len(value))
    return both[0], both[1]
