"""Small detectors, which run in a moment: ResNets of 16 channels, images of 64x96 pixels, 3 classes."""

from __future__ import annotations

import torch

from slimtrain.detection.backbones import Stages, resnet_stages
from slimtrain.detection.dense import NO_NORM, DenseDetector
from slimtrain.models.detector import (
    KEYPOINT,
    MASK,
    RETINA,
    SSDLITE,
    TORCHVISION,
    Anchors,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
)

CLASSES, NECK, HIDDEN, HEAD = 3, 32, 48, 24
SIZE = (64, 96)
SINGLE = Anchors(((32, 40, 50),) * 5, strides=(8, 16, 32, 64, 128))
DEFAULTS = Anchors(
    (), ((2.0,), (2.0, 3.0), *((2.0,),) * 4), (16, 32, 64, 128, 256, 512), (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
)
ANCHORS = {RETINA: SINGLE, SSDLITE: DEFAULTS}
FIRST = {RETINA: 1, SSDLITE: 2}  # the stage that the finest level is


def small_settings(kind: str, convention: str = TORCHVISION) -> DetectorSettings:
    return DetectorSettings(
        CLASSES,
        kind,
        ANCHORS.get(kind, Anchors()),
        mask=MaskSettings() if kind == MASK else None,
        keypoints=KeypointSettings(5) if kind == KEYPOINT else None,
        convention=convention,
    )


def small_stages(kind: str) -> Stages:
    return resnet_stages((1, 1, 1, 1), 16, first=FIRST.get(kind, 0))


def small_detector(kind: str, convention: str = TORCHVISION, norm: str = NO_NORM) -> DenseDetector:
    """With norms whose statistics are none of those that they begin with, in evaluation mode."""
    torch.manual_seed(1)
    module = DenseDetector(small_settings(kind, convention), small_stages(kind), NECK, HIDDEN, HEAD, norm).eval()
    generator = torch.Generator().manual_seed(2)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else -0.5))
    return module
