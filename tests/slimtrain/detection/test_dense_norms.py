"""Dense detectors with norms in their necks and heads, and SSDLite's heads, against torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import FeaturePyramidNetwork

from slimtrain.base.errors import UserError
from slimtrain.detection.dense import DenseDetector, group_norm
from slimtrain.detection.extra_levels import SSD_NORM
from slimtrain.detection.making import slimmable_detector
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.detector import FASTER, MASK, RETINA, SSDLITE
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.tracing.masked import masked
from tests.support.small_detectors import CLASSES, HEAD, NECK, SIZE, small_detector, small_settings, small_stages


def drawn(module: DenseDetector) -> DenseDetector:
    """With scales and shifts of norms that are none of those that they begin with."""
    draw = torch.Generator().manual_seed(3)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 1 and name.endswith(("weight", "bias")):
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5 * name.endswith("weight"))
    return module.double()


def flat(logits: Tensor, columns: int) -> Tensor:
    """[B, A columns, h, w] as torchvision has it: [B, h w A, columns]."""
    images, _, height, width = logits.shape
    return logits.view(images, -1, columns, height, width).permute(0, 3, 4, 1, 2).reshape(images, -1, columns)


@torch.no_grad()
def test_ssdlite_s_heads_are_torchvision_s() -> None:
    module = drawn(small_detector(SSDLITE))
    counts = small_settings(SSDLITE).anchors.counts
    theirs = SSDLiteHead([256, 512, 64, 32, 32, 16], [*counts], CLASSES + 1, SSD_NORM).double().eval()
    theirs.load_state_dict(module.head.state_dict())
    images = module.example(*SIZE)[0].double()
    maps: Any = module.backbone(images)
    expected, outputs = theirs(maps), module(images)
    for name, title, columns in (("class_logits", "cls_logits", CLASSES + 1), ("box_deltas", "bbox_regression", 4)):
        rows = torch.cat([flat(outputs[f"{name}{level}"], columns) for level in range(6)], 1)
        assert torch.equal(rows, expected[title])


@torch.no_grad()
def test_a_pyramid_with_group_norm_is_torchvision_s() -> None:
    module = drawn(small_detector(FASTER, norm="group"))
    pyramid: Any = module.backbone.fpn
    theirs = FeaturePyramidNetwork([64, 128, 256, 512], NECK, pyramid.extra_blocks, group_norm).double()
    theirs.load_state_dict(pyramid.state_dict())
    images = module.example(*SIZE)[0].double()
    body: Any = module.backbone.body
    for own, expected in zip(module.backbone(images), theirs(body(images)).values(), strict=True):
        assert torch.equal(own, expected)
    assert any(key.startswith("backbone.fpn.inner_blocks.0.1.") for key in module.state_dict())


@torch.no_grad()
def test_heads_with_group_norm_are_torchvision_s() -> None:
    retina, mask = drawn(small_detector(RETINA, norm="group")), drawn(small_detector(MASK, norm="group"))
    head = RetinaNetHead(NECK, 9, CLASSES, norm_layer=group_norm).double()
    head.load_state_dict(retina.head.state_dict())
    images = retina.example(*SIZE)[0].double()
    outputs, maps = retina(images), retina.backbone(images)
    expected = head(maps)["cls_logits"]
    assert torch.equal(torch.cat([flat(outputs[f"class_logits{level}"], CLASSES) for level in range(5)], 1), expected)
    theirs = MaskRCNNHeads(NECK, (HEAD,) * 4, 1, group_norm).double()
    own: Any = mask.roi_heads.get_submodule("mask_head")
    theirs.load_state_dict(own.state_dict())
    x = torch.randn(2, NECK, 14, 14, dtype=torch.float64)
    assert torch.equal(own(x), theirs(x))


@pytest.mark.parametrize(("kind", "slim"), [(MASK, "all"), (RETINA, "all"), (RETINA, "backbone")])
def test_a_width_has_as_many_groups_of_fewer_channels(kind: str, slim: str) -> None:
    """It is the masked full network, whose norms see what is left of a group."""
    module = drawn(small_detector(kind, norm="group")).float()
    network = slimmable_detector(module, (0.5, 1.0), slim=slim, order="none", image_size=SIZE, check=False).double()
    spec = network.spec
    assert isinstance(spec, GraphSpec)
    lateral = spec.groups.sizes.get("backbone.fpn.inner_blocks.0.0")
    assert lateral == (8 if slim == "all" else None)  # channels of a group, which are tied with the other groups'
    widest = network.statistics(network.plan(1.0))
    for path, pair in network.statistics(network.plan(0.5)).items():
        for own, theirs in zip(pair, widest[path], strict=True):
            own.copy_(theirs[: len(own)])
    given = [x.double() for x in module.example(*SIZE)]
    with torch.no_grad():
        assert all(
            torch.allclose(own, theirs)
            for own, theirs in zip(network(*given).values(), module.double()(*given).values(), strict=True)
        )
        results: Any = network.dense(0.5)(*given)
        expected = masked(spec.sizing(network.plan(0.5)), given, stored_tensors(network, network.plan(1.0)))
    for (name, result), whole in zip(results.items(), expected, strict=True):
        if result.shape[1] != whole.shape[1]:  # a map's channels: the first half of every group
            kept = whole.view(len(whole), -1, 8, *whole.shape[2:])[:, :, :4].flatten(1, 2)
        else:
            kept = whole
        assert (result - kept).abs().max() <= 1e-10 * kept.abs().max(), name


def test_channels_that_are_no_groups_are_refused() -> None:
    with pytest.raises(UserError, match="20 channels: GroupNorm takes groups of 8 here"):
        DenseDetector(small_settings(RETINA), small_stages(RETINA), 20, norm="group")
