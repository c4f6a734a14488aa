"""Keypoints in fixed shapes against torchvision's, which enlarges every map to its detection's size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from slimtrain.detection.fixed.keypoints import Keypoints
from slimtrain.models.detector import KeypointSettings

HEIGHT, WIDTH = IMAGE = (70, 110)
SETTINGS = KeypointSettings(count=3, size=12)


def drawn_boxes(count: int, seed: int = 0, largest: float = 1.0) -> Tensor:
    """Boxes within the image, [1, n, 4], from less than a pixel to `largest` of it."""
    draw = torch.Generator().manual_seed(seed)
    whole = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
    size = whole * largest * torch.exp2(-7 * torch.rand(count, 2, generator=draw, dtype=torch.float64))
    corner = (whole - size) * torch.rand(count, 2, generator=draw, dtype=torch.float64)
    return torch.cat([corner, corner + size], 1)[None]


def drawn_maps(count: int, smooth: int, seed: int = 1) -> Tensor:
    """Maps [n, K, s, s] in which neighbours resemble each other as far as `smooth` places."""
    draw = torch.Generator().manual_seed(seed)
    size = SETTINGS.size
    coarse = torch.randn(count, SETTINGS.count, *(max(2, size // smooth),) * 2, generator=draw, dtype=torch.float64)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False) * 5 if smooth > 1 else coarse


def check(boxes: Tensor, maps: Tensor, cells: int = 8) -> Tensor:
    """Which keypoints are settled. All that are stand where torchvision's do, as do all whose image is."""
    result = Keypoints(SETTINGS, IMAGE, cells)(boxes.transpose(0, 1), torch.ones(len(maps), 1, dtype=torch.int64), maps)
    points, scores = heatmaps_to_keypoints(maps, boxes[0])
    settled: Tensor = result["settled"]
    torch.testing.assert_close(result["keypoints"][settled, 0].float(), points[settled], rtol=0, atol=2e-5)
    torch.testing.assert_close(result["keypoint_scores"][settled, 0].float(), scores[settled], rtol=1e-5, atol=1e-5)
    assert (result["keypoint_scores"][:, 0].float() <= scores + 1e-5).all()
    return settled


def test_peaks_stand_where_torchvision_s_do() -> None:
    settled = check(drawn_boxes(400), drawn_maps(400, smooth=4))
    assert settled.float().mean() > 0.99


def test_noise_does_too_where_it_is_settled() -> None:
    assert check(drawn_boxes(400), drawn_maps(400, smooth=1), 30).float().mean() > 0.9


@pytest.mark.parametrize(
    "sides", [(12.0, 12.0), (24.0, 36.0), (1.0, 1.0), (0.3, 60.0), (70.0, 110.0), (6.0, 11.0), (13.0, 3.0)]
)
def test_detections_of_whole_sizes(sides: tuple[float, float]) -> None:
    """Places that lie on the edges of cells, or in the middle of them."""
    boxes = torch.tensor([0.0, 0.0, sides[1], sides[0]], dtype=torch.float64).expand(1, 50, 4)
    assert check(boxes, drawn_maps(50, smooth=3)).float().mean() > 0.95


def test_all_cells_are_enough_for_anything() -> None:
    assert check(drawn_boxes(60), drawn_maps(60, smooth=1), SETTINGS.size**2 * 4).all()


def test_where_another_cell_might_be_higher_it_is_not_settled() -> None:
    boxes = drawn_boxes(200, largest=0.9)
    assert check(boxes, drawn_maps(200, smooth=1), 1).float().mean() < 0.7


def test_padding_is_zeros_and_settled() -> None:
    maps = drawn_maps(6, smooth=4)
    boxes, labels = drawn_boxes(6).reshape(2, 3, 4), torch.tensor([[1, 1, 0], [0, 0, 0]])
    result = Keypoints(SETTINGS, IMAGE, 1)(boxes, labels, maps)
    assert result["keypoints"].shape == (2, 3, 3, 3) and result["keypoint_scores"].shape == (2, 3, 3)
    assert not result["keypoints"][1].any() and not result["keypoint_scores"][0, 2].any() and result["settled"][1]
    assert result["keypoints"][0, :2, :, 2].tolist() == [[1.0] * 3] * 2
