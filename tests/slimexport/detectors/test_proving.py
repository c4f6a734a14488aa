"""What a detector's fp32 file stores is compared with the checkpoint's, also what no image shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from slimexport.detectors.form import Detecting
from slimexport.detectors.opening import OpenDetector, open_detector
from slimexport.onnx_files.graph_writer import write_graph
from slimexport.onnx_files.layer_proof.exact_weights import wrong_weight
from slimexport.target.precision import EXACT
from slimexport.target.reference import Probes
from slimexport.target.verification import FAILED, Verification
from slimtrain.checkpoints.checkpoint import open_checkpoint
from slimtrain.checkpoints.own_layout import save
from slimtrain.models.detector import FASTER, KEYPOINT, KINDS, MASK, RETINA, SINGLE_STAGE, SSDLITE
from slimtrain.slimmable.graph_dense import stored_tensors
from tests.support.detector_files import SIZE, detector_file
from tests.support.single_stage_files import single_stage_file
from tests.support.stored_tensors import changed

NMS = {kind: ("fixed", "onnx") if kind in (MASK, KEYPOINT) else ("fixed", "onnx", "none", "trt") for kind in KINDS}
WIDTH = 0.5
LATERAL, REGIONS, BOX_HEAD = (
    "backbone.fpn.inner_blocks.0.0.weight",
    "rpn.head.conv.0.0.weight",
    "roi_heads.box_head.fc6.weight",
)
CASES = [
    *((FASTER, name, "fixed") for name in (LATERAL, REGIONS, BOX_HEAD, "proposals.anchors0")),
    (FASTER, REGIONS, "none"),
    (FASTER, BOX_HEAD, "onnx"),
    (FASTER, "proposals.anchors2", "trt"),
    (MASK, "roi_heads.mask_predictor.conv5_mask.weight", "fixed"),
    (MASK, "proposals.anchors1", "onnx"),
    (KEYPOINT, "roi_heads.keypoint_predictor.kps_score_lowres.bias", "onnx"),
    (KEYPOINT, "keypoints.sub_5", "fixed"),  # of a parabola's places, which nothing but their number decides
    (RETINA, LATERAL, "fixed"),
    (RETINA, "head.classification_head.conv.1.0.weight", "onnx"),
    (RETINA, "detections.anchors1", "fixed"),
    (RETINA, "detections.sub_2", "none"),  # heights of all anchors
    (RETINA, "head.regression_head.bbox_reg.bias", "trt"),
    (SSDLITE, "head.classification_head.module_list.0.0.0.weight", "fixed"),
    (SSDLITE, "detections.add", "onnx"),  # middles of all anchors
    (SSDLITE, "detections.raw.sub", "trt"),
]


def opened(kind: str, nms: str, folder: Path) -> OpenDetector:
    file = single_stage_file(kind) if kind in SINGLE_STAGE else detector_file(kind)
    path = folder / f"{kind}.pt"
    save(file.network, path, image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    return open_detector(open_checkpoint(path), SIZE, Detecting(nms))


def written(detector: OpenDetector) -> onnx.ModelProto:
    network = detector.checkpoint.network
    plan = network.plan(WIDTH)
    return write_graph(network.spec.sizing(plan, SIZE), stored_tensors(network, plan), inner=detector.inner)


def verified(detector: OpenDetector, model: onnx.ModelProto, folder: Path) -> Verification:
    path = folder / "file.onnx"
    onnx.save(model, path)
    images = np.random.default_rng(0).standard_normal((2, 3, *SIZE)).astype(np.float32)
    return detector.verifying.verify(path, EXACT, detector.dense.plan(WIDTH), Probes(images, (), detector.entry))


def flipped(values: np.ndarray) -> None:
    """A low bit of the first number: a millionth of it."""
    values.view(np.int32)[0] ^= 1 << 3


@pytest.mark.parametrize(("kind", "name", "nms"), CASES)
def test_a_bit_that_no_image_shows_is_refused_at_export(kind: str, name: str, nms: str, tmp_path: Path) -> None:
    detector = opened(kind, nms, tmp_path)
    check = verified(detector, changed(written(detector), name, flipped), tmp_path)
    what = name.removesuffix(".weight").removesuffix(".bias")
    assert check.status == FAILED
    assert f"{what} are wrong" in (check.reason or "") and (check.reason or "").startswith("1 of ")  # which images did not see


@pytest.mark.parametrize(("kind", "nms"), [(kind, nms) for kind in KINDS for nms in NMS[kind]])
def test_every_stored_tensor_with_a_name_is_compared(kind: str, nms: str, tmp_path: Path) -> None:
    detector = opened(kind, nms, tmp_path)
    network = detector.checkpoint.network
    model, plan = written(detector), network.plan(WIDTH)
    known = network.spec.sizing(plan, SIZE), stored_tensors(network, plan)
    assert wrong_weight(model, *known) == ""
    names = [tensor.name for tensor in model.graph.initializer if not tensor.name.startswith("constant.")]
    assert len(names) > 30
    for name in names[:: len(names) // 10]:

        def other(values: np.ndarray) -> None:
            values[-1] += 1

        assert wrong_weight(changed(model, name, other), *known), name
