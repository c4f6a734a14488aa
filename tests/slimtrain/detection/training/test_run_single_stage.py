"""Single-stage detectors' runs, from a configuration to a checkpoint that detects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from slimtrain.base.packages import is_installed
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.config.config import Config
from slimtrain.config.reading import read_config
from slimtrain.data.detection.batches import Padding
from slimtrain.detection.fixed.detector import detector_of
from slimtrain.detection.fixed.shipped import detector_spec
from slimtrain.detection.training.inputs import padding_of
from slimtrain.models.detector import RETINA, SSDLITE
from slimtrain.running import train
from tests.support.detector_runs import detector_config
from tests.support.run_helpers import ALONE

OF_KIND: dict[str, dict[str, Any]] = {
    RETINA: {"anchor_sizes": [[16], [24], [40], [64]]},
    SSDLITE: {"anchor_sizes": [], "anchor_ratios": [2.0], "depths": [1, 1, 1], "first_stage": 1, "mirror": 0.0},
}
needed = pytest.mark.skipif(not is_installed("faster_coco_eval"), reason="pip install '.[detection]'")


def config_of(kind: str, folder: Path, **changes: Any) -> Config:
    return detector_config(folder, network=f"s_{kind}", detector=OF_KIND[kind], **changes)


@needed
@pytest.mark.parametrize("kind", OF_KIND)
def test_a_run_leaves_a_detector_of_its_kind(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(config_of(kind, folder, log_every=1), ALONE)
    checkpoint = open_checkpoint(folder / f"s_{kind}.pt")
    _, settings = detector_spec(checkpoint.network)
    assert settings.kind == kind and settings.classes == 10
    assert checkpoint.probe_images is not None
    images = torch.zeros(2, 3, 64, 64)
    for plan in checkpoint.network.spec.plans:
        with checkpoint.network.eval().at(plan):
            given = detector_of(checkpoint.network, settings, 64)(images)
        assert given["boxes"].shape == (2, 5, 4) and all(map(math.isfinite, given["scores"].flatten().tolist()))


def test_ssdlite_s_images_are_of_one_size_where_all_fit_into_it(tmp_path: Path) -> None:
    """Its anchors are shares of their sides."""
    assert padding_of(config_of(SSDLITE, tmp_path), 16) == Padding(16, (64, 64))
    assert padding_of(config_of(RETINA, tmp_path), 16) == Padding(16)
    config = read_config("s_ssdlite320_mobilenet_v3_large")
    assert padding_of(config, 32) == Padding(32, (320, 320))
    larger = read_config("s_ssdlite320_mobilenet_v3_large", ["detector.longest=400"])
    assert padding_of(larger, 32) == Padding(32)
