"""Small slimmable detectors as ONNX files from image to boxes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch

from slimexport.detector_proof.parts import Parts
from slimexport.detectors.kinds import prove_detector
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.target.arrays import Array
from slimtrain.detection.backbones import resnet_stages
from slimtrain.detection.dense import DenseDetector
from slimtrain.detection.fixed.shipped import dense_spec, detector_spec, inner_values, whole_network
from slimtrain.detection.making import slimmable_detector
from slimtrain.models.detector import (
    FASTER,
    KEYPOINT,
    MASK,
    Anchors,
    BoxSettings,
    DetectorSettings,
    KeypointSettings,
    MaskSettings,
    ProposalSettings,
)
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork

SIZE = (64, 96)
FACTORS = {
    "rpn.head.cls_logits": 100,
    "rpn.head.bbox_pred": 30,
    "roi_heads.box_predictor.cls_score": 10,
    "roi_heads.box_predictor.bbox_pred": 5,
}


def file_settings(kind: str = FASTER) -> DetectorSettings:
    return DetectorSettings(
        classes=4,
        kind=kind,
        anchors=Anchors(((12,), (24,), (48,)), ((0.7, 1.4),) * 3, (4, 8, 16)),
        proposals=ProposalSettings(top_k=60, kept=40),
        box=BoxSettings(candidates=120, detections=20),
        mask=MaskSettings(roi_size=6, size=12) if kind == MASK else None,
        keypoints=KeypointSettings(count=3, roi_size=4, size=16) if kind == KEYPOINT else None,
    )


@dataclass(frozen=True)
class DetectorFile:
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


@lru_cache
def detector_file(
    kind: str = FASTER, seed: int = 0, width: float = 0.5, nms: str = "fixed", trained: bool = True
) -> DetectorFile:
    """One that tells places apart as a trained one does, or one as it begins (not `trained`)."""
    settings = file_settings(kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = DenseDetector(settings, resnet_stages((1, 1), width=16, bottleneck=False), neck=16, hidden=24, head=12)
    if trained:
        with torch.no_grad():
            for name, factor in FACTORS.items():
                module.get_parameter(f"{name}.weight").mul_(factor)
    network = slimmable_detector(module.eval(), (0.5, 1.0), order="none", image_size=SIZE, rois=8, mask_rois=4)
    draw = torch.Generator().manual_seed(seed + 1)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + (0.5 if name.endswith("var") else -0.5))
    images = np.random.default_rng(seed).standard_normal((3, 3, *SIZE)).astype(np.float32)
    return DetectorFile(network, settings, width, written(network, settings, width, nms), images)


def written(network: SlimmableNetwork, settings: DetectorSettings, width: float, nms: str = "fixed") -> onnx.ModelProto:
    whole = whole_network(network, SIZE, nms=nms)
    spec, _ = detector_spec(network)
    plan = whole.plan(width)
    inner = inner_values(dense_spec(spec, settings, SIZE).graph, whole.spec.graph)
    return write_graph(whole.spec.sizing(plan, SIZE), stored_tensors(whole, plan), inner=inner)
