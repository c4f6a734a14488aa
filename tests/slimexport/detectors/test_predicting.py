"""What a detector's file gives of a photograph, in its own pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slimexport.detectors.predicting import as_line, objects_of, plain
from slimexport.target.errors import BundleError
from slimexport.target.tensors import BoxEntry, DetectorEntry

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


@pytest.mark.parametrize(
    "other",
    [
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
