"""What the tests of detectors' runs share: a tiny detector on few scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slimtrain.config.config import Config
from slimtrain.config.reading import make_config

# 3 steps an epoch of 4 scenes.
TINY: dict[str, Any] = {
    **{"network": "s_faster_rcnn", "switches": [0.5, 1.0], "data": "scenes", "image_size": 64, "mean": [0.5], "std": [0.25]},
    **{"workers": 0, "batch_size": 4, "epochs": 2, "lr": 0.02, "nesterov": False, "calibration_batches": 0, "device": "cpu"},
}
TINY_DETECTOR: dict[str, Any] = {
    **{"backbone": "resnet", "depths": [1, 1, 1], "width": 8, "bottleneck": False, "first_stage": 1, "neck": 8, "hidden": 8},
    **{"anchor_sizes": [[16], [24], [40]], "anchor_ratios": [1.0], "proposals": 10, "level_proposals": 20},
    **{"train_proposals": 20, "train_level_proposals": 40, "detections": 5, "candidates": 20, "rpn_sampled": 32},
    **{"score": 1e-6},
    **{"box_sampled": 16, "scenes": 12, "test_scenes": 4, "mirror": 0.5, "warmup_steps": 2},
}


UNIVERSAL: dict[str, Any] = {"switches": [], "width_range": [0.5, 1.0], "sandwich": 3, "calibration_batches": 2}


def detector_config(folder: Path, *, detector: dict[str, Any] | None = None, **changes: Any) -> Config:
    """The tiny configuration, its run in `folder`; `detector`: changes of its own keys."""
    own = {**TINY_DETECTOR, **(detector or {})}
    families = UNIVERSAL if str(changes.get("network", "")).startswith("us_") else {}
    return make_config({**TINY, **families, "output_dir": str(folder), "detector": own, **changes}, "tiny")
