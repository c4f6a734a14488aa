"""What an ONNX file asks of whoever loads it: whole and straight files pass, others are refused before a runtime sees them."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimexport.target import onnx_scan
from slimexport.target.errors import BundleError
from slimexport.target.onnx_scan import check_onnx

IMAGES = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
LOGITS = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 5])
WEIGHT = helper.make_tensor("w", TensorProto.FLOAT, [3, 5], np.ones(15, np.float32).tobytes(), raw=True)
PRODUCT = helper.make_node("MatMul", ["input", "w"], ["output"])


def model(nodes: Sequence[Any] = (PRODUCT,), weights: Sequence[Any] = (WEIGHT,), **changes: Any) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [IMAGES], [LOGITS], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **changes)


def external(location: str) -> Any:
    weight = TensorProto()
    weight.CopyFrom(WEIGHT)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    return weight


def branch() -> Any:
    return helper.make_graph([helper.make_node("Identity", ["input"], ["y"])], "b", [], [LOGITS])


def write(folder: Path, content: onnx.ModelProto | bytes) -> Path:
    path = folder / "x.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_a_plain_file_is_told_by_its_names(tmp_path: Path) -> None:
    outline = check_onnx(write(tmp_path, model()))
    assert (outline.inputs, outline.outputs) == (("input",), ("output",))
    assert sorted(outline.operators) == ["MatMul"]


def test_inputs_that_have_weights_are_none(tmp_path: Path) -> None:
    content = model()
    content.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 5]))
    assert check_onnx(write(tmp_path, content)).inputs == ("input",)


def sparse() -> onnx.ModelProto:
    content = model()
    content.graph.sparse_initializer.add().values.CopyFrom(external("x"))
    return content


def with_function() -> onnx.ModelProto:
    inner = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [])
    return model(functions=[inner])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (model(weights=[external("/etc/passwd")]), "external data"),
        (model(weights=[external("w.bin")]), "external data"),
        (model([helper.make_node("Constant", [], ["w"], value=external("w.bin")), PRODUCT], []), "external data"),
        (sparse(), "external data"),
        (model([helper.make_node("Loop", ["", "", "input"], ["output"], body=branch())]), "within the operator 'Loop'"),
        (model([helper.make_node("If", ["input"], ["output"], then_branch=branch(), else_branch=branch())]), "operator 'If'"),
        (model([helper.make_node("Evil" * 50_000, ["input"], ["output"], domain="x.y")]), "expected those of ONNX"),
        (model([helper.make_node("Evil", ["input"], ["output"], domain="trt.plugins")]), "expected those of ONNX"),
        (with_function(), "functions of its own"),
        (b"", "is empty"),
        (b"not onnx", "no ONNX file"),
        (b"\x3a\x00" * 2, "two graphs"),
        (b"\x12\x03abc", "holds no graph"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "no whole ONNX file"),
        (model().SerializeToString()[:-3], "no whole ONNX file"),
        (b"\xff" * 1000, "no whole ONNX file"),
    ],
)
def test_what_asks_for_more_or_is_damaged_is_refused(tmp_path: Path, content: onnx.ModelProto | bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        check_onnx(write(tmp_path, content))
    assert caught.value.exit_code == 2 and len(str(caught.value)) < 500


def test_no_file_takes_longer_than_its_fields_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MOST_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1,000 fields"):
        check_onnx(write(tmp_path, b"\x08\x01" * 1001))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.onnx")
    with pytest.raises(BundleError, match="is a FIFO"):
        check_onnx(tmp_path / "x.onnx")


def test_damaged_files_are_refused_or_outlined(tmp_path: Path) -> None:
    whole, draw = model().SerializeToString(), random.Random(0)
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 3, 10])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            check_onnx(write(tmp_path, bytes(content[: draw.choice([len(content), draw.randrange(1, len(content))])])))
        except BundleError:
            refused += 1
    assert 100 < refused < 400


def test_the_plugin_that_tensorrt_brings_may_be_in_it(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    plugin = helper.make_node("EfficientNMS_TRT", ["input"], ["output"], domain="trt.plugins")
    path.write_bytes(model([plugin]).SerializeToString())
    assert check_onnx(path).operators == {"EfficientNMS_TRT"}
