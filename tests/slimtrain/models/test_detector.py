"""What a detector is beside its weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slimtrain.models.detector import FASTER, MASK, Anchors, BoxSettings, DetectorSettings, MaskSettings


def test_anchors_are_counted_by_level() -> None:
    assert Anchors(((8, 16), (32,)), ((1.0,), (0.5, 1.0, 2.0)), (4, 8)).counts == (2, 3)


@pytest.mark.parametrize("kind", [FASTER, MASK])
def test_a_mask_head_belongs_to_one_kind_alone(kind: str) -> None:
    other = None if kind == MASK else MaskSettings()
    with pytest.raises(ValueError, match="mask_rcnn's head"):
        DetectorSettings(3, kind, mask=other)


def test_what_no_detector_is_is_refused() -> None:
    for wrong in ({"kind": "yolo"}, {"convention": "detectron"}, {"box": BoxSettings(detections=100, candidates=50)}):
        with pytest.raises(ValueError, match="expected"):
            DetectorSettings(3, **wrong)
    with pytest.raises(ValueError, match="every level"):
        replace(DetectorSettings(3), anchors=Anchors(strides=(4, 8)))
