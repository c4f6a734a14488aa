"""Detectors that learn in a moment, and what they learn."""

from __future__ import annotations

import torch
from torch import Tensor

from slimtrain.data.detection.batches import DetectionBatch
from slimtrain.data.detection.targets import Targets
from slimtrain.detection.backbones import resnet_stages
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.losses.two_stage import Sampling
from slimtrain.models.detector import (
    FASTER,
    KEYPOINT,
    MASK,
    RETINA,
    SSDLITE,
    Anchors,
    BoxSettings,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
    ProposalSettings,
)

SIZE, CLASSES = 64, 3
STRIDES = (8, 16, 32)
SAMPLING = Sampling(rpn_sampled=32, top_k=40, kept=20, box_sampled=16)


def quick_settings(kind: str = FASTER) -> DetectorSettings:
    """Of a pyramid on two stages, of strides 8 and 16, and one level more (RetinaNet: two; SSDLite: no pyramid, four)."""
    if kind == SSDLITE:
        boxes = Anchors((), ((2.0,),) * 6, (*STRIDES, 64, 128, 256), (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0))
        return DetectorSettings(CLASSES, kind, boxes, box=BoxSettings(detections=5, top_k=20, score=0.0))
    strides = (*STRIDES, 64) if kind == RETINA else STRIDES
    return DetectorSettings(
        CLASSES,
        kind,
        Anchors(tuple((2 * stride,) for stride in strides), ((1.0,),) * len(strides), strides),
        ProposalSettings(top_k=40, kept=20),
        BoxSettings(detections=5, candidates=20, score=0.0),
        mask=MaskSettings() if kind == MASK else None,
        keypoints=KeypointSettings(count=2) if kind == KEYPOINT else None,
    )


def quick_detector(kind: str = FASTER, seed: int = 0) -> DenseDetector:
    torch.manual_seed(seed)
    stages = resnet_stages((1, 1, 1), width=8, bottleneck=False, first=1)
    return DenseDetector(quick_settings(kind), stages, neck=16, hidden=16)


def drawn_targets(counts: list[int], seed: int = 5, masks: bool = False) -> tuple[Targets, ...]:
    """So many objects of each image."""
    draw = torch.Generator().manual_seed(seed)
    images = []
    for count in counts:
        corner = torch.rand(count, 2, generator=draw) * (SIZE - 28)
        boxes = torch.cat([corner, corner + 10 + 16 * torch.rand(count, 2, generator=draw)], 1)
        labels = torch.randint(1, CLASSES + 1, (count,), generator=draw)
        drawn = torch.rand(count, SIZE, SIZE, generator=draw) < 0.5 if masks else None
        images.append(Targets(SIZE, SIZE, boxes, labels, torch.zeros(count, dtype=torch.bool), torch.ones(count), 0, drawn))
    return tuple(images)


def drawn_images(count: int, seed: int = 6) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def drawn_batch(counts: list[int], masks: bool = False) -> DetectionBatch:
    scales = torch.ones(len(counts), 2, dtype=torch.float64)
    images, targets = drawn_images(len(counts)), drawn_targets(counts, masks=masks)
    return DetectionBatch(0, 0, images, targets, scales, len(counts), ())
