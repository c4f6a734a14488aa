"""A slimmable detector from image to boxes: what its two parts and what stands between them give, at every width."""

from __future__ import annotations

import copy

import pytest
import torch

from slimtrain.base.errors import UserError
from slimtrain.detection.fixed.detector import detector_of
from slimtrain.detection.fixed.shipped import dense_spec, inner_values, whole_network, with_thresholds
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, MASK
from slimtrain.models.published import published_spec
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.exported_detectors import small_slimmable_detector
from tests.support.trained_detectors import SIZE, drawn_images, quick_settings


@pytest.mark.parametrize("kind", [FASTER, MASK])
def test_it_detects_what_the_detector_in_its_parts_does(kind: str) -> None:
    network = small_slimmable_detector(kind)
    whole = copy.deepcopy(whole_network(network, SIZE, score=0.2, detections=4)).double()
    assert isinstance(whole.spec, GraphSpec) and whole.spec.detector is not None
    exact = copy.deepcopy(network).double()
    parts = detector_of(exact, whole.spec.detector, SIZE)
    images = drawn_images(3).double()
    for plan in network.spec.plans:
        with exact.at(plan):
            expected = parts(images)
        with torch.no_grad(), whole.at(plan):
            given = whole(images)
        assert given.keys() == expected.keys()
        assert int(given["count"].sum()) > 0 and given["boxes"].shape == (3, 4, 4)
        for name, values in given.items():
            assert values.dtype == expected[name].dtype and torch.equal(values, expected[name]), (plan.name, name)


def test_weights_are_the_detector_s_own() -> None:
    network = small_slimmable_detector()
    whole = whole_network(network, SIZE)
    ours, theirs = dict(whole.named_parameters()), dict(network.named_parameters())
    assert ours.keys() == theirs.keys() and all(ours[name] is theirs[name] for name in ours)
    assert whole.spec.plans == network.spec.plans


def test_another_size_of_images_gives_boxes_within_it() -> None:
    network = small_slimmable_detector()
    whole = whole_network(network, (32, 96))
    images = torch.randn(2, 3, 32, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        boxes = whole(images)["boxes"]
    assert boxes[..., 2].max() > 64 and boxes[..., 3].max() <= 32


def test_it_costs_what_the_dense_detector_does_on_all_regions() -> None:
    network = small_slimmable_detector()
    spec = network.spec
    assert isinstance(spec, GraphSpec) and spec.detector is not None
    plan = spec.plans[0]
    few = dense_spec(spec, with_thresholds(spec.detector), SIZE).own_cost(plan)[0]
    assert dense_spec(spec, spec.detector, (SIZE, 2 * SIZE)).own_cost(plan)[0] > few > spec.own_cost(plan)[0]


def test_inner_values_are_those_of_the_dense_graph() -> None:
    network = small_slimmable_detector(MASK)
    whole = whole_network(network, SIZE)
    assert isinstance(whole.spec, GraphSpec) and isinstance(network.spec, GraphSpec)
    inner = inner_values(network.spec.graph, whole.spec.graph)
    assert {"map0", "objectness0", "deltas2", "rows", "mask_rows", "class_logits", "box_deltas", "mask_logits"} <= inner.keys()
    types = whole.spec.graph.types
    rows = types[inner["rows"]].shape
    assert types[inner["class_logits"]].shape[0] == rows[0] and rows[1] == 5
    assert types[inner["mask_logits"]].shape[0] == types[inner["mask_rows"]].shape[0]


def test_a_classifier_has_none() -> None:
    with pytest.raises(UserError, match="is no detector"):
        whole_network(SlimmableNetwork(published_spec("s_mobilenet_v1", classes=4)), SIZE)


def test_numbers_that_cannot_be_are_refused() -> None:
    settings = quick_settings()
    with pytest.raises(UserError, match="score threshold nan"):
        with_thresholds(settings, score=float("nan"))
    with pytest.raises(UserError, match="0 detections"):
        with_thresholds(settings, detections=0)
    assert with_thresholds(settings, detections=1000).box.candidates == 1000


def test_a_size_that_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        whole_network(small_slimmable_detector(), 60)
