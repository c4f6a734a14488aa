"""A slimmable detector of every kind detects what its dense graph and torchvision's own post-processing do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, maskrcnn_inference

from slimtrain.detection.fixed.detector import detector_of
from slimtrain.models.detector import FASTER, KEYPOINT, MASK, RETINA, SSDLITE, DetectorSettings
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.detectors import (
    IMAGE,
    examples,
    settings,
    torchvision_detections,
    torchvision_proposals,
    two_levels,
)
from tests.support.single_stage import single_levels, single_settings, torchvision_single


def given_of(kind: str) -> DetectorSettings:
    if kind in (RETINA, SSDLITE):
        return single_settings(kind)
    return settings(candidates=300, masks=kind == MASK, keypoints=kind == KEYPOINT)


def slimmable(given: DetectorSettings) -> SlimmableNetwork:
    single = given.single_stage
    module = single_levels(given) if single else two_levels(given)
    inputs = (torch.randn(2, 3, *IMAGE),) if single else examples(given)
    return make_slimmable(module, inputs, (0.5, 1.0), order="none", check=False).eval()


def drawn_images() -> Tensor:
    return torch.randn(2, 3, *IMAGE, generator=torch.Generator().manual_seed(4))


def expected(given: DetectorSettings, network: SlimmableNetwork, images: Tensor) -> list[tuple[Tensor, ...]]:
    """torchvision's own steps around the network, image by image."""
    if given.single_stage:
        return list(torchvision_single(given, IMAGE, list(network(images).values())))
    none = torch.zeros(1, 5, dtype=images.dtype)
    others = [none] if given.mask is not None or given.keypoints is not None else []
    first = network(images, none, *others)
    names = [f"{kind}{level}" for kind in ("objectness", "deltas") for level in range(2)]
    rois = torchvision_proposals(given, IMAGE, [first[name] for name in names])
    second = network(images, rows(rois), *others)
    detected = torchvision_detections(given, IMAGE, rois, second["class_logits"], second["box_deltas"])
    if not others:
        return list(detected)
    boxes = [image[0] for image in detected]
    third = network(images, rows(rois), rows(boxes))
    if given.mask is not None:
        labels = [image[2] for image in detected]
        extra: tuple[Tensor, ...] = maskrcnn_inference(third["mask_logits"], labels)
        return [(*image, own[:, 0]) for image, own in zip(detected, extra, strict=True)]
    points, _ = heatmaps_to_keypoints(third["keypoint_logits"], torch.cat(boxes))
    return [(*image, own) for image, own in zip(detected, points.split([len(own) for own in boxes]), strict=True)]


def rows(boxes: list[Tensor]) -> Tensor:
    return torch.cat([torch.cat([torch.full((len(own), 1), i, dtype=own.dtype), own], 1) for i, own in enumerate(boxes)])


@pytest.mark.parametrize("kind", [FASTER, MASK, KEYPOINT, RETINA, SSDLITE])
def test_it_is_torchvision_s_at_every_plan(kind: str) -> None:
    given = given_of(kind)
    network, images = slimmable(given).double(), drawn_images().double()
    detector = detector_of(network, given, IMAGE)
    extra = {MASK: ("masks",), KEYPOINT: ("keypoints",)}.get(kind, ())
    for width in (0.5, 1.0):
        with network.at(network.plan(width)), torch.no_grad():
            result, right = detector(images), expected(given, network, images)
        for image, parts in enumerate(right):
            count = int(result["count"][image])
            assert count == len(parts[0]) > 0
            for name, part in zip(("boxes", "scores", "labels", *extra), parts, strict=True):
                own = result[name][image, :count]
                if name == "keypoints" and not result["settled"][image]:
                    continue
                torch.testing.assert_close(own.to(part.dtype), part, rtol=0, atol=1e-4 if name == "keypoints" else 1e-9)
        assert kind == KEYPOINT or result["settled"].all()


@pytest.mark.parametrize("kind", [FASTER, RETINA])
def test_learned_parts_alone_are_computed_in_less(kind: str) -> None:
    """Under autocast boxes are in float32, and none are far from where they are without it."""
    given = given_of(kind)
    given = replace(given, box=replace(given.box, score=0.0))
    network, images = slimmable(given), drawn_images()
    entered = []

    @contextmanager
    def computing() -> Iterator[None]:
        entered.append(kind)
        with torch.autocast("cpu", torch.bfloat16):
            yield

    with network.at(network.plan(1.0)):
        result = detector_of(network, given, IMAGE, computing)(images)
    assert len(entered) == (1 if kind == RETINA else 2)
    assert result["boxes"].dtype == result["scores"].dtype == torch.float32 and result["count"].min() > 0


def test_too_few_rounds_of_either_nms_are_told() -> None:
    """Proposals that overlap in a chain longer than the rounds."""
    given = given_of(FASTER)
    network, images = slimmable(given), drawn_images()
    detector = detector_of(network, given, IMAGE)
    with network.at(network.plan(1.0)):
        assert detector(images)["settled"].all()
        proposals = vars(detector)["proposals"]
        proposals.suppression = replace(proposals.suppression, rounds=1)
        assert not detector(images)["settled"].any()
