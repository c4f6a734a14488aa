"""Dense detectors against torchvision's own, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import Bottleneck
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from slimtrain.base.errors import UserError
from slimtrain.detection.backbones import NarrowResNet
from slimtrain.detection.dense import DenseDetector, drawn_regions
from slimtrain.models.detector import FASTER, KEYPOINT, MASK, RETINA, Anchors
from tests.support.small_detectors import (
    CLASSES,
    HEAD,
    HIDDEN,
    NECK,
    SINGLE,
    SIZE,
    small_detector,
    small_settings,
    small_stages,
)

CHANNELS = (64, 128, 256, 512)


def torchvisions(kind: str) -> nn.Module:
    """torchvision's detector of the same size."""
    first = int(kind == RETINA)
    layers = {f"layer{number + 1}": str(number - first) for number in range(first, 4)}
    body = NarrowResNet(Bottleneck, (1, 1, 1, 1), 16)
    blocks = LastLevelP6P7(NECK, NECK) if kind == RETINA else None
    backbone = BackboneWithFPN(body, layers, list(CHANNELS[first:]), NECK, blocks)
    if kind == RETINA:
        return RetinaNet(backbone, CLASSES, anchor_generator=AnchorGenerator(SINGLE.sizes, SINGLE.ratios))
    parts: dict[str, Any] = {
        "box_head": TwoMLPHead(NECK * 49, HIDDEN),
        "box_predictor": FastRCNNPredictor(HIDDEN, CLASSES + 1),
    }
    if kind == MASK:
        parts["mask_head"] = MaskRCNNHeads(NECK, (HEAD,) * 4, 1)
        parts["mask_predictor"] = MaskRCNNPredictor(HEAD, HEAD, CLASSES + 1)
    if kind == KEYPOINT:
        parts["keypoint_head"] = KeypointRCNNHeads(NECK, (HEAD,) * 8)
        parts["keypoint_predictor"] = KeypointRCNNPredictor(HEAD, 5)
    return {FASTER: FasterRCNN, MASK: MaskRCNN, KEYPOINT: KeypointRCNN}[kind](backbone, **parts)


@torch.no_grad()
def expected_outputs(detector: Any, images: Tensor, regions: list[list[Tensor]]) -> dict[str, Tensor]:
    """What the parts of torchvision's two-stage detector give; `regions`: of each head, of each image [R, 4]."""
    maps = detector.backbone(images)
    logits, deltas = detector.rpn.head(list(maps.values()))
    outputs = {f"map{level}": maps[str(level)] for level in range(4)}
    outputs |= {f"objectness{level}": part for level, part in enumerate(logits)}
    outputs |= {f"deltas{level}": part for level, part in enumerate(deltas)}
    heads, sizes = detector.roi_heads, [tuple(images.shape[-2:])] * len(images)
    features = heads.box_head(heads.box_roi_pool(maps, regions[0], sizes))
    outputs["class_logits"], outputs["box_deltas"] = heads.box_predictor(features)
    for kind in ("mask", "keypoint"):
        if getattr(heads, f"{kind}_head") is not None:
            pooled = getattr(heads, f"{kind}_roi_pool")(maps, regions[1], sizes)
            outputs[f"{kind}_logits"] = getattr(heads, f"{kind}_predictor")(getattr(heads, f"{kind}_head")(pooled))
    return outputs


@pytest.mark.parametrize("kind", [FASTER, MASK, KEYPOINT])
def test_two_stages_are_torchvision_s_with_its_state_dict(kind: str) -> None:
    module = small_detector(kind).double()
    theirs = torchvisions(kind).double().eval()
    theirs.load_state_dict(module.state_dict())
    given = [x.double() for x in module.example(*SIZE, rois=5, mask_rois=3)]
    regions = [[x[x[:, 0] == image][:, 1:] for image in (0, 1)] for x in given[1:]]
    expected = expected_outputs(theirs, given[0], regions)
    with torch.no_grad():
        result = module(*given)
    assert list(result) == list(expected)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def expected_heads(detector: Any, images: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = detector.head(list(detector.backbone(images).values()))
    return outputs


def test_a_single_stage_is_torchvision_s_with_its_state_dict() -> None:
    module = small_detector(RETINA).double()
    theirs = torchvisions(RETINA).double().eval()
    theirs.load_state_dict(module.state_dict())
    images = module.example(*SIZE)[0].double()
    with torch.no_grad():
        result, expected = module(images), expected_heads(theirs, images)
    for name, title, columns in (("class_logits", "cls_logits", CLASSES), ("box_deltas", "bbox_regression", 4)):
        rows = [result[f"{name}{level}"].unflatten(1, (9, columns)).permute(0, 3, 4, 1, 2).flatten(1, 3) for level in range(5)]
        assert torch.equal(torch.cat(rows, 1), expected[title])


def test_retinanet_s_head_tells_places_apart_with_few_channels_as_with_256() -> None:
    """Where it has as many, it is drawn as torchvision draws it."""
    settings, spreads = small_settings(RETINA), {}
    for neck in (16, 64, 256, 320):
        torch.manual_seed(3)
        head = DenseDetector(settings, small_stages(RETINA), neck).head
        with torch.no_grad():
            logits = head.classification_head([torch.randn(2, neck, 24, 24)]).unflatten(1, (24 * 24, 9))
        spreads[neck] = float(logits.std(1).mean())
        assert float(head.classification_head.conv[0][0].weight.detach().std()) == pytest.approx(
            0.16 / min(neck, 256) ** 0.5, rel=0.03
        )
    assert all(spreads[256] / 2 < spread < spreads[256] * 2 for spread in spreads.values()), spreads


def test_images_that_the_stride_does_not_divide_are_refused() -> None:
    module = small_detector(FASTER)
    with pytest.raises(UserError, match="72x96 pixels: expected sides that are multiples of 32"):
        module(torch.zeros(1, 3, 72, 96), torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (lambda: Anchors(strides=(8, 16, 32, 64, 128)), "levels 4, 8, 16, 32, 64: expected these"),
        (lambda: Anchors(((32,), (64,), (128,), (256,), (512, 600))), "expected as many at all levels"),
    ],
)
def test_anchors_that_do_not_fit_the_levels_are_refused(anchors: Callable[[], Anchors], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DenseDetector(replace(small_settings(FASTER), anchors=anchors()), small_stages(FASTER))


def test_missing_regions_are_named() -> None:
    module = small_detector(MASK)
    images, rois, _ = module.example(*SIZE)
    with pytest.raises(TypeError, match=r"^rois are missing"):
        module(images)
    with pytest.raises(TypeError, match="mask_rois are missing"):
        module(images, rois)


def test_drawn_regions_lie_within_their_images() -> None:
    regions = drawn_regions(3, 50, SIZE, torch.Generator().manual_seed(0))
    assert regions[:, 0].tolist() == [0] * 50 + [1] * 50 + [2] * 50
    assert (regions[:, 1:3] >= 0).all() and (regions[:, 3] <= SIZE[1]).all() and (regions[:, 4] <= SIZE[0]).all()
    assert (regions[:, 3:] > regions[:, 1:3]).all()
