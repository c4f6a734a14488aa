"""Checkpoints of small detectors whose outputs differ from place to place, as files."""

from __future__ import annotations

from pathlib import Path

import torch

from slimtrain.checkpoints.own_layout import save
from slimtrain.detection.making import slimmable_detector
from slimtrain.models.detector import FASTER
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.trained_detectors import SIZE, quick_detector

WIDTHS = 0.5, 1.0
SPREAD = {  # heads that nobody trained rank all alike
    "rpn.head.cls_logits.weight": 100,
    "rpn.head.bbox_pred.weight": 30,
    "roi_heads.box_predictor.cls_score.weight": 10,
    "roi_heads.box_predictor.bbox_pred.weight": 5,
}


def small_slimmable_detector(kind: str = FASTER, seed: int = 0, family: str = "s") -> SlimmableNetwork:
    """Of two widths (`us`: of all between them), 3 classes, images of 64 x 64."""
    with torch.random.fork_rng():
        module = quick_detector(kind, seed)
    with torch.no_grad():
        for name, factor in SPREAD.items():
            module.get_parameter(name).mul_(factor)
    return slimmable_detector(module.eval(), WIDTHS, family=family, order="none", image_size=SIZE).eval()


def detector_checkpoint(folder: Path, kind: str = FASTER, class_names: tuple[str, ...] = (), family: str = "s") -> Path:
    """Its file in a folder."""
    path = folder / f"{kind}.pt"
    mean, std = (0.5,) * 3, (0.25,) * 3
    save(small_slimmable_detector(kind, family=family), path, image_size=SIZE, mean=mean, std=std, class_names=class_names)
    return path
