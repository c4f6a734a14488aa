"""A universally slimmable detector's files: widths between its ends, and plans, once they have statistics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import slimexport
from slimexport.request import Proof
from slimtrain.base.errors import UserError
from slimtrain.checkpoints.own_layout import save
from slimtrain.detection.halves import Halves
from slimtrain.detection.making import slimmable_detector
from slimtrain.slimmable.calibrate import calibrate
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.exported_detectors import SPREAD
from tests.support.trained_detectors import SIZE, drawn_images, quick_detector

QUICK = Proof(probes=2)


def universal(widths: tuple[float, ...]) -> SlimmableNetwork:
    module = quick_detector()
    with torch.no_grad():
        for name, factor in SPREAD.items():
            module.get_parameter(name).mul_(factor)
    network = slimmable_detector(module.eval(), (0.25, 1.0), family="us", order="none", image_size=SIZE).eval()
    calibrate(network, [*map(network.plan, widths)], [drawn_images(4, 8)], Halves(network).first)
    return network


def saved(network: SlimmableNetwork, folder: Path) -> Path:
    path = folder / "us_faster_rcnn.pt"
    save(network, path, image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return path


def test_widths_between_its_ends_are_proven(tmp_path: Path) -> None:
    path = saved(universal((0.3, 0.6)), tmp_path)
    manifest = slimexport.export(path, widths=[0.3, 0.6], output_dir=tmp_path / "bundle", proof=QUICK)
    assert [artifact.width for artifact in manifest.artifacts] == [0.3, 0.6]
    for artifact in manifest.artifacts:
        assert artifact.verification.status == "passed" and artifact.verification.detections
    with pytest.raises(UserError, match=r"width 0\.4: us_faster_rcnn\.pt has batch-norm statistics only for 0\.3, 0\.6"):
        slimexport.export(path, widths=[0.4], output_dir=tmp_path / "other", proof=QUICK)
