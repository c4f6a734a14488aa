"""Targets: those chosen of all that they hold, and boxes against a search by hand."""

from __future__ import annotations

import numpy as np
import torch

from slimtrain.data.detection.targets import Targets, boxes_of_masks


def test_some_of_the_objects_are_taken_of_everything() -> None:
    masks, keypoints = torch.rand(3, 4, 5) > 0.5, torch.rand(3, 2, 3)
    crowd = torch.tensor([False, True, False])
    boxes, area = torch.arange(12.0).reshape(3, 4), torch.tensor([1.0, 2, 3])
    targets = Targets(4, 5, boxes, torch.tensor([4, 5, 6]), crowd, area, 9, masks, keypoints)
    single = targets.single()
    assert len(targets) == 3 and len(single) == 2 and single.labels.tolist() == [4, 6] and not single.crowd.any()
    assert (single.height, single.width, single.image_id) == (4, 5, 9) and single.area.tolist() == [1, 3]
    assert single.masks is not None and torch.equal(single.masks, masks[[0, 2]])
    assert single.keypoints is not None and torch.equal(single.keypoints, keypoints[[0, 2]])
    assert torch.equal(single.boxes, boxes[[0, 2]])


def test_a_mask_s_box_is_the_smallest_around_it() -> None:
    masks = np.random.default_rng(0).random((50, 9, 7)) < 0.05
    for mask, box in zip(masks, boxes_of_masks(torch.from_numpy(masks)).tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        smallest = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
        assert box == smallest
    assert boxes_of_masks(torch.zeros(0, 3, 3, dtype=torch.bool)).shape == (0, 4)
