"""Convolutions of small maps in float64, for which torch has no kernels of its own: it multiplies image by image and group by
group, and a call takes longer than the arithmetic of a few places, or than their weights take to be read anew for each image.

Here a depthwise convolution is the sum over its taps, and one without groups a single product with what its windows see on all
images. Both are sums of the same numbers, in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from slimtrain.tracing.doubles import products

FEW = 2**11  # places on all images, which a group is called for
FEW_OF_AN_IMAGE = 2**6  # places, which the weights are read for


def small(x: Tensor, weight: Tensor, height: int, width: int, groups: int) -> Callable[..., Tensor] | None:
    """What convolves x [N, C, H, W] with a weight [O, C of a group, h, w] in less time than torch does, to maps of `height`
    by `width`. It takes what `torch.conv2d` does, of both axes. None where torch is to do it."""
    if height < 1 or width < 1:
        return None  # torch says what is wrong
    if groups == 1:
        return convolution if height * width < FEW_OF_AN_IMAGE else None
    depthwise = weight.shape[1] == 1 and groups == x.shape[1] == len(weight)
    return products.depthwise if depthwise and len(x) * height * width <= FEW else None


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, *groups: Any
) -> Tensor:
    """One without groups, as a linear layer of what its window sees from every place of every image."""
    high, wide = weight.shape[2:]
    sides = zip(x.shape[2:], (high, wide), stride, padding, dilation, strict=True)
    height, width = ((side + 2 * pad - (taps - 1) * gap - 1) // step + 1 for side, taps, step, pad, gap in sides)
    seen = F.unfold(x, (high, wide), dilation, padding, stride).transpose(1, 2)
    result: Tensor = F.linear(seen, weight.flatten(1), bias)
    return result.transpose(1, 2).reshape(len(x), len(weight), height, width).contiguous()
