"""The mask of every detection's class, against torchvision's."""

from __future__ import annotations

import torch
from torchvision.models.detection.roi_heads import maskrcnn_inference

from slimtrain.detection.fixed.masks import Masks


def test_it_is_that_of_the_detection_s_class() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2 * 6, 4, 8, 8, generator=draw, dtype=torch.float64)
    labels = torch.tensor([[3, 1, 2, 3, 1, 1], [2, 2, 1, 0, 0, 0]])
    masks = Masks()(labels, logits)["masks"]
    counts = [6, 3]
    rows = torch.cat([logits[6 * image : 6 * image + count] for image, count in enumerate(counts)])
    expected = maskrcnn_inference(rows, [labels[image, :count] for image, count in enumerate(counts)])
    for image, count in enumerate(counts):
        assert torch.equal(masks[image, :count], expected[image][:, 0])
        assert not masks[image, count:].any()
