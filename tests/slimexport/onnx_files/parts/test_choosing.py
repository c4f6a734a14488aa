"""Layers get fewer bits; what ends in boxes and scores, and what reads coordinates, does not."""

from __future__ import annotations

import re

import pytest

from slimexport.onnx_files.parts.choosing import WEIGHTED, low_parts
from slimexport.onnx_files.parts.cutting import Wiring
from slimtrain.models.detector import FASTER, MASK
from tests.support.detector_files import detector_file
from tests.support.low_detectors import inner_of

LAST = ("rpn.head.cls_logits", "bbox_pred", "cls_score", "mask_fcn_logits")


@pytest.mark.parametrize(("kind", "begins"), [(FASTER, (None, "rows")), (MASK, (None, "rows", "mask_rows"))])
def test_every_layer_but_the_last_ones_is_in_a_part(kind: str, begins: tuple[str | None, ...]) -> None:
    model = detector_file(kind).model
    parts, wiring = low_parts(model, inner_of(model)), Wiring(model)
    assert tuple(part.rows for part in parts) == begins
    numbers = [wiring.between(part.cut.inputs, part.cut.outputs) for part in parts]
    low = set[int]().union(*numbers)
    assert sum(map(len, numbers)) == len(low)
    stored = {tensor.name for tensor in model.graph.initializer}
    weighted = {n for n, node in enumerate(model.graph.node) if node.op_type in WEIGHTED and node.input[1] in stored}
    for number in weighted:
        path = re.sub(r"_\d+$", "", model.graph.node[number].name)
        if "proposals" not in path and "detections" not in path:  # sums that are written as products
            assert (number in low) != path.endswith(LAST), path
    kinds = {model.graph.node[number].op_type for number in low}
    assert kinds.isdisjoint({"RoiAlign", "TopK", "Gather", "Exp", "Sigmoid", "Softmax", "Where", "Log"})


def test_maps_are_given_to_what_pools_them() -> None:
    model = detector_file(FASTER).model
    inner = inner_of(model)
    images, _ = low_parts(model, inner)
    maps = {name for key, name in inner.items() if key.startswith("map")}
    assert maps and maps <= set(images.cut.outputs)
    pooled = {name for node in model.graph.node if node.op_type == "RoiAlign" for name in node.input[:1]}
    assert pooled <= maps
