"""A detector's bundle keeps what the file gives of drawn numbers: what its detections hardly show is told by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import slimexport
from slimtrain.base.files import file_sha256

Change = Callable[[onnx.ModelProto], object]


def _stored(part: str, factor: float, plus: float = 0.0) -> Change:
    """Other numbers in the last tensor whose name has this part."""

    def change(model: onnx.ModelProto) -> None:
        tensor = [tensor for tensor in model.graph.initializer if part in tensor.name][-1]
        values = numpy_helper.to_array(tensor) * np.float32(factor) + np.float32(plus)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))

    return change


DEFECTS: dict[str, Change] = {
    "the coarsest level's anchors": _stored(".anchors", 1.0, 0.5),
    "a bias of scores": _stored("rpn.head.cls_logits.bias", 1.0, 0.1),
    "a coarse map": _stored("layer_blocks.1.0.weight", 1.02),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_what_detections_hardly_show_is_told(defect: str, detector_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(detector_bundle, copy)
    content = json.loads((copy / "manifest.json").read_text())
    content["artifacts"] = content["artifacts"][:1]
    (entry,) = content["artifacts"]
    assert entry["verification"]["inside"] > 30
    model = onnx.load(copy / entry["file"])
    DEFECTS[defect](model)
    onnx.save(model, copy / entry["file"])
    entry |= {"sha256": file_sha256(copy / entry["file"]), "size_bytes": (copy / entry["file"]).stat().st_size}
    (copy / "manifest.json").write_text(json.dumps(content))
    (artifact,) = slimexport.verify_bundle(copy)
    check = artifact.verification
    assert check.status == "failed" and check.reason is not None, check
    del entry["verification"]["inside"]
    (copy / "manifest.json").write_text(json.dumps(content))
    (artifact,) = slimexport.verify_bundle(copy)
    assert artifact.verification.status == "passed", "else this test says nothing of what is inside"


def test_a_right_file_passes(detector_bundle: Path) -> None:
    for artifact in slimexport.verify_bundle(detector_bundle):
        check = artifact.verification
        assert check.status == "passed" and check.inside_error is not None and check.inside_error < 0.5
