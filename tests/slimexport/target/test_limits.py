"""Time and memory of a file that runs for the first time: what its manifest explains, and no more."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimexport.target import limits
from slimexport.target.errors import BundleError
from slimexport.target.limits import Budget, memory_limited, time_limited
from slimexport.target.runners import OnnxRuntimeRunner, open_on_cpu
from tests.support.bundle_helpers import artifact

IMAGES = np.ones((2, 3), np.float32)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such limits there")


def network(path: Path, nodes: list[Any], weights: dict[str, Any], **types: Any) -> Path:
    """A file of one input [batch, 3]."""
    given = helper.make_tensor_value_info("input", types.get("input", TensorProto.FLOAT), ["batch", 3])
    result = helper.make_tensor_value_info("output", types.get("output", TensorProto.FLOAT), None)
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [result], tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    path.write_bytes(model.SerializeToString())
    return path


def slow(path: Path, layers: int) -> Path:
    """Products of large matrices, one after the other."""
    size = 1500
    nodes = [helper.make_node("Expand", ["column", "shape"], ["y0"])]
    nodes += [helper.make_node("MatMul", [f"y{at}", f"y{at}"], [f"y{at + 1}"]) for at in range(layers)]
    nodes += [helper.make_node("ReduceMax", [f"y{layers}"], ["most"], keepdims=0)]
    nodes += [helper.make_node("ReduceMax", ["input"], ["own"], keepdims=1)]
    nodes += [helper.make_node("Mul", ["own", "most"], ["output"])]
    nodes.insert(0, helper.make_node("ReduceMean", ["input"], ["column"], keepdims=1))
    return network(path, nodes, {"shape": np.array([size, size])})


def test_what_a_manifest_explains() -> None:
    budget = Budget.of(artifact(macs=10**9, activations=10**6))
    assert budget.seconds(2) == 10 + 20 and Budget(10**15, 0, 0).seconds(8) == 10 + 600
    assert budget.memory_bytes(0) == 40 and budget.memory_bytes(2) == 40 + 32 * 10**6
    assert Budget(1, 10**15, 10**15).memory_bytes(10**6) == 8 << 30


def test_a_block_that_takes_longer_is_told_to_stop() -> None:
    stopped = threading.Event()
    with time_limited(stopped.set, 0.01):
        assert stopped.wait(5)
    other = threading.Event()
    with time_limited(other.set, 0.05):
        pass
    time.sleep(0.1)
    assert not other.is_set()


def test_a_run_that_takes_longer_than_its_macs_explain_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPARE_S", 0.2)
    runner = open_on_cpu(slow(tmp_path / "x.onnx", 2000), artifact())
    with pytest.raises(BundleError, match=r"x\.onnx: a run of 2 took longer than 0 s, which its 1,000 multiply-accumulates"):
        runner(IMAGES)


@linux
def test_memory_that_nothing_explains_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPARE_BYTES", 64 << 20)
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # that of the test runner is none of a command
    with memory_limited(0):
        with pytest.raises(MemoryError):
            np.ones((8 << 30) // 8)
        np.ones((16 << 20) // 8)
    nodes = [helper.make_node("Expand", ["input", "shape"], ["y"]), helper.make_node("ReduceMean", ["y"], ["output"])]
    path = network(tmp_path / "x.onnx", nodes, {"shape": np.array([2_000_000_000, 1, 1])})
    with pytest.raises(BundleError, match="needs more memory than its entry in the manifest explains"):
        open_on_cpu(path, artifact())(IMAGES)
    folded = [helper.make_node("ConstantOfShape", ["shape"], ["big"]), helper.make_node("Add", ["input", "big"], ["output"])]
    path = network(tmp_path / "y.onnx", folded, {"shape": np.array([1_000_000_000, 3])})
    with pytest.raises(BundleError, match="needs more memory than its entry in the manifest explains"):
        open_on_cpu(path, artifact())(IMAGES)


@linux
def test_limits_end_with_their_block(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    with memory_limited(0):
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    with memory_limited(0):  # nothing that another thread does may fail
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    ("nodes", "types", "said"),
    [
        ([("Cast", {"to": TensorProto.STRING})], {"output": TensorProto.STRING}, r"gives 'output' 'tensor\(string\)'"),
        ([("Cast", {"to": TensorProto.FLOAT})], {"input": TensorProto.INT64}, r"takes 'input tensor\(int64\)', expected one"),
    ],
)
def test_inputs_and_outputs_are_numbers(tmp_path: Path, nodes: list[Any], types: dict[str, Any], said: str) -> None:
    (operator, attributes), *_ = nodes
    path = network(tmp_path / "x.onnx", [helper.make_node(operator, ["input"], ["output"], **attributes)], {}, **types)
    with pytest.raises(BundleError, match=said):
        OnnxRuntimeRunner(path)


def test_a_file_without_an_input_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["output"])],
        "g",
        [],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [3])],
        [onnx.numpy_helper.from_array(IMAGES[0], "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="takes '', expected one input"):
        OnnxRuntimeRunner(tmp_path / "x.onnx")
