"""Losses of single-stage detectors, against torchvision's RetinaNet and SSDLite."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead

from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.models.detector import RETINA, SSDLITE, Anchors, DetectorSettings, usual_box
from tests.support.detector_losses import ANCHORS, CHANNELS, CLASSES, SIZE, maps_of, targets_of


@pytest.mark.parametrize("counts", [[3, 2], [4, 0], [0]])
def test_retinanet_s_are_torchvision_s(counts: list[int]) -> None:
    torch.manual_seed(0)
    backbone = nn.Identity()
    vars(backbone)["out_channels"] = CHANNELS
    network = RetinaNet(backbone, CLASSES, anchor_generator=AnchorGenerator(ANCHORS.sizes, ANCHORS.ratios))
    maps, targets = list(maps_of(len(counts)).values()), targets_of(counts)
    given = network.head(maps)
    anchors = network.anchor_generator(ImageList(torch.zeros(len(counts), 3, SIZE, SIZE), [(SIZE, SIZE)] * len(counts)), maps)
    right = network.compute_loss([{"boxes": x.boxes, "labels": x.labels - 1} for x in targets], given, anchors)

    classes, boxes = network.head.classification_head, network.head.regression_head
    outputs = {f"class_logits{i}": classes.cls_logits(classes.conv(level)) for i, level in enumerate(maps)}
    outputs |= {f"box_deltas{i}": boxes.bbox_reg(boxes.conv(level)) for i, level in enumerate(maps)}
    losses = SingleStageLosses(DetectorSettings(CLASSES, RETINA, ANCHORS))(outputs, SIZE, targets)
    torch.testing.assert_close(losses["classes"], right["classification"])
    torch.testing.assert_close(losses["boxes"], right["bbox_regression"])


class Maps(nn.Module):
    """A backbone that gives what it has, whatever images it is given."""

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.maps


@pytest.mark.parametrize("counts", [[3, 2], [4, 0], [0]])
def test_ssdlite_s_are_those_of_torchvision_s_own_training(counts: list[int]) -> None:
    """From images to losses, levels with as many default boxes at a place or not."""
    ratios, scales, channels = [[2.0, 3.0], [2.0], [2.0], [2.0], [2.0]], [0.15, 0.3, 0.45, 0.6, 0.8, 1.0], 8
    draw = torch.Generator().manual_seed(3)
    maps = {str(i): torch.randn(len(counts), channels, side, side, generator=draw) for i, side in enumerate((8, 4, 2, 1, 1))}
    torch.manual_seed(0)
    boxes = DefaultBoxGenerator(ratios, scales=scales)
    head = SSDLiteHead([channels] * 5, boxes.num_anchors_per_location(), CLASSES + 1, nn.BatchNorm2d).eval()
    network = SSD(Maps(maps), boxes, (SIZE, SIZE), CLASSES + 1, head=head).train()
    head.eval()  # of what one image is, no norm can tell
    targets = targets_of(counts)
    right = network(list(torch.zeros(len(counts), 3, SIZE, SIZE)), [{"boxes": x.boxes, "labels": x.labels} for x in targets])

    classes, codes = head.classification_head.module_list, head.regression_head.module_list
    outputs = {f"class_logits{i}": classes[i](level) for i, level in enumerate(maps.values())}
    outputs |= {f"box_deltas{i}": codes[i](level) for i, level in enumerate(maps.values())}
    anchors = Anchors((), tuple(map(tuple, ratios)), (8, 16, 32, 64, 128), tuple(scales))
    settings = DetectorSettings(CLASSES, SSDLITE, anchors, box=usual_box(SSDLITE))
    losses = SingleStageLosses(settings)(outputs, SIZE, targets)
    torch.testing.assert_close(losses["classes"], right["classification"])
    torch.testing.assert_close(losses["boxes"], right["bbox_regression"])
