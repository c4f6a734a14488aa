"""The runtimes that are tried: those that are installed give what a file says, one image or two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.studies.consumers.readers import BASELINE, READERS, Reader, _converted
from slimtrain.base.packages import is_installed

IN_PROCESS = [reader for reader in READERS.values() if reader.name in ("onnxruntime", "openvino", "onnx reference")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that sums the channels of an image, in two classes."""
    weight = numpy_helper.from_array(np.stack([np.ones((3, 1, 1)), -np.ones((3, 1, 1))]).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["sums"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["sums"], ["means"]),
        helper.make_node("Flatten", ["means"], ["output"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 4])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "g", [image], [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


@pytest.mark.parametrize("reader", IN_PROCESS, ids=lambda reader: reader.name)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_runtime_gives_what_a_file_says(reader: Reader, batch: int, path: Path, tmp_path: Path) -> None:
    if not all(map(is_installed, reader.modules)):
        pytest.skip(f"needs {reader.packages}")
    images = np.random.default_rng(0).normal(size=(batch, 3, 4, 4)).astype(np.float32)
    sums = images.sum(1).mean((1, 2))
    output = np.asarray(reader.opener(path, tmp_path, images, 1)(images))
    np.testing.assert_allclose(output, np.stack([sums, -sums], 1), rtol=1e-4, atol=1e-5)


def test_the_first_is_what_others_are_compared_with() -> None:
    assert next(iter(READERS)) == BASELINE and all(READERS[name].name == name for name in READERS)
    assert all(reader.modules and reader.packages for reader in READERS.values())


def test_a_converter_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^the converter ended with 3: no such operator$"):
        _converted([sys.executable, "-c", "import sys; print('no such operator'); sys.exit(3)"], tmp_path / "a")
    with pytest.raises(RuntimeError, match="wrote nothing: no word"):
        _converted([sys.executable, "-c", ""], tmp_path / "a")
    (tmp_path / "a").touch()
    _converted([sys.executable, "-c", ""], tmp_path / "a")


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    names = {"onnx", "onnxruntime", "torch"}
    code = f"import sys; import benchmarks.studies.consumers.readers; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
