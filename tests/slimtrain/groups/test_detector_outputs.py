"""What settings say of a graph's outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slimtrain.detection.making import slimmable_detector
from slimtrain.graph.graph import Graph
from slimtrain.groups.detector_outputs import check_outputs
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import (
    FASTER,
    KEYPOINT,
    KINDS,
    MASK,
    RETINA,
    SSDLITE,
    Anchors,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
)
from tests.support.small_detectors import SIZE, small_detector, small_settings


def graph_of(kind: str) -> Graph:
    spec = slimmable_detector(small_detector(kind), (1.0,), image_size=SIZE, order="none", check=False).spec
    assert isinstance(spec, GraphSpec)
    return spec.graph


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {kind: graph_of(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_fit_their_own_graph_and_no_other_kind_s(kind: str, graphs: dict[str, Graph]) -> None:
    for own, graph in graphs.items():
        if own == kind:
            check_outputs(small_settings(kind), graph)
        else:
            with pytest.raises(ValueError, match=r"takes images|do not agree on the outputs|the settings say"):
                check_outputs(small_settings(kind), graph)


def anchors(**changes: Any) -> dict[str, Any]:
    return {"anchors": replace(Anchors(), **changes)}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (FASTER, {"classes": 80}, r"output class_logits is \[4\], the settings say \[81\]"),
        (FASTER, anchors(ratios=((1.0,),) * 5), r"output objectness0 is \[3, 16, 24\], the settings say \[1, 16, 24\]"),
        (FASTER, anchors(strides=(8, 16, 32, 64, 128)), r"output objectness0 is \[3, 16, 24\], the settings say \[3, 8, 12\]"),
        (
            FASTER,
            {"anchors": Anchors(((8,),) * 6, ((0.5, 1.0, 2.0),) * 6, (4, 8, 16, 32, 64, 128))},
            "do not agree on the outputs deltas5, map4, objectness5",
        ),
        (RETINA, {"classes": 1}, r"output class_logits0 is \[27, 8, 12\], the settings say \[9, 8, 12\]"),
        (SSDLITE, {"classes": 4}, r"output class_logits0 is \[16, 4, 6\], the settings say \[20, 4, 6\]"),
        (MASK, {"mask": MaskSettings(size=56)}, r"output mask_logits is \[4, 28, 28\]"),
        (
            KEYPOINT,
            {"keypoints": KeypointSettings(17)},
            r"output keypoint_logits is \[5, ",
        ),
    ],
)
def test_what_contradicts_the_graph_is_named(
    kind: str, changes: dict[str, Any], message: str, graphs: dict[str, Graph]
) -> None:
    settings: DetectorSettings = replace(small_settings(kind), **changes)
    with pytest.raises(ValueError, match=message):
        check_outputs(settings, graphs[kind])
