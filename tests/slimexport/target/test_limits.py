"""Time and memory of a file that runs for the first time: what its manifest explains, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimexport.target import limits
from slimexport.target.backends import CPU, OPENVINO
from slimexport.target.errors import BundleError
from slimexport.target.limits import Budget, TimeUp, in_time, memory_limited
from slimexport.target.openvino import open_in_openvino
from slimexport.target.runners import OnnxRuntimeRunner, open_on_cpu
from slimtrain.base.process.leaving import left_behind
from tests.support import ROOT
from tests.support.bundle_helpers import artifact
from tests.support.interrupts import interrupts


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """What a test left behind ends before the next one."""
    yield
    for thread in left_behind():
        thread.join()


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


def slow(path: Path, layers: int, size: int = 1500) -> Path:
    """Products of large matrices, one after the other."""
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


def test_work_that_takes_longer_is_told_to_stop_and_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STOPPING_S", 0.01)
    stopped, over = threading.Event(), threading.Event()
    with pytest.raises(TimeUp):
        in_time(lambda: over.wait(60), 0.01, stopped.set)
    assert stopped.is_set()
    over.set()
    assert in_time(lambda: 7, 60, stopped.clear) == 7 and stopped.is_set()
    with pytest.raises(KeyError, match="what"):
        in_time(lambda: dict[str, int]()["what"], 60, stopped.clear)


def test_work_is_left_behind_where_ctrl_c_comes_while_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    left, over = list[threading.Thread](), threading.Event()
    monkeypatch.setattr(limits, "leave_behind", left.append)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_time(lambda: over.wait(60), 0.01, interrupted)
    assert len(left) == 1
    over.set()
    left[0].join(60)


@pytest.mark.skipif(os.name != "posix", reason="sends this process a signal")
@pytest.mark.parametrize("stops", [True, False])
def test_work_is_stopped_or_left_behind_where_ctrl_c_comes(stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would end while it computes, and crash."""
    monkeypatch.setattr(limits, "STOPPING_S", 60.0 if stops else 0.01)
    over, at_work, stop = threading.Event(), list[threading.Thread](), threading.Event()

    def work() -> None:
        at_work.append(threading.current_thread())
        interrupt()
        assert (stop if stops else over).wait(60)

    with interrupts() as interrupt, pytest.raises(KeyboardInterrupt):
        in_time(work, 60, stop.set)
    assert stop.is_set() and (at_work[0] in left_behind()) is not stops
    over.set()
    at_work[0].join(60)
    assert not at_work[0].is_alive()


@pytest.mark.parametrize("opener", [open_on_cpu, open_in_openvino])
def test_a_run_that_takes_longer_than_its_macs_explain_is_stopped(
    opener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many operators, which onnxruntime can stop between; and one alone, which nothing stops."""
    if opener is open_in_openvino:
        pytest.importorskip("openvino")
    for path in (slow(tmp_path / "x.onnx", 2000), slow(tmp_path / "y.onnx", 1, size=9000)):
        monkeypatch.setattr(limits, "SPARE_S", 60.0)
        runner = opener(path, artifact())
        monkeypatch.setattr(limits, "SPARE_S", 0.2)
        with pytest.raises(BundleError, match=rf"{path.name}: a run of 2 took longer than 0 s, which its 1,000 multiply-acc"):
            runner(IMAGES)


@pytest.mark.parametrize("backend", [CPU, OPENVINO])
def test_a_command_ends_though_a_file_does_not(backend: str, tmp_path: Path) -> None:
    """A thread that is left behind in an operator keeps no process, nor its exit code."""
    if backend == OPENVINO:
        pytest.importorskip("openvino")
    path = slow(tmp_path / "y.onnx", 1, size=9000)
    code = (
        "import importlib, sys, numpy\n"
        "from pathlib import Path\n"
        "from slimexport.target import limits\n"
        "from tests.support.bundle_helpers import artifact\n"
        "entry = artifact()\n"
        "import click\n"
        "from slimtrain.base.command import Command, messages\n"
        "runner = importlib.import_module('slimexport.target.backends').BACKENDS[sys.argv[2]].open(Path(sys.argv[1]), entry)\n"
        "limits.SPARE_S = 0.2\n"
        "@click.command(cls=Command)\n"
        "def main():\n"
        "    with messages('it'):\n        runner(numpy.ones((2, 3), numpy.float32))\n"
        "main([])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, path, backend], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert (ran.returncode, "it: y.onnx: a run of 2 took longer than 0 s" in ran.stderr) == (2, True), ran


def test_loading_is_limited_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is constant is computed where a file is loaded."""
    size = 6000
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["y"]),
        helper.make_node("MatMul", ["y", "y"], ["z"]),
        helper.make_node("ReduceMax", ["z"], ["most"], keepdims=0),
        helper.make_node("Mul", ["input", "most"], ["output"]),
    ]
    path = network(tmp_path / "x.onnx", nodes, {"one": np.ones((1, 1), np.float32), "shape": np.array([size, size])})
    monkeypatch.setattr(limits, "SPARE_S", 0.2)
    with pytest.raises(BundleError, match=r"x\.onnx: loading it took longer than 0 s"):
        open_on_cpu(path, artifact())


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
