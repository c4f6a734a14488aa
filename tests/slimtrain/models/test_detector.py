"""What a detector is beside its weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slimtrain.models.detector import (
    FASTER,
    MASK,
    PUBLISHED,
    RETINA,
    SSD_ANCHORS,
    SSDLITE,
    Anchors,
    BoxSettings,
    DetectorSettings,
    MaskSettings,
    usual_box,
)
from slimtrain.models.stored_detector import plain_detector, read_detector


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


def test_a_kind_s_own_rules_are_torchvision_s() -> None:
    """Of RetinaNet boxes are coded without weights; SSDLite chooses candidates of each class."""
    assert usual_box(RETINA).weights == (1.0,) * 4 and usual_box(RETINA).top_k == 1000
    assert (usual_box(SSDLITE).score, usual_box(SSDLITE).top_k, usual_box(FASTER)) == (0.001, 300, BoxSettings())


def test_default_boxes_belong_to_ssdlite_alone() -> None:
    given = DetectorSettings(3, SSDLITE, SSD_ANCHORS, box=usual_box(SSDLITE))
    assert given.anchors.counts == (6,) * 6 and given.extra_levels == 4 and given.image_stride == 32 and given.single_stage
    with pytest.raises(ValueError, match="anchors of a ssdlite: expected scales"):
        DetectorSettings(3, SSDLITE)
    with pytest.raises(ValueError, match="anchors of a retinanet: expected sizes"):
        DetectorSettings(3, RETINA, SSD_ANCHORS)
    with pytest.raises(ValueError, match="one scale more than levels"):
        replace(SSD_ANCHORS, scales=SSD_ANCHORS.scales[1:])
    assert read_detector(plain_detector(given)) == given


def test_the_published_convention_is_of_regions() -> None:
    with pytest.raises(ValueError, match="published ones are of regions"):
        DetectorSettings(3, RETINA, convention=PUBLISHED)
