"""onnxruntime's files of a network, and what runs of a file."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from benchmarks.studies.quantizing.quantizers import THEIRS, kernels, theirs
from tests.support.int8_helpers import build, images, small


@pytest.mark.parametrize("name", ["QDQ S8S8 min-max", "QOperator U8S8 min-max"])
def test_a_file_is_what_its_name_says(name: str, tmp_path: Path) -> None:
    onnx.save(build(small()), tmp_path / "exact.onnx")
    theirs(tmp_path / "exact.onnx", tmp_path / "theirs.onnx", images(9), THEIRS[name])
    model = onnx.load(tmp_path / "theirs.onnx")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds and (onnx.TensorProto.UINT8 in kinds) is ("U8" in name)
    assert ("QLinearConv" in {node.op_type for node in model.graph.node}) is name.startswith("QOperator")
    assert kernels(tmp_path / "theirs.onnx")["QLinearConv"] == 2 and not list(tmp_path.glob("*.optimized.onnx"))


@pytest.mark.parametrize("name", THEIRS)
def test_a_name_says_what_is_asked_for(name: str) -> None:
    quantizer = THEIRS[name]
    assert name.startswith("QDQ ") is quantizer.pairs
    assert ("U8S8" in name) is quantizer.unsigned and ("%" in name) is quantizer.percentile
