"""Images and objects are changed alike: held against drawn pixels, and against what a change undoes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from slimtrain.data.detection.targets import Targets, boxes_of_masks
from slimtrain.data.detection.transforms import DetectionTransform, fitted, mirrored, normalized, padded, resized

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


def scene() -> tuple[Image.Image, Targets]:
    """Two white rectangles on black, 24 high and 40 wide, with a keypoint in the middle of the first's upper left pixel."""
    masks = torch.zeros(2, 24, 40, dtype=torch.bool)
    masks[0, 4:12, 6:20] = True
    masks[1, 16:20, 28:40] = True
    image = Image.fromarray((masks.any(0).numpy() * 255).astype(np.uint8)).convert("RGB")
    keypoints = torch.tensor([[[6.5, 4.5, 2], [19.5, 4.5, 1], [0, 0, 0]], [[0, 0, 0], [30.5, 17.5, 2], [39.5, 19.5, 2]]])
    area = masks.sum((1, 2)).float()
    crowd = torch.zeros(2, dtype=torch.bool)
    return image, Targets(24, 40, boxes_of_masks(masks), torch.tensor([1, 2]), crowd, area, 5, masks, keypoints)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        ((300, 900), (800, 1333), (444, 1333)),  # the longer side decides
        ((500, 500), (100, 1333), (100, 100)),
        ((1, 100), (8, 50), (1, 50)),  # no side is lost
    ],
)
def test_sides_keep_their_ratio(size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(*size, *limits) == expected


def test_objects_go_with_the_image_to_another_size() -> None:
    image, targets = scene()
    for height, width in ((48, 80), (12, 20), (72, 40)):
        larger, new = resized(image, targets, height, width)
        assert larger.size == (width, height) == (new.width, new.height) and new.image_id == 5
        assert new.masks is not None and torch.equal(boxes_of_masks(new.masks), new.boxes)
        assert torch.equal(new.area, new.masks.sum((1, 2)).float())
        white = np.asarray(larger)[..., 0] > 127
        assert (white == new.masks.any(0).numpy()).all()
        assert new.keypoints is not None and targets.keypoints is not None
        assert torch.allclose(new.keypoints[..., 0], targets.keypoints[..., 0] * width / 40)
        assert torch.equal(new.keypoints[..., 2], targets.keypoints[..., 2])


@pytest.mark.parametrize("size", [(13, 17), (7, 61), (50, 90), (24, 40)])
def test_masks_go_to_the_nearest_pixel(size: tuple[int, int]) -> None:
    image, targets = scene()
    masks = torch.rand(2, 24, 40, generator=torch.Generator().manual_seed(0)) > 0.5
    new = resized(image, replace(targets, masks=masks), *size)[1].masks
    expected = torch.nn.functional.interpolate(masks[None].float(), size, mode="nearest-exact")[0] > 0
    assert new is not None and torch.equal(new, expected)


def test_each_side_goes_with_its_own_ratio() -> None:
    image, targets = scene()
    _, new = resized(image, targets, 25, 43)
    assert new.boxes[0].tolist() == pytest.approx([6 * 43 / 40, 4 * 25 / 24, 20 * 43 / 40, 12 * 25 / 24])


def test_a_mirror_exchanges_left_and_right() -> None:
    image, targets = scene()
    other, new = mirrored(image, targets, ((0, 1),))
    assert (np.asarray(other) == np.asarray(image)[:, ::-1]).all()
    assert new.masks is not None and torch.equal(boxes_of_masks(new.masks), new.boxes)
    assert (np.asarray(other)[..., 0] > 127).tolist() == new.masks.any(0).tolist()
    # what was the second keypoint, at the right, is the first one now, at the left: pixel 40 - 1 - 19
    assert new.keypoints is not None
    assert new.keypoints[0].tolist() == [[20.5, 4.5, 1], [33.5, 4.5, 2], [0, 0, 0]]
    assert new.keypoints[1].tolist() == [[9.5, 17.5, 2], [0, 0, 0], [0.5, 19.5, 2]]
    again, old = mirrored(other, new, ((0, 1),))
    assert (np.asarray(again) == np.asarray(image)).all() and torch.equal(old.boxes, targets.boxes)
    assert old.keypoints is not None and targets.keypoints is not None and torch.equal(old.keypoints, targets.keypoints)


def test_values_are_normalized_by_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    expected = (pixels.astype(np.float64) / 255 - MEAN) / STD
    values = normalized(Image.fromarray(pixels), MEAN, STD)
    assert values.dtype == torch.float32 and np.allclose(values.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


def test_images_are_padded_with_zeros_to_one_size() -> None:
    images = [torch.ones(3, 10, 33), torch.ones(3, 40, 5)]
    batch = padded(images, 32)
    assert batch.shape == (2, 3, 64, 64) and batch.sum() == 3 * (330 + 200)
    assert bool((batch[0, :, :10, :33] == 1).all()) and bool((batch[1, :, :40, :5] == 1).all())
    assert padded(images).shape == (2, 3, 40, 33)
    assert padded(images, 32, (64, 96)).shape == (2, 3, 64, 96)
    with pytest.raises(ValueError, match="up to 64 x 64 pixels do not fit into 32 x 96"):
        padded(images, 32, (32, 96))


def test_draws_are_of_the_generator_alone_and_reach_everything() -> None:
    image, targets = scene()
    transform = DetectionTransform(MEAN, STD, short=(12, 24, 48), long=100, mirror=0.5)
    outcomes: Counter[tuple[int, float]] = Counter()
    for seed in range(60):
        first, second = (transform(image, targets, torch.Generator().manual_seed(seed)) for _ in range(2))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1].boxes, second[1].boxes)
        assert first[0].shape[1:] == (first[1].height, first[1].width)
        outcomes[first[1].height, round(float(first[1].boxes[0, 0]) / first[1].width, 3)] += 1
    assert set(outcomes) == {(height, left) for height in (12, 24, 48) for left in (0.15, 0.5)}
    assert min(outcomes.values()) >= 3


def test_without_draws_images_are_of_the_last_size_and_not_mirrored() -> None:
    image, targets = scene()
    tensor, new = DetectionTransform(MEAN, STD, short=(12, 48), long=100, mirror=1.0)(image, targets)
    assert tensor.shape == (3, 48, 80) and new.boxes[0].tolist() == [12, 8, 40, 24]
    assert DetectionTransform(MEAN, STD)(image, targets)[0].shape == (3, 24, 40)


def test_an_image_without_objects_is_changed_as_others_are() -> None:
    image, targets = scene()
    nothing = targets.only(torch.zeros(2, dtype=torch.bool))
    transform = DetectionTransform(MEAN, STD, short=(48,), long=100, mirror=1.0)
    tensor, new = transform(image, nothing, torch.Generator().manual_seed(0))
    assert tensor.shape == (3, 48, 80) and len(new) == 0 and new.masks is not None and new.masks.shape == (0, 48, 80)
