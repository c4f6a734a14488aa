"""What a detector is beside its weights, as files hold it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slimtrain.models.detector import MASK, PUBLISHED, Anchors, BoxSettings, DetectorSettings, MaskSettings
from slimtrain.models.stored_detector import plain_detector, read_detector

SETTINGS = DetectorSettings(
    7,
    MASK,
    Anchors(((8, 16), (32,)), ((1.0,), (0.5, 2.0)), (4, 8)),
    box=BoxSettings(score=0.1, detections=20, candidates=90),
    mask=MaskSettings(size=14),
    mean=(0.0, 0.5, 1.0),
    convention=PUBLISHED,
)


def test_what_was_written_is_read_as_it_was() -> None:
    for settings in (SETTINGS, DetectorSettings(3)):
        assert read_detector(json.loads(json.dumps(plain_detector(settings)))) == settings


def test_what_is_left_out_is_as_usual() -> None:
    assert read_detector({"classes": 3}) == DetectorSettings(3)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "3"},
        {"classes": True},
        {"classes": -1},
        {"classes": 0},
        {"classes": 10**30},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"mean": [0.5, 0.5, 10**400]},
        {"std": [0.0, 1.0, 1.0]},
        {"box": []},
        {"box": {"no": 1}},
        {"box": {"score": "0.1"}},
        {"box": {"weights": [10, 10, 0, 5]}},
        {"box": {"roi_size": 0}},
        {"anchors": {"sizes": [[8]] * 2000, "ratios": [], "strides": []}},
        {"anchors": {"sizes": [[0]], "ratios": [[1.0]], "strides": [4]}},
        {"anchors": {"sizes": [[8]], "ratios": [[-1.0]], "strides": [4]}},
        {"anchors": {"sizes": [[8]], "ratios": [[1.0]], "strides": [0]}},
        {"anchors": {"sizes": [], "ratios": [], "strides": []}},
        {"kind": ["faster_rcnn"]},
        {"unknown": 1},
    ],
)
def test_what_none_are_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_detector({"classes": 3, **change})


def test_no_settings_at_all_are_refused() -> None:
    values: tuple[Any, ...] = (None, [], "classes", 3)
    for value in values:
        with pytest.raises(ValueError, match="expected"):
            read_detector(value)
