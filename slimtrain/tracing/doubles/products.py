"""Convolutions and linear layers in float64, of which torch computes some slowly.

A depthwise convolution is the sum over its taps: torch computes channel after channel, which takes five times as long. A
product with a large weight that few places meet (a map of 2 by 2, a classifier) takes as long as its weight takes to be read.
In float64, which it is not stored in, that would be three passes through twice the memory; here some of its rows at a time
become float64 and are used there and then, near the processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 32  # places; more make up for what reading the weight takes
LARGE = 2**16  # numbers of a weight; of fewer there is nothing to gain
BLOCK = 2**18  # numbers of a weight that are float64 at a time


def quick(x: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any) -> Callable[..., Tensor] | None:
    """What computes a linear layer, or with `how` (stride, padding, dilation, groups) a 2-d convolution, of these arguments in
    less time than torch does. `weight` may be of another number type. None where torch is to compute it."""
    if x.dtype != torch.float64 or not weight.is_floating_point():
        return None
    if not how:
        few = weight.ndim == 2 and x.numel() <= FEW * weight.shape[1]
        return linear if few and weight.numel() >= LARGE else None
    if (
        len(how) != 4
        or not x.ndim == weight.ndim == 4
        or not all(isinstance(of_dims, tuple | list) and len(of_dims) == 2 for of_dims in how[:3])
    ):
        return None
    groups = how[3]
    if groups == 1:
        few = len(x) * math.prod(_sizes(x, weight, *how)) <= FEW
        return convolution if few and weight.numel() >= LARGE else None
    return depthwise if weight.shape[1] == 1 and groups == x.shape[1] == weight.shape[0] else None


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, *groups: Any
) -> Tensor:
    """A depthwise convolution as the sum over its taps: x [N, C, H, W], weight [C, 1, h, w]. Channels lie next to each other
    meanwhile: maps are small."""
    (down, along), (above, beside), (rows, columns) = stride, padding, dilation
    channels, (high, wide) = len(weight), weight.shape[2:]
    places = F.pad(x.permute(0, 2, 3, 1), (0, 0, beside, beside, above, above)).contiguous()
    height, width = _size(places.shape[1], high, down, 0, rows), _size(places.shape[2], wide, along, 0, columns)
    taps = weight.to(x.dtype).reshape(channels, high * wide).t().reshape(high, wide, channels).contiguous()
    result = x.new_zeros(len(x), height, width, channels)
    if bias is not None:
        result += bias
    for row in range(high):
        for column in range(wide):
            begin, left = row * rows, column * columns
            met = places[:, begin : begin + down * (height - 1) + 1 : down, left : left + along * (width - 1) + 1 : along]
            result.addcmul_(met, taps[row, column])
    return result.permute(0, 3, 1, 2).contiguous()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer of few rows, x [..., I], weight [O, I] of any number type."""
    outputs, inputs = weight.shape
    rows = max(1, min(BLOCK // inputs, outputs))
    held, flat = x.new_empty(rows, inputs), x.reshape(-1, inputs).contiguous()
    result = x.new_empty(len(flat), outputs)
    for start in range(0, outputs, rows):
        part = weight[start : start + rows]
        result[:, start : start + rows] = F.linear(flat, held[: len(part)].copy_(part))
    if bias is not None:
        result += bias
    return result.reshape(*x.shape[:-1], outputs)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, *groups: Any
) -> Tensor:
    """A convolution with few places, x [N, C, H, W], weight [O, C, h, w] of any number type: a linear layer of what its window
    sees from each of them."""
    height, width = _sizes(x, weight, stride, padding, dilation)
    seen = F.unfold(x, weight.shape[2:], dilation, padding, stride).transpose(1, 2)
    result = linear(seen, weight.flatten(1), bias).transpose(1, 2).contiguous()
    return result.view(len(x), len(weight), height, width)


def _sizes(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, *groups: Any) -> list[int]:
    """Height and width of what a convolution gives."""
    return [_size(*sizes) for sizes in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)]


def _size(size: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
