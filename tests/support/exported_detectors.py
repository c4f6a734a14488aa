"""Checkpoints of small detectors whose outputs differ from place to place, as files, and bundles of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import slimexport
from slimexport.detectors.form import Detecting
from slimexport.request import Proof
from slimexport.target.arrays import Array
from slimexport.target.manifest import Accuracy, Artifact, Manifest, read_manifest
from slimtrain.checkpoints.own_layout import save
from slimtrain.detection.making import slimmable_detector
from slimtrain.models.detector import FASTER
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.bundle_helpers import write_manifest
from tests.support.trained_detectors import SIZE, quick_detector

WIDTHS = 0.5, 1.0
NAMES = ("one", "two", "three")
DETECTIONS = 4  # of an image, in bundles
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


def write_detector_bundle(folder: Path, nms: str = "fixed", score: float = 0.3) -> Path:
    """A bundle of both widths, with names of classes: what `slimexport --ckpt` writes. Noise has some detections."""
    path = detector_checkpoint(folder, class_names=NAMES)
    detecting = Detecting(nms, score=score, detections=DETECTIONS)
    slimexport.export(path, output_dir=folder / "s_detector", proof=Proof(probes=2), detecting=detecting)
    return folder / "s_detector"


def with_precisions(bundle: Path, precisions: Mapping[float, float]) -> Manifest:
    """The bundle's manifest, once it tells an average precision of every width."""
    before = read_manifest(bundle)

    def measured(artifact: Artifact) -> Artifact:
        ap = precisions[float(artifact.width or 0)]
        accuracy = Accuracy(
            images=100, data="scenes", ap=ap, ap50=min(1.0, 1.5 * ap), checkpoint_ap=ap, sha256=artifact.sha256
        )
        return Artifact(**{**vars(artifact), "accuracy": accuracy})

    after = Manifest(**{**vars(before), "artifacts": tuple(map(measured, before.artifacts))})
    write_manifest(bundle, after)
    return after


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def given_by(file: Path, images: Array) -> dict[str, Array]:
    """What a file gives of images, by name, in onnxruntime used by hand."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, {"input": images})), strict=True))


def assert_alike(given: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """The same detections, where runs of other batches round otherwise."""
    assert {name: rows.shape for name, rows in given.items()} == {name: rows.shape for name, rows in expected.items()}
    for name, rows in expected.items():
        if rows.dtype.kind == "f":
            np.testing.assert_allclose(given[name], rows, rtol=1e-4, atol=1e-3)
        else:
            np.testing.assert_array_equal(given[name], rows)
