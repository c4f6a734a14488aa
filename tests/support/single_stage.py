"""Small single-stage detectors in tests: their settings, and what torchvision's own detectors make of their outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from slimtrain.detection.fixed.anchors import level_anchors
from slimtrain.models.detector import RETINA, SSDLITE, Anchors, DetectorSettings, usual_box

IMAGE = (64, 96)
CLASSES = 4
STRIDES = (8, 16, 32, 64, 128)
OF_RETINA = Anchors(((16,), (24,), (32,), (64,), (90,)), ((0.5, 1.0, 2.0),) * 5, STRIDES)
OF_SSD = Anchors((), ((2.0, 3.0), (2.0,), (2.0, 3.0), (2.0,), (2.0,)), STRIDES, (0.15, 0.3, 0.45, 0.6, 0.8, 1.0))


def single_settings(kind: str, score: float = 0.05) -> DetectorSettings:
    box = replace(usual_box(kind), detections=40, candidates=400, top_k=120, score=score)
    return DetectorSettings(CLASSES, kind, OF_SSD if kind == SSDLITE else OF_RETINA, box=box)


def torchvision_single(
    given: DetectorSettings, image: tuple[int, int], maps: list[Tensor]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What torchvision detects in every image: boxes [n, 4], scores [n], labels [n], which count from 1."""
    levels = len(maps) // 2
    logits, codes = maps[:levels], maps[levels:]
    anchors = [level.to(codes[0]) for level in level_anchors(given, image)]
    sizes = [image] * len(codes[0])
    network = torchvision_detector(given)
    if given.kind == RETINA:
        of_levels = {
            "cls_logits": [rows(level, given.classes) for level in logits],
            "bbox_regression": [rows(level, 4) for level in codes],
        }
        images = network.postprocess_detections(of_levels, [anchors] * len(sizes), sizes)
    else:
        outputs = {
            "cls_logits": torch.cat([rows(level, given.classes + 1) for level in logits], 1),
            "bbox_regression": torch.cat([rows(level, 4) for level in codes], 1),
        }
        images = network.postprocess_detections(outputs, [torch.cat(anchors)] * len(sizes), sizes)
    first = 1 if given.kind == RETINA else 0
    return [(image["boxes"], image["scores"], image["labels"] + first) for image in images]


def torchvision_detector(given: DetectorSettings) -> Any:
    """torchvision's own, without a network to speak of."""
    rules, backbone = given.box, nn.Identity()
    vars(backbone)["out_channels"] = 8
    shared = {
        "score_thresh": rules.score,
        "nms_thresh": rules.nms,
        "detections_per_img": rules.detections,
        "topk_candidates": rules.top_k,
    }
    if given.kind == RETINA:
        generator = AnchorGenerator(given.anchors.sizes, given.anchors.ratios)
        return RetinaNet(backbone, given.classes, anchor_generator=generator, **shared)
    boxes = DefaultBoxGenerator([list(ratios) for ratios in given.anchors.ratios], scales=list(given.anchors.scales))
    return SSD(backbone, boxes, (64, 64), given.classes + 1, head=nn.Identity(), **shared)


def rows(level: Tensor, columns: int) -> Tensor:
    """As torchvision's heads lay a map out."""
    images, _, height, width = level.shape
    split = level.view(images, -1, columns, height, width).permute(0, 3, 4, 1, 2)
    flat: Tensor = split.reshape(images, -1, columns)
    return flat


class Levels(nn.Module):
    """A dense graph: maps that halve five times, and heads on each."""

    def __init__(self, given: DetectorSettings) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 8, 1), nn.ReLU())
        downs = [nn.Sequential(nn.Conv2d(12, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()) for _ in STRIDES[1:]]
        self.downs = nn.ModuleList(downs)
        columns = given.classes + (given.kind == SSDLITE)
        self.logits = nn.ModuleList([nn.Conv2d(12, count * columns, 3, 1, 1) for count in given.anchors.counts])
        self.boxes = nn.ModuleList([nn.Conv2d(12, count * 4, 3, 1, 1) for count in given.anchors.counts])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = [self.stem(images)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        outputs = {f"class_logits{i}": head(x) for i, (head, x) in enumerate(zip(self.logits, maps, strict=True))}
        return outputs | {f"box_deltas{i}": head(x) for i, (head, x) in enumerate(zip(self.boxes, maps, strict=True))}


def single_levels(given: DetectorSettings) -> Levels:
    """One whose outputs differ from place to place."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Levels(given)
    with torch.no_grad():
        for head in module.logits:
            head.weight.mul_(20)  # type: ignore[operator]
    return module.eval()
