"""Configurations of small detectors."""

from __future__ import annotations

from typing import Any

from slimtrain.config.detector import DetectorConfig
from slimtrain.models.detector import FASTER, SSDLITE


def small_config(kind: str = FASTER, **keys: Any) -> DetectorConfig:
    """On a ResNet of 16 channels, a bottleneck each stage."""
    stages: dict[str, Any] = {"backbone": "resnet", "depths": (1, 1, 1, 1), "width": 16, "first_stage": 2 * (kind == SSDLITE)}
    return DetectorConfig(kind, **{**stages, "neck": 32, "hidden": 48, **keys})
