"""Noise with objects has what a step of any detector reads."""

from __future__ import annotations

import torch

from slimtrain.data.detection.fake import FakeObjects
from slimtrain.data.detection.targets import boxes_of_masks


def test_images_and_targets_are_of_the_size_and_the_same_whenever_they_are_asked_for() -> None:
    samples = FakeObjects(3, (32, 48), classes=5, keypoints=4)
    assert len(samples) == 3 and samples.name(1) == "fake 1"
    for index in range(3):
        image, targets = samples.image(index), samples.targets(index)
        assert image.shape == (3, 32, 48) and image.dtype == torch.uint8
        assert torch.equal(image, samples.image(index)) and torch.equal(targets.boxes, samples.targets(index).boxes)
        assert targets.masks is not None and torch.equal(boxes_of_masks(targets.masks), targets.boxes)
        assert int(targets.labels.min()) >= 1 and int(targets.labels.max()) <= 5
        assert targets.keypoints is not None and targets.keypoints.shape == (3, 4, 3)
        assert (targets.masks.sum((1, 2)) == targets.area).all()
    assert samples.targets(0).keypoints is not None and FakeObjects(1, 32, 2).targets(0).keypoints is None
