"""onnxruntime's runners: real files on the CPU; on CUDA a made-up provider, and the real one's refusal where there is none."""

from __future__ import annotations

import inspect
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.cells.backends import ONNXRUNTIME_CPU, ONNXRUNTIME_CUDA
from benchmarks.cells.cell import Cell, NotMeasured, Options, OutOfMemory
from benchmarks.cells.inputs import cache_bytes
from benchmarks.runners import ort, ort_cuda
from benchmarks.runners.opening import open_runner
from benchmarks.runners.ort import OnnxRuntimeCpu, onnxruntime_errors, open_session
from benchmarks.runners.ort_cuda import OnnxRuntimeCuda
from slimexport import export
from slimexport.target import manifest
from slimexport.target.cuda import device
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.errors import BundleError, MissingBackend
from slimexport.target.manifest import read_manifest, read_reference
from slimexport.target.precision import TOLERANCES
from slimexport.target.verify import compare
from slimtrain.base.files import file_sha256
from tests.support.bench_helpers import cell
from tests.support.cuda_fake import L2_CACHE_BYTES, FakeCudart
from tests.support.export_helpers import python
from tests.support.gpu_fakes import PROVIDER, Images, Runtime, cuda_cell, fake_onnxruntime
from tests.support.trt_fake import logits_of
from tests.support.trt_helpers import CLASSES, SIZE, write_bundle

IMAGE_SIZE = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network at one width in fp32 and fp16."""
    folder = tmp_path_factory.mktemp("exports") / "us_mobilenet_v1"
    export("random:us_mobilenet_v1", widths=[0.25], image_size=IMAGE_SIZE, precisions=["fp32", "fp16"], output_dir=folder)
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "us_mobilenet_v1"))


def cpu_cell(bundle: Path, precision: str = "fp32", batch: int = 2, **changes: Any) -> Cell:
    artifact = next(each for each in read_manifest(bundle).artifacts if each.precision == precision)
    return cell(
        artifact.name,
        file=artifact.file,
        backend=ONNXRUNTIME_CPU,
        precision=precision,
        batch=batch,
        image_size=IMAGE_SIZE,
        **changes,
    )


def opened(cell: Cell, bundle: Path, images: Any = None, **options: Any) -> OnnxRuntimeCpu:
    found = open_runner(cell, bundle, images or Images(size=IMAGE_SIZE), Options(**options))
    assert isinstance(found, OnnxRuntimeCpu)
    return found


# ---------------------------------------------------------------------------------------------------------- the CPU


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_logits_are_the_references(exported: Path, precision: str) -> None:
    reference = read_reference(exported)
    images = reference["images"]
    runner = opened(cpu_cell(exported, precision, len(images)), exported)
    found = compare(runner.logits(images), reference["logits_x0_25"])
    assert found.max_rel_error <= TOLERANCES[precision]
    runner.close()


def test_an_iteration_has_a_wall_time_and_no_others(exported: Path) -> None:
    runner = opened(cpu_cell(exported), exported)
    timing = runner.run(0)
    assert timing.wall > 0
    assert (timing.device, timing.enqueue, timing.upload, timing.download) == (None, None, None, None)
    runner.close()


def test_buffers_rotate_and_are_asked_for_by_the_cache(exported: Path) -> None:
    images = Images(3, IMAGE_SIZE)
    runner = opened(cpu_cell(exported, batch=4), exported, images)
    assert images.asked == [(4, cache_bytes())]
    seen: list[Any] = []
    runner.session = SimpleNamespace(run=lambda outputs, feed: seen.append(feed["input"]))
    for index in (0, 1, 2, 3, 7):
        runner.run(index)
    assert [next(i for i, each in enumerate(runner.buffers) if each is array) for array in seen] == [0, 1, 2, 0, 1]
    assert runner.settings["input_buffers"] == 3
    assert runner.settings["input_bytes"] == 3 * 4 * 3 * IMAGE_SIZE**2 * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for_and_stated(exported: Path, threads: int) -> None:
    runner = opened(cpu_cell(exported), exported, threads=threads)
    options = runner.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    expected = {
        "device": "cpu",
        "threads": threads,
        "provider": "CPUExecutionProvider",
        "graph_optimization": "ORT_ENABLE_ALL",
        "version": onnxruntime.__version__,
    }
    assert {key: runner.settings[key] for key in expected} == expected
    runner.close()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precisions_that_a_cpu_lacks_are_rows_with_a_reason(exported: Path, precision: str) -> None:
    with pytest.raises(NotMeasured, match=r"CPUs have no TF32|runs bf16 files wrongly on a CPU, or not"):
        opened(replace(cpu_cell(exported), precision=precision), exported)


def test_a_closed_runner_does_not_run(exported: Path) -> None:
    runner = opened(cpu_cell(exported), exported)
    runner.close()
    with pytest.raises((AttributeError, ZeroDivisionError)):
        runner.run(0)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 9", OutOfMemory),
        ("bfc_arena.cc:376 Failed to allocate memory for requested buffer\nmore", OutOfMemory),
        ("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc", OutOfMemory),
        ("CUDA failure 2: out of memory ; GPU=0", OutOfMemory),
        ("CUBLAS_STATUS_ALLOC_FAILED", OutOfMemory),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions\nfor input", NotMeasured),
    ],
)
def test_what_onnxruntime_raises_is_a_reason_in_one_line(exported: Path, said: str, kind: type[NotMeasured]) -> None:
    runner = opened(cpu_cell(exported), exported)

    def fail(outputs: Any, feed: Any) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(said)

    runner.session = SimpleNamespace(run=fail)
    for call in (lambda: runner.run(0), lambda: runner.logits(np.zeros((2, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))):
        with pytest.raises(NotMeasured) as caught:
            call()
        assert type(caught.value) is kind
        assert str(caught.value) == said.splitlines()[0]


def test_our_own_mistakes_are_not_reasons(exported: Path) -> None:
    runner = opened(cpu_cell(exported), exported)

    def mistake(outputs: Any, feed: Any) -> None:
        raise TypeError("ours")

    runner.session = SimpleNamespace(run=mistake)
    with pytest.raises(TypeError, match="ours"):
        runner.run(0)
    with pytest.raises(AssertionError):
        runner.logits(np.zeros((3, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))


def test_real_errors_of_onnxruntime_are_among_those_that_are_expected(exported: Path) -> None:
    kinds = onnxruntime_errors()
    session = open_session(str(exported / cpu_cell(exported).file), ort.session_options(1), ["CPUExecutionProvider"])
    with pytest.raises(kinds):
        session.run(None, {"input": np.zeros((1, 3, 8, 8), np.float16)})
    with pytest.raises(NotMeasured):
        open_session(b"no model", ort.session_options(1), ["CPUExecutionProvider"])
    assert not issubclass(TypeError, kinds)


def test_a_host_without_memory_for_images_is_told(exported: Path) -> None:
    class Full:
        def buffers(self, batch: int, cache_bytes: int) -> Any:
            raise MemoryError("Unable to allocate 3 GiB")

    with pytest.raises(OutOfMemory, match="Unable to allocate 3 GiB"):
        opened(cpu_cell(exported), exported, Full())


def test_without_onnxruntime_its_package_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingBackend("..., or export without proof: --no-verify.")

    monkeypatch.setattr(ort, "require_onnxruntime", missing)
    with pytest.raises(NotMeasured, match=r"^onnxruntime is not installed: pip install onnxruntime") as caught:
        opened(cpu_cell(exported), exported)
    assert caught.value.exit_code == 3


def test_an_onnxruntime_that_does_not_load_says_why(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise MissingBackend("onnxruntime is installed but does not load (libfoo)") from ImportError("libfoo")

    monkeypatch.setattr(ort, "require_onnxruntime", broken)
    with pytest.raises(NotMeasured, match="does not load \\(libfoo\\)"):
        opened(cpu_cell(exported), exported)


# --------------------------------------------------------------------------------------------------------- the file


def test_a_file_that_is_not_the_manifests_is_never_loaded(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cpu_cell(bundle)
    opened(made, bundle).close()
    (bundle / made.file).write_bytes((bundle / made.file).read_bytes() + b"x")
    monkeypatch.setattr(ort, "open_session", lambda *_: pytest.fail("was loaded"))
    with pytest.raises(BundleError, match="SHA-256") as caught:
        opened(made, bundle)
    assert caught.value.exit_code == 2


def test_a_file_is_read_for_its_sha256_once_until_it_changes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(manifest, "file_sha256", counted)
    made = cpu_cell(bundle)
    for _ in range(3):
        opened(made, bundle).close()
    assert len(read) == 1
    changed = (bundle / made.file).stat().st_mtime_ns + 10**9
    os.utime(bundle / made.file, ns=(changed, changed))
    opened(made, bundle).close()
    assert len(read) == 2
    opened(cpu_cell(bundle, "fp16"), bundle).close()
    assert len(read) == 3


def test_a_missing_file_and_an_unknown_one_are_errors_of_the_bundle(bundle: Path) -> None:
    made = cpu_cell(bundle)
    (bundle / made.file).unlink()
    with pytest.raises(BundleError, match="not there"):
        opened(made, bundle)
    with pytest.raises(BundleError, match=r"has no entry for other\.onnx"):
        opened(replace(made, file="other.onnx"), bundle)


def test_measuring_a_file_needs_neither_torch_nor_onnx(exported: Path) -> None:
    made = cpu_cell(exported)
    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    code = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.cells.cell import Cell, NotMeasured, Options\n"
        "from benchmarks.cells.inputs import RandomImages\nfrom benchmarks.runners.opening import open_runner\n"
        "from dataclasses import replace\n"
        "import benchmarks.ceilings.measuring, benchmarks.machine.threads, benchmarks.onnx_models.tiny\n"
        f"cell, folder = Cell(**{fields!r}), Path({str(exported)!r})\n"
        f"images = RandomImages({IMAGE_SIZE}, most_bytes=1 << 20)\n"
        "runner = open_runner(cell, folder, images, Options())\nassert runner.run(0).wall > 0\n"
        "for backend in ('torch-eager', 'tensorrt'):\n"
        "    try:\n        open_runner(replace(cell, backend=backend), folder, images, Options())\n"
        "    except NotMeasured as error:\n        print(error)\n    else:\n        raise SystemExit(backend)\n"
    )
    done = python(code, without=("torch", "onnx", "tensorrt", "slimtrain.slimmable.network"))
    assert done.returncode == 0, done.stderr
    assert [("not installed" in line, "pip install" in line) for line in done.stdout.splitlines()] == [(True, True)] * 2


# ------------------------------------------------------------------------------------------------------------- CUDA


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime(FakeCudart(), lambda values: {"output": logits_of(values["input"], CLASSES)})
    fake_onnxruntime(monkeypatch, made)
    return made


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "net")


def on_cuda(bundle: Path, images: Any = None, batch: int = 2, precision: str = "fp32", **options: Any) -> OnnxRuntimeCuda:
    made = replace(cuda_cell(bundle, batch), precision=precision)
    found = open_runner(made, bundle, images or Images(), Options(**options))
    assert isinstance(found, OnnxRuntimeCuda)
    return found


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
    expected = [logits_of(each, CLASSES) for each in images.buffers(2, 0)]
    for index in (0, 1, 2, 3, 4, 5, 9):
        runner.run(index)
        content = runtime.library.memory[runner.on_gpu.output.address]
        found = np.frombuffer(content, np.float32, 2 * CLASSES).reshape(2, CLASSES)
        np.testing.assert_allclose(found, expected[index % 5], rtol=1e-5, atol=1e-6)
    runner.close()


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


def test_on_cuda_no_operator_may_run_on_the_cpu(runtime: Runtime, small: Path) -> None:
    on_cuda(small).close()
    probe, real = runtime.opened
    assert isinstance(probe[0], bytes) and probe[1] == {}
    assert real[0] == str(small / cuda_cell(small).file)
    assert real[1] == {"session.disable_cpu_ep_fallback": "1"}


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
    made = replace(cpu_cell(exported), backend=ONNXRUNTIME_CUDA)
    with pytest.raises(NotMeasured, match=r"driver|GPU") as caught:
        open_runner(made, exported, Images(size=IMAGE_SIZE), Options())
    assert caught.value.exit_code == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_the_real_onnxruntimes_silent_fallback_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is there, as far as the CUDA runtime says, but onnxruntime's provider does not load."""
    library = FakeCudart()
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(library))
    ort_cuda.require_cuda_provider.cache_clear()
    made = replace(cpu_cell(exported), backend=ONNXRUNTIME_CUDA)
    with pytest.raises(NotMeasured, match=rf"could not load {PROVIDER} and would use CPUExecutionProvider|built without CUDA"):
        open_runner(made, exported, Images(size=IMAGE_SIZE), Options())
    assert library.leaks == []


def test_the_made_up_onnxruntime_has_the_real_ones_names() -> None:
    given = list(inspect.signature(onnxruntime.IOBinding.bind_input).parameters)
    assert given[1:] == ["name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    given = list(inspect.signature(onnxruntime.IOBinding.bind_output).parameters)
    assert given[1:7] == ["name", "device_type", "device_id", "element_type", "shape", "buffer_ptr"]
    given = list(inspect.signature(onnxruntime.InferenceSession.run_with_iobinding).parameters)
    assert given[1:] == ["iobinding", "run_options"]


def test_bound_memory_is_read_and_written_as_on_cuda_so_on_the_cpu(exported: Path) -> None:
    """The same calls as `OnnxRuntimeCuda`'s, on the one device that is here."""
    made = cpu_cell(exported)
    session = open_session(str(exported / made.file), ort.session_options(1), ["CPUExecutionProvider"])
    images, found = Images(size=IMAGE_SIZE).buffers(2, 0)[0], np.zeros((2, session.get_outputs()[0].shape[-1]), np.float32)
    binding = session.io_binding()
    binding.bind_input("input", "cpu", 0, np.float32, images.shape, images.ctypes.data)
    binding.bind_output("output", "cpu", 0, np.float32, found.shape, found.ctypes.data)
    session.run_with_iobinding(binding, ort_cuda.unsynchronized())
    np.testing.assert_array_equal(found, session.run(None, {"input": images})[0])
