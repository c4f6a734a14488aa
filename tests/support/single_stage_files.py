"""Small single-stage detectors as ONNX files from image to boxes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch

from slimexport.detector_proof.parts import Parts
from slimexport.detectors.kinds import prove_detector
from slimexport.target.arrays import Array
from slimtrain.checkpoints.own_layout import save
from slimtrain.detection.backbones import resnet_stages
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.making import slimmable_detector
from slimtrain.models.detector import RETINA, SSDLITE, Anchors, DetectorSettings, usual_box
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.detector_files import SIZE, written

CLASSES = 4
OF_RETINA = Anchors(((12,), (24,), (40,), (60,)), ((0.7, 1.4),) * 4, (4, 8, 16, 32))
OF_SSDLITE = Anchors((), ((2.0, 3.0), *((2.0,),) * 5), (4, 8, 16, 32, 64, 128), (0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0))
# Heads that nobody trained rank all alike, or nothing above the threshold.
FACTORS: dict[str, dict[str, float]] = {
    RETINA: {"_head.conv.": 3.75, "cls_logits.weight": 30, "bbox_reg.weight": 7.5},
    SSDLITE: {"classification_head.module_list.": 80, "regression_head.module_list.": 12},
}


def file_settings(kind: str) -> DetectorSettings:
    box = replace(usual_box(kind), detections=30, candidates=150, top_k=60, score=0.05)
    return DetectorSettings(CLASSES, kind, OF_RETINA if kind == RETINA else OF_SSDLITE, box=box)


@dataclass(frozen=True)
class SingleStageFile:
    """A slimmable detector, and the ONNX model of one of its plans."""

    network: SlimmableNetwork
    settings: DetectorSettings
    width: float
    model: onnx.ModelProto
    images: Array

    def copy(self) -> onnx.ModelProto:
        return copy.deepcopy(self.model)

    def prove(self, model: onnx.ModelProto, folder: Path) -> Parts:
        """The proof of `model` in this one's place."""
        path = folder / "file.onnx"
        onnx.save(model, path)
        exact = copy.deepcopy(self.network).double()
        return prove_detector(path, exact, exact.plan(self.width), self.settings, SIZE, self.images)


def single_stage_module(kind: str, seed: int = 0, trained: bool = True) -> DenseDetector:
    """One that tells places apart as a trained one does, or one as it begins (not `trained`)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stages = resnet_stages((1, 1), width=16, bottleneck=False)
        module = DenseDetector(file_settings(kind), stages, neck=16)
    with torch.no_grad():
        for part, factor in FACTORS[kind].items() if trained else ():
            for name, weight in module.named_parameters():
                depthwise = "module_list" in name and name.endswith("0.0.weight")
                if part in name and weight.ndim > 1 and not depthwise:
                    weight.mul_(factor)
    return module.eval()


@lru_cache
def single_stage_file(
    kind: str, seed: int = 0, width: float = 0.5, nms: str = "fixed", trained: bool = True
) -> SingleStageFile:
    settings = file_settings(kind)
    module = single_stage_module(kind, seed, trained)
    network = slimmable_detector(module, (0.5, 1.0), order="none", image_size=SIZE)
    draw = torch.Generator().manual_seed(seed + 1)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + (0.5 if name.endswith("var") else -0.5))
    images = np.random.default_rng(seed).standard_normal((3, 3, *SIZE)).astype(np.float32)
    return SingleStageFile(network, settings, width, written(network, settings, width, nms), images)


def single_stage_checkpoint(folder: Path, kind: str, class_names: tuple[str, ...] = ()) -> Path:
    """A checkpoint's file in a folder."""
    network = single_stage_file(kind).network
    path = folder / f"{kind}.pt"
    save(network, path, image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, class_names=class_names)
    return path
