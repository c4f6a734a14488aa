"""Boxes from what a detector says of them: codes relative to a box, corners within the image.

A box is (x1, y1, x2, y2) in pixels, x2 and y2 behind its last pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from slimtrain.base.image_size import ImageSize, sides
from slimtrain.models.detector import PUBLISHED

LARGEST_GROWTH = math.log(1000 / 16)  # of a side, as torchvision and mmdetection have it


def decoded(codes: Tensor, boxes: Tensor, weights: Sequence[float], convention: str) -> tuple[Tensor, ...]:
    """The four coordinates [...] of `codes` [..., 4] = (x, y, width, height), times `weights`, relative to `boxes` [..., 4].

    The order of operations is that of torchvision's BoxCoder, bit for bit. The published coding, of boxes whose x2 and y2 lie
    within their last pixel, is the same in these coordinates, but for a side that shrinks, which it bounds too.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    shrink = -LARGEST_GROWTH if convention == PUBLISHED else None
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    sides_ = []
    for low, high, shift, growth in ((x1, x2, dx, dw), (y1, y2, dy, dh)):
        size = high - low
        middle = shift * size + (low + 0.5 * size)
        half = 0.5 * (torch.exp(growth.clamp(min=shrink, max=LARGEST_GROWTH)) * size)
        sides_.append((middle - half, middle + half))
    (left, right), (top, bottom) = sides_
    return left, top, right, bottom


def clipped(box: Sequence[Tensor], image_size: ImageSize, convention: str) -> tuple[Tensor, ...]:
    """Four coordinates within the image: from 0 to its size. Published boxes keep their last pixel within it."""
    height, width = sides(image_size)
    inside = 1 if convention == PUBLISHED else 0
    left, top, right, bottom = box
    return (
        left.clamp(0, width - inside),
        top.clamp(0, height - inside),
        right.clamp(inside, width),
        bottom.clamp(inside, height),
    )


def flat_level(x: Tensor, columns: int) -> Tensor:
    """A level's map [B, A columns, h, w] in the order of its anchors: [B, h w A, columns]."""
    channels, height, width = x.shape[1:]
    rows = x.reshape(-1, channels // columns, columns, height, width).permute(0, 3, 4, 1, 2)
    return rows.reshape(-1, height * width * (channels // columns), columns)


def taken(x: Tensor, numbers: Tensor) -> Tensor:
    """Of every image the rows `numbers` [B, k] of `x` [B, n, c]: [B, k, c]."""
    return x.gather(1, numbers.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def leading(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest `count` of the last dimension and their positions; of equal ones the first, as ONNX's TopK orders them."""
    values, places = x.sort(dim=-1, descending=True, stable=True)
    return values[..., :count], places[..., :count]


def rows_of(boxes: Tensor) -> Tensor:
    """Boxes [B, n, 4] as RoIAlign reads them: [B n, 5], the image's number first."""
    images = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype)
    return torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], -1).reshape(-1, 5)
