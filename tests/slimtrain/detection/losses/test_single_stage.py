"""RetinaNet's losses, against torchvision's RetinaNet."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from slimtrain.detection.losses.single_stage import SingleStageLosses
from slimtrain.models.detector import RETINA, DetectorSettings
from tests.support.detector_losses import ANCHORS, CHANNELS, CLASSES, SIZE, maps_of, targets_of


@pytest.mark.parametrize("counts", [[3, 2], [4, 0], [0]])
def test_losses_are_torchvision_s(counts: list[int]) -> None:
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
