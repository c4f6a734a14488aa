"""Losses of a detector in two parts, against torchvision's detectors, which compute them in one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from slimtrain.detection.losses.two_stage import TwoStageLosses
from slimtrain.models.detector import FASTER, KEYPOINT, MASK
from tests.support.detector_losses import SAMPLING, SIZE, Heads, maps_of, settings_of, targets_of


@pytest.mark.parametrize("kind", [FASTER, MASK, KEYPOINT])
@pytest.mark.parametrize("counts", [[3, 2], [4, 0], [1]])
def test_losses_and_gradients_are_torchvision_s(kind: str, counts: list[int]) -> None:
    settings = settings_of(kind)
    heads, maps, targets = Heads(settings).train(), maps_of(len(counts)), targets_of(counts)
    wanted = [
        {"boxes": image.boxes, "labels": image.labels, "masks": image.masks.to(torch.uint8), "keypoints": image.keypoints}
        for image in targets
        if image.masks is not None and image.keypoints is not None
    ]
    sizes = [(SIZE, SIZE)] * len(counts)
    torch.manual_seed(7)
    proposals, right = heads.rpn(ImageList(torch.zeros(len(counts), 3, SIZE, SIZE), sizes), maps, wanted)
    right |= heads.roi(maps, proposals, sizes, wanted)[1]
    torch.autograd.backward(sum(right.values(), torch.zeros(())))
    expected = [level.grad.clone() for level in maps.values() if level.grad is not None]
    for level in maps.values():
        level.grad = None

    ours = TwoStageLosses(settings, SAMPLING)
    torch.manual_seed(7)
    losses, regions = ours.first(heads.first(maps), SIZE, sizes, targets)
    losses |= ours.second(heads.second(maps, regions.rois, regions.mask_rois, len(counts)), regions, targets)
    names = {
        "objectness": "loss_objectness",
        "proposals": "loss_rpn_box_reg",
        "classes": "loss_classifier",
        "boxes": "loss_box_reg",
        "masks": "loss_mask",
        "keypoints": "loss_keypoint",
    }
    assert {names[name] for name in losses} == set(right)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, right[names[name]], msg=name)
    torch.autograd.backward(sum(losses.values(), torch.zeros(())))
    for level, gradient in zip(maps.values(), expected, strict=True):
        torch.testing.assert_close(level.grad, gradient)


def test_crowds_are_not_learned() -> None:
    """Not their classes, nor that there is anything."""
    settings = settings_of(FASTER)
    heads, maps = Heads(settings).train(), maps_of(1)
    ours, sizes = TwoStageLosses(settings, SAMPLING), [(SIZE, SIZE)]
    given = targets_of([5], crowds=2)
    results = []
    for targets in (given, [given[0].single()]):
        torch.manual_seed(7)
        losses, regions = ours.first(heads.first(maps), SIZE, sizes, targets)
        results.append((losses, regions))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1].rois, results[1][1].rois)
    assert all(len(replace_of.single()) == 3 for replace_of in given)


def test_proposals_stay_within_what_is_image() -> None:
    """Of an image that was padded to the batch's size."""
    settings = settings_of(FASTER)
    heads, maps = Heads(settings).train(), maps_of(2)
    targets = [replace(image, height=40, width=48) for image in targets_of([0, 0])]
    _, regions = TwoStageLosses(settings, SAMPLING).first(heads.first(maps), SIZE, [(SIZE, SIZE), (40, 48)], targets)
    second = regions.rois[regions.rois[:, 0] == 1]
    assert len(second) and second[:, 3].max() <= 48 and second[:, 4].max() <= 40
    assert regions.rois[regions.rois[:, 0] == 0, 3].max() > 48
    assert not len(regions.mask_rois)
