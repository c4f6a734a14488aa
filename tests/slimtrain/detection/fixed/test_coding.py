"""Boxes from codes against torchvision's coder, and the published coding against its definition."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchvision.models.detection._utils import BoxCoder

from slimtrain.detection.fixed.coding import clipped, decoded, leading, rows_of, taken
from slimtrain.models.detector import PUBLISHED, TORCHVISION

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def drawn(seed: int = 0, count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, some beyond their bound, and boxes."""
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw, dtype=torch.float64) * 200
    size = torch.rand(count, 2, generator=draw, dtype=torch.float64) * 90 + 1
    return torch.randn(count, 4, generator=draw, dtype=torch.float64) * 12, torch.cat([corner, corner + size], 1)


def test_boxes_are_torchvision_s_bit_for_bit() -> None:
    codes, boxes = drawn()
    expected = BoxCoder(WEIGHTS).decode_single(codes, boxes)
    assert torch.equal(torch.stack(decoded(codes, boxes, WEIGHTS, TORCHVISION), -1), expected)


def test_published_boxes_are_as_defined() -> None:
    """mmdetection of 2018: sides count their last pixel, both ways of growing are bounded, corners lie on pixels."""
    codes, boxes = drawn(1)
    size = 160, 240
    box = clipped(decoded(codes, boxes, WEIGHTS, PUBLISHED), size, PUBLISHED)
    result = torch.stack(box, -1).numpy()
    bound = abs(math.log(16 / 1000))
    for code, outer, given in zip(codes.numpy(), boxes.numpy(), result, strict=True):
        x1, y1, x2, y2 = outer - [0, 0, 1, 1]
        dx, dy, dw, dh = code / np.array(WEIGHTS)
        middle = (x1 + x2) / 2 + (x2 - x1 + 1) * dx, (y1 + y2) / 2 + (y2 - y1 + 1) * dy
        wide, high = ((high - low + 1) * np.exp(np.clip(d, -bound, bound)) for low, high, d in ((x1, x2, dw), (y1, y2, dh)))
        corners = [
            *(middle[0] - wide / 2 + 0.5, middle[1] - high / 2 + 0.5),
            *(middle[0] + wide / 2 - 0.5, middle[1] + high / 2 - 0.5),
        ]
        expected = np.clip(corners, 0, [size[1] - 1, size[0] - 1] * 2) + np.array([0, 0, 1, 1])
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-10)


def test_the_first_of_equal_values_leads() -> None:
    values, places = leading(torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0]]), 4)
    assert values.tolist() == [[3, 3, 2, 2]] and places.tolist() == [[1, 3, 2, 4]]


def test_rows_are_taken_by_image() -> None:
    x = torch.arange(24).reshape(2, 4, 3)
    assert taken(x, torch.tensor([[3, 0], [1, 1]])).tolist() == [[[9, 10, 11], [0, 1, 2]], [[15, 16, 17], [15, 16, 17]]]


def test_rows_of_regions_begin_with_their_image() -> None:
    boxes = torch.arange(16.0).reshape(2, 2, 4)
    assert rows_of(boxes).tolist() == [[0, 0, 1, 2, 3], [0, 4, 5, 6, 7], [1, 8, 9, 10, 11], [1, 12, 13, 14, 15]]
