"""onnxruntime on CUDA: a made-up provider, and the real one's refusal where there is none."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from benchmarks.cells.backends import ONNXRUNTIME_CUDA
from benchmarks.cells.cell import NotMeasured, Options, OutOfMemory
from benchmarks.runners import ort, ort_cuda
from benchmarks.runners.opening import open_runner
from benchmarks.runners.ort import open_session
from benchmarks.runners.ort_cuda import OnnxRuntimeCuda
from slimexport.target.cuda import device
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.errors import MissingBackend
from slimexport.target.reference import read_reference
from tests.support.bench_exports import IMAGE_SIZE, cpu_cell
from tests.support.cuda_fake import L2_CACHE_BYTES, FakeCudart
from tests.support.gpu_fakes import PROVIDER, Images, Runtime, cuda_cell, fake_onnxruntime
from tests.support.trt_fake import logits_of
from tests.support.trt_helpers import CLASSES, SIZE, write_bundle


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime_ = Runtime(FakeCudart(), lambda values: {"output": logits_of(values["input"], CLASSES)})
    fake_onnxruntime(monkeypatch, runtime_)
    return runtime_


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "net")


def on_cuda(bundle: Path, images: Any = None, batch: int = 2, precision: str = "fp32", **options: Any) -> OnnxRuntimeCuda:
    cell = replace(cuda_cell(bundle, batch), precision=precision)
    runner = open_runner(cell, bundle, images or Images(), Options(**options))
    assert isinstance(runner, OnnxRuntimeCuda)
    return runner


def test_on_cuda_logits_are_the_references_and_nothing_is_left(runtime: Runtime, small: Path) -> None:
    reference = read_reference(small)
    runner = on_cuda(small, batch=3)
    np.testing.assert_allclose(runner.logits(reference["images"]), reference["logits_x0_5"], rtol=1e-5, atol=1e-6)
    runner.close()
    assert runtime.library.leaks == []
    assert runtime.outlived == []  # the session went before its stream and its memory


def test_on_cuda_inputs_rotate_on_the_device(runtime: Runtime, small: Path) -> None:
    images = Images()
    runner = on_cuda(small, images)
    assert images.asked == [(2, L2_CACHE_BYTES)]
    assert len({address for _, address in runtime.bound}) == 5
    probes = np.ones((2, 3, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(runner.logits(probes), logits_of(probes, CLASSES), rtol=1e-5)
    expected = [logits_of(buffer, CLASSES) for buffer in images.buffers(2, 0)]
    for index in (0, 1, 2, 3, 4, 5, 9):
        runner.run(index)
        content = runtime.library.memory[next(iter(runner.on_gpu.outputs.values())).address]
        logits = np.frombuffer(content, np.float32, 2 * CLASSES).reshape(2, CLASSES)
        np.testing.assert_allclose(logits, expected[index % 5], rtol=1e-5, atol=1e-6)
    runner.close()


@pytest.mark.parametrize("transfers", [False, True])
def test_on_cuda_outputs_are_bound_as_the_numbers_that_they_are(runtime: Runtime, small: Path, transfers: bool) -> None:
    """As of a detector: labels and how many of them count are int64, whether NMS settled is a bool."""
    values = {
        "labels": np.array([[3, 1 << 40], [7, 0]]),
        "count": np.array([2, 1]),
        "settled": np.array([True, False]),
        "half": np.array([[0.5], [2.0]], np.float16),
        "double": np.array([[1e300], [2.0]]),
    }
    runtime.others = (
        ("labels", ("batch", 2), "tensor(int64)"),
        ("count", ("batch",), "tensor(int64)"),
        ("settled", ("batch",), "tensor(bool)"),
        ("half", ("batch", 1), "tensor(float16)"),
        ("double", ("batch", 1), "tensor(double)"),
    )
    runtime.model = lambda inputs: {"output": logits_of(inputs["input"], CLASSES), **values}
    runner = on_cuda(small, transfers=transfers)
    runner.run(0)
    given = runner.logits(np.ones((2, 3, SIZE, SIZE), np.float32))
    assert isinstance(given, dict) and list(given) == ["output", *values]
    for name, expected in values.items():
        assert given[name].dtype == expected.dtype
        np.testing.assert_array_equal(given[name], expected)
    runner.close()
    assert runtime.library.leaks == []


@pytest.mark.parametrize(("shape", "kind"), [(("batch", 2), "tensor(string)"), (("batch", "rows"), "tensor(int64)")])
def test_on_cuda_outputs_without_a_size_or_of_no_numbers_are_refused(
    runtime: Runtime, small: Path, shape: tuple[Any, ...], kind: str
) -> None:
    runtime.others = (("labels", shape, kind),)
    with pytest.raises(NotMeasured, match=r"output labels is tensor\(.*Measure it on the CPU"):
        on_cuda(small)
    assert runtime.library.leaks == []


def test_on_cuda_the_run_is_between_events_on_its_stream_and_does_not_wait_by_itself(runtime: Runtime, small: Path) -> None:
    runner = on_cuda(small)
    runtime.library.calls.clear()
    timing = runner.run(0)
    expected = ["cudaEventRecord", "cudaEventRecord", "cudaStreamSynchronize", "cudaEventElapsedTime"]
    assert runtime.library.calls == expected
    assert timing.device == pytest.approx(2e-3)
    assert timing.enqueue is not None and 0 < timing.enqueue < timing.wall
    assert runtime.runs[-1] == {"disable_synchronize_execution_providers": "1"}
    assert runtime.opened[-1][2]["user_compute_stream"] == str(runner.on_gpu.stream.address)
    runner.close()


def test_on_cuda_transfers_are_a_column_if_asked_for(runtime: Runtime, small: Path) -> None:
    runner = on_cuda(small, transfers=True)
    timing = runner.run(1)
    assert timing.upload == timing.download == pytest.approx(2e-3)
    assert runner.settings["transfers"] is True
    runner.close()
    assert runtime.library.leaks == []


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0")])
def test_on_cuda_fp32_is_not_tf32(runtime: Runtime, small: Path, precision: str, tf32: str) -> None:
    runner = on_cuda(small, precision=precision)
    assert runtime.opened[-1][2]["use_tf32"] == tf32
    assert runner.settings["tf32"] is (tf32 == "1")
    assert runner.settings["cuda_graph"] is False and "rotate" in runner.settings["cuda_graph_why"]
    runner.close()


def test_on_cuda_a_session_is_asked_where_its_nodes_run(runtime: Runtime, small: Path) -> None:
    runner = on_cuda(small)
    probe, real = runtime.opened
    assert isinstance(probe[0], bytes) and probe[1] == {}
    assert real[0] == str(small / cuda_cell(small).file)
    assert real[1] == {"session.record_ep_graph_assignment_info": "1"}
    assert "on_cpu" not in runner.settings
    runner.close()


def test_on_cuda_what_arranges_indices_may_run_on_the_cpu_and_is_told(runtime: Runtime, small: Path) -> None:
    """Of a detector onnxruntime leaves such nodes there."""
    runtime.others = (("labels", ("batch", 2), "tensor(int64)"),)
    runtime.on_cpu = ("Gather", "Cast", "Gather")
    runner = on_cuda(small)
    assert runner.settings["on_cpu"] == "3 nodes: Cast, Gather"
    runner.close()


@pytest.mark.parametrize("layer", ["Conv", "QLinearConv", "FusedMatMul", "RoiAlign", "MaxPool"])
def test_on_cuda_no_layer_may_run_on_the_cpu(runtime: Runtime, small: Path, layer: str) -> None:
    runtime.others = (("labels", ("batch", 2), "tensor(int64)"),)
    runtime.on_cpu = ("Gather", layer)
    with pytest.raises(NotMeasured, match=rf"has no kernel on the GPU for {layer} and would run them on the CPU"):
        on_cuda(small)
    assert runtime.library.leaks == [] and runtime.outlived == []


def test_on_cuda_nothing_of_a_classifier_may_run_on_the_cpu(runtime: Runtime, small: Path) -> None:
    """It gives no indices that something would have to arrange."""
    runtime.on_cpu = ("Gather", "Clip")
    with pytest.raises(NotMeasured, match=r"\.onnx: onnxruntime has no kernel on the GPU for Clip, Gather and would"):
        on_cuda(small)
    assert runtime.library.leaks == [] and runtime.outlived == []


def test_on_cuda_no_operator_may_run_on_the_cpu_where_that_is_not_told(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(FakeCudart(), lambda values: {"output": logits_of(values["input"], CLASSES)}, tells=False)
    fake_onnxruntime(monkeypatch, runtime)
    on_cuda(small).close()
    assert runtime.opened[-1][1] == {"session.disable_cpu_ep_fallback": "1"}


def test_on_cuda_without_onnxruntime_its_package_is_named(
    runtime: Runtime, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MissingBackend("...")

    monkeypatch.setattr(ort, "require_onnxruntime", missing)
    monkeypatch.setattr(ort_cuda, "onnxruntime_errors", lambda: pytest.fail("asks a module that is not there"))
    with pytest.raises(NotMeasured, match=r"^onnxruntime is not installed: pip install onnxruntime"):
        on_cuda(small)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loads": False}, r"could not load CUDAExecutionProvider and would use CPUExecutionProvider in its place\. Install"),
        ({"available": ("CPUExecutionProvider",)}, r"built without CUDA: pip uninstall onnxruntime"),
        ({"takes_stream": False}, r"does not work on a stream that is given to it"),
        (
            {"fails_to_open": "graph nodes that are assigned to the default CPU EP, but\nmore"},
            r"assigned to the default CPU EP, but$",
        ),
    ],
)
def test_on_cuda_a_fallback_is_refused_not_measured(
    runtime: Runtime, small: Path, change: dict[str, Any], reason: str
) -> None:
    for name, value in change.items():
        setattr(runtime, name, value)
    with pytest.raises(NotMeasured, match=reason):
        on_cuda(small)
    assert runtime.library.leaks == []


def test_on_cuda_running_out_of_memory_is_told_and_everything_released(runtime: Runtime, small: Path) -> None:
    runner = on_cuda(small)
    runtime.fails = "CUDA failure 2: out of memory ; GPU=0\nmore"
    with pytest.raises(OutOfMemory, match=r"GPU=0$"):
        runner.run(0)
    runner.close()
    runtime.library.failing["cudaMalloc"] = 2
    with pytest.raises(OutOfMemory, match="cudaErrorMemoryAllocation"):
        on_cuda(small)
    assert runtime.library.leaks == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_asking_for_cuda_where_there_is_none_is_a_refusal(exported: Path) -> None:
    cell = replace(cpu_cell(exported), backend=ONNXRUNTIME_CUDA)
    with pytest.raises(NotMeasured, match=r"driver|GPU") as caught:
        open_runner(cell, exported, Images(size=IMAGE_SIZE), Options())
    assert caught.value.exit_code == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_the_real_onnxruntimes_silent_fallback_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is there, as far as the CUDA runtime says, but onnxruntime's provider does not load."""
    library = FakeCudart()
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(library))
    ort_cuda.require_cuda_provider.cache_clear()
    cell = replace(cpu_cell(exported), backend=ONNXRUNTIME_CUDA)
    with pytest.raises(NotMeasured, match=rf"could not load {PROVIDER} and would use CPUExecutionProvider|built without CUDA"):
        open_runner(cell, exported, Images(size=IMAGE_SIZE), Options())
    assert library.leaks == []


def test_the_real_onnxruntime_tells_where_nodes_run(exported: Path) -> None:
    """By the names that are asked for, on the CPU in the GPU's place."""
    path = exported / cpu_cell(exported).file
    session = onnxruntime.InferenceSession(str(path), ort_cuda.told_options(1), providers=["CPUExecutionProvider"])
    assert "Conv" in ort_cuda.layers_among(ort_cuda.nodes_on_cpu(session))


def test_the_made_up_onnxruntime_has_the_real_ones_names() -> None:
    given = list(inspect.signature(onnxruntime.IOBinding.bind_input).parameters)
    assert given[1:] == ["name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    given = list(inspect.signature(onnxruntime.IOBinding.bind_output).parameters)
    assert given[1:7] == ["name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    given = list(inspect.signature(onnxruntime.InferenceSession.run_with_iobinding).parameters)
    assert given[1:] == ["iobinding", "run_options"]


def test_bound_memory_is_read_and_written_as_on_cuda_so_on_the_cpu(exported: Path) -> None:
    """The same calls as `OnnxRuntimeCuda`'s, on the one device that is here."""
    cell = cpu_cell(exported)
    session = open_session(str(exported / cell.file), ort.session_options(1), ["CPUExecutionProvider"])
    images, logits = Images(size=IMAGE_SIZE).buffers(2, 0)[0], np.zeros((2, session.get_outputs()[0].shape[-1]), np.float32)
    binding = session.io_binding()
    binding.bind_input("input", "cpu", 0, np.float32, images.shape, images.ctypes.data)
    binding.bind_output("output", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
    session.run_with_iobinding(binding, ort_cuda.unsynchronized())
    np.testing.assert_array_equal(logits, session.run(None, {"input": images})[0])


def test_every_type_that_outputs_are_bound_as_is_onnxruntimes_own_name_of_it() -> None:
    """A detector's outputs bound to memory as on CUDA, on the one device that is here."""
    names = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in ort_cuda.NUMBERS.values()}
    nodes = [helper.make_node("Cast", ["input"], [name], to=number) for name, number in names.items()]
    outputs = [helper.make_tensor_value_info(name, number, ["batch", 3]) for name, number in names.items()]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "casts", [source], outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    session = open_session(model.SerializeToString(), ort.session_options(1), ["CPUExecutionProvider"])
    values = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]], np.float32)
    shapes, numbers = ort_cuda._outputs(session)
    results = {name: np.zeros((2, *shapes[name]), number) for name, number in numbers.items()}
    binding = session.io_binding()
    binding.bind_input("input", "cpu", 0, np.float32, values.shape, values.ctypes.data)
    for name, array in results.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding, ort_cuda.unsynchronized())
    assert results.keys() == names.keys()
    for name, array in results.items():
        np.testing.assert_array_equal(array, values.astype(name))
