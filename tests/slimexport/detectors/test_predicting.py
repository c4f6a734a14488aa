"""What a detector's file gives of a photograph, in its own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimexport.detectors.predicting import as_line, objects_of, plain
from slimexport.target.errors import BundleError
from slimexport.target.tensors import BoxEntry, DetectorEntry
from slimtrain.data.detection.masks import mask_of_runs, runs_of_text

ENTRY = DetectorEntry(kind="faster_rcnn", classes=3, box=BoxEntry(score=0.05, nms=0.5, detections=3), nms="fixed", slim="all")
SIZE = (90, 80)  # of the photograph


def given(**other: Any) -> dict[str, Any]:
    boxes = np.array([[[10, 20, 30, 40], [1, 2, 3, 4], [0, 0, 0, 0]]], np.float32)
    return {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.5, 0]], np.float32),
        "labels": np.array([[2, 1, 0]]),
        "count": np.array([2]),
        **other,
    }


def test_boxes_come_in_the_photograph_s_pixels() -> None:
    objects = objects_of(given(), "file", ENTRY, (0.5, 2.0), SIZE, ("a", "b", "c"))
    assert [(o.name, o.label, o.box) for o in objects] == [("b", 2, (20, 10, 60, 20)), ("a", 1, (2, 1, 6, 2))]
    assert as_line(objects) == "b 90.0% at 20 10 60 20, a 50.0% at 2 1 6 2"
    assert plain(objects)[0]["class"] == 2


def test_boxes_end_with_the_photograph_and_what_lies_in_the_padding_is_none() -> None:
    """Of 100 pixels a side the photograph fills 20 x 25: the first box lies beside it, the second reaches beyond."""
    boxes = np.array([[[20.5, 2, 30, 9], [10, 20, 30, 40], [0, 0, 0, 0]]], np.float32)
    (only,) = objects_of(given(boxes=boxes), "file", ENTRY, (0.5, 0.5), (40, 50), ("a", "b", "c"))
    assert (only.name, only.box) == ("a", (20, 40, 40, 50))


def test_without_names_classes_are_numbers_and_nothing_is_nothing() -> None:
    assert as_line(objects_of(given(), "file", ENTRY, (1, 1), SIZE, None)).startswith("class 2 ")
    assert as_line(objects_of(given(count=np.array([0])), "file", ENTRY, (1, 1), SIZE, None)) == "nothing"


def test_a_mask_lies_in_the_photograph_and_its_share_of_the_box_is_told() -> None:
    """The left half of each box."""
    masks = np.zeros((1, 3, 28, 28), np.float32)
    masks[..., :14] = 1
    first, second = objects_of(given(masks=masks), "file", ENTRY, (0.5, 2.0), SIZE, ("a", "b", "c"))
    assert first.mask is not None and first.keypoints is None
    boxes = torch.tensor([first.box, second.box])
    expected = paste_masks_in_image(torch.from_numpy(masks[0, :2, None]), boxes, (80, 90))[:, 0].numpy() > 0.5
    for own, mask in zip((first, second), expected, strict=True):
        assert own.mask is not None
        assert (mask_of_runs(runs_of_text(own.mask.counts), 80, 90) == mask).all() and mask.any()
    assert str(first) == "b 90.0% at 20 10 60 20 (mask 50% of it)" and first.mask.share == 0.5
    assert plain((first, second))[0]["mask"] == {"size": [80, 90], "counts": first.mask.counts}


def test_keypoints_come_in_the_photograph_s_pixels() -> None:
    points = np.zeros((1, 3, 5, 3), np.float32)
    points[0, 0, :, :2] = np.arange(10).reshape(5, 2)
    scores = np.zeros((1, 3, 5), np.float32)
    scores[0, 0] = [1, 2, 3, 4, 5]
    given_ = given(keypoints=points, keypoint_scores=scores)
    first, _ = objects_of(given_, "file", ENTRY, (0.5, 2.0), SIZE, ("a", "b", "c"))
    assert first.keypoints is not None and first.mask is None
    assert [(point.x, point.y, point.score) for point in first.keypoints] == [
        *((0, 0.5, 1), (4, 1.5, 2), (8, 2.5, 3), (12, 3.5, 4), (16, 4.5, 5)),
    ]
    assert str(first) == "b 90.0% at 20 10 60 20 (5 keypoints: 0 0, 4 2, 8 2, ...)"
    (value,) = plain((first,))
    assert value["keypoints"][1] == [4, 1.5] and value["keypoint_scores"] == [1, 2, 3, 4, 5] and "mask" not in value


@pytest.mark.parametrize(
    "other",
    [
        {"masks": np.zeros((1, 2, 28, 28))},
        {"masks": np.zeros((1, 3, 28, 27))},
        {"masks": np.zeros((1, 3))},
        {"masks": np.zeros((1, 3, 0, 0))},
        {"masks": np.full((1, 3, 28, 28), np.nan)},
        {"keypoints": np.zeros((1, 3, 5, 3))},
        {"keypoints": np.zeros((1, 3, 5, 3)), "keypoint_scores": np.zeros((1, 3, 4))},
        {"keypoints": np.zeros((1, 3)), "keypoint_scores": np.zeros((1, 3))},
        {"keypoints": np.full((1, 3, 5, 3), np.inf), "keypoint_scores": np.zeros((1, 3, 5))},
        {"count": np.array([4])},
        {"count": np.array([-1])},
        {"labels": np.array([[4, 1, 0]])},
        {"labels": np.array([[0, 1, 0]])},
        {"scores": np.array([[np.nan, 0.5, 0]])},
        {"boxes": np.zeros((1, 3, 5))},
        {"count": np.zeros(0)},
    ],
)
def test_what_are_no_detections_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        objects_of(given(**other), "file", ENTRY, (1, 1), SIZE, ("a", "b", "c"))


def test_outputs_of_another_network_are_refused() -> None:
    with pytest.raises(BundleError, match="gives one output, expected boxes"):
        objects_of(np.zeros((1, 3)), "file", ENTRY, (1, 1), SIZE, None)


def test_what_tensorrt_s_plugin_gives_is_read_too() -> None:
    """Its classes count from 0, and rows behind the detections are anything."""
    rows = given()
    plugin = {
        "num_detections": np.array([[1]], np.int32),
        "detection_boxes": rows["boxes"] * [[[1], [np.nan], [1]]],
        "detection_scores": rows["scores"],
        "detection_classes": np.array([[1, 99, 99]], np.int32),
    }
    (only,) = objects_of(plugin, "file", ENTRY, (0.5, 2.0), SIZE, ("a", "b", "c"))
    assert (only.name, only.label, only.box) == ("b", 2, (20, 10, 60, 20))
