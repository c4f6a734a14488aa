"""The binding of the CUDA runtime: every return code is looked at, everything is released, once, whatever happens."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimexport.target.cuda import device
from slimexport.target.cuda import library as cuda_library
from slimexport.target.cuda import runtime as cuda_module
from slimexport.target.cuda.graph import Graph
from slimexport.target.cuda.runtime import (
    SIGNATURES,
    SINCE_11_4,
    Cuda,
    CudaError,
    DeviceMemory,
    Stream,
    load_cuda,
    version_text,
)
from slimexport.target.errors import MissingBackend
from tests.support.cuda_fake import INVALIDATED, L2_CACHE_BYTES, UNSUPPORTED, FakeCudart
from tests.support.export_helpers import python

ILLEGAL = 700


def use_everything(cuda: Cuda) -> None:
    """Every function of the binding, once at least."""
    cuda.device_count()
    cuda.compute_capability()
    cuda.runtime_version()
    cuda.driver_version()
    cuda.memory_info()
    with cuda.stream() as stream, cuda.memory(16) as memory, cuda.event() as start, cuda.event() as end:
        start.record(stream)
        stream.upload(memory, np.zeros(4, np.float32))
        stream.download(np.zeros(4, np.float32), memory)
        end.record(stream)
        end.synchronize()
        start.elapsed_ms(end)
        stream.synchronize()
        with cuda.pinned_memory(16) as host, Graph(stream, lambda: stream.upload(memory, host.array((2, 2)))) as graph:
            graph.launch(stream)
            stream.synchronize()


def test_values_come_back() -> None:
    cuda = Cuda(FakeCudart(capability=(8, 7)))
    assert cuda.device_count() == 1
    assert cuda.compute_capability() == (8, 7)
    assert version_text(cuda.runtime_version()) == "12.4"
    assert version_text(cuda.driver_version()) == "12.8"
    assert cuda.memory_info() == (3 << 20, 4 << 20)
    assert cuda.l2_cache_bytes() == L2_CACHE_BYTES


def test_data_go_to_the_device_and_back_in_order_and_not_before_they_are_waited_for() -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    with cuda.stream() as stream, cuda.memory(24) as memory, cuda.event() as start, cuda.event() as end:
        back = np.zeros((2, 3), np.float32)
        start.record(stream)
        stream.upload(memory, np.arange(6, dtype=np.float32).reshape(2, 3))  # held until the copy is done
        end.record(stream)
        stream.download(back, memory)
        assert not back.any()
        stream.synchronize()
        assert back.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert start.elapsed_ms(end) == 2
        assert stream.held == []
    assert library.leaks == []


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_return_code_is_checked_and_nothing_leaks(name: str) -> None:
    """Each function in turn fails; what it should have released is all that may stay."""
    library = FakeCudart()
    library.failing[name] = ILLEGAL
    with pytest.raises(CudaError) as caught:
        use_everything(Cuda(library))
    assert (caught.value.code, caught.value.name, caught.value.exit_code) == (ILLEGAL, "cudaErrorIllegalAddress", 3)
    assert f"message {ILLEGAL}" in str(caught.value)
    stay: dict[str, Any] = {
        "cudaFree": library.memory,
        "cudaStreamDestroy": library.streams,
        "cudaEventDestroy": library.events,
        "cudaFreeHost": library.host,
        "cudaGraphDestroy": library.graphs,
        "cudaGraphExecDestroy": library.executables,
    }
    assert not library.capturing
    assert library.leaks == list(stay.get(name, ()))


def test_no_function_is_called_that_has_no_signature() -> None:
    library = FakeCudart()
    use_everything(Cuda(library))
    assert set(library.calls) == set(SIGNATURES)


def test_everything_is_released_when_the_block_fails_and_that_failure_is_told() -> None:
    library = FakeCudart()
    cuda = Cuda(library)

    def work() -> None:
        with cuda.stream(), cuda.memory(8), cuda.event():
            library.failing["cudaFree"] = ILLEGAL  # after a failed kernel, releasing fails too
            raise KeyError("the first failure")

    with pytest.raises(KeyError, match="the first failure"):
        work()
    assert library.leaks == list(library.memory)


def test_releasing_twice_does_nothing() -> None:
    library = FakeCudart()
    with Cuda(library).memory(8) as memory:
        memory.close()
    assert library.calls.count("cudaFree") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda stream, memory: stream.upload(memory, np.zeros(3, np.float32)),
        lambda stream, memory: stream.upload(memory, np.zeros((2, 2), np.float16)[:, :1]),
    ],
    ids=["too large", "not contiguous"],
)
def test_arrays_that_would_be_copied_wrongly_are_refused(wrong: Callable[..., Any]) -> None:
    cuda = Cuda(FakeCudart())
    with cuda.stream() as stream, cuda.memory(8) as memory, pytest.raises(AssertionError):
        wrong(stream, memory)


def test_without_a_device_there_are_none() -> None:
    assert Cuda(FakeCudart(devices=0)).device_count() == 0


def test_a_full_device_is_told_with_what_to_do() -> None:
    library = FakeCudart()
    library.failing["cudaMalloc"] = 2
    with pytest.raises(CudaError, match=r"making 64 bytes of device memory failed: message 2 .*, 2\).*smaller --batch"):
        Cuda(library).memory(64)


def test_data_are_copied_on_the_device() -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    values = np.arange(4, dtype=np.float32)
    back = np.zeros(4, np.float32)
    with cuda.stream() as stream, cuda.memory(16) as source, cuda.memory(32) as to:
        stream.upload(source, values)
        stream.copy(to, source)
        stream.download(back, to)
        stream.synchronize()
        assert back.tolist() == [0, 1, 2, 3]
        with pytest.raises(AssertionError):
            stream.copy(source, to)


def test_page_locked_memory_is_an_array_of_floats() -> None:
    library = FakeCudart()
    with Cuda(library).pinned_memory(24) as host:
        array = host.array((2, 3))
        array[:] = [[1, 2, 3], [4, 5, 6]]
        assert array.ctypes.data == host.address
        assert host.array((3,)).tolist() == [1, 2, 3]
        assert array.flags.writeable and array.flags.c_contiguous
    assert library.leaks == []


def test_what_is_staged_is_page_locked_where_the_system_allows_it() -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    with cuda.staging((2, 3)) as staging:
        assert staging.array.shape == (2, 3) and staging.array.dtype == np.float32
        assert staging.array.ctypes.data in library.host
        staging.array[:] = 1
    staging.close()
    assert library.leaks == [] and not library.host
    library.failing["cudaMallocHost"] = 2
    library.calls.clear()
    with cuda.staging((4,), "float16") as staging:
        staging.array[:] = [1, 2, 3, 4]
        assert staging.array.dtype == np.float16 and staging.array.tolist() == [1, 2, 3, 4]
        assert "cudaGetLastError" in library.calls, "or TensorRT takes the failure for its own"
    assert "cudaFreeHost" not in library.calls and library.leaks == []


def test_a_failure_within_staging_is_told_before_one_of_its_release() -> None:
    library = FakeCudart()

    def fail() -> None:
        library.failing["cudaFreeHost"] = ILLEGAL
        raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"), Cuda(library).staging((2,)):
        fail()


# ----------------------------------------------------------------------------------------------------------- graphs


def test_captured_work_is_done_at_every_launch_and_not_before() -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    values, back = np.ones(2, np.float32), np.zeros(2, np.float32)
    with cuda.stream() as stream, cuda.memory(8) as memory:
        with Graph(stream, lambda: stream.upload(memory, values)) as graph:
            stream.download(back, memory)
            stream.synchronize()
            assert np.isnan(back).all()  # what the memory held: the upload was captured only
            for value in (3, 4):
                values[:] = value
                graph.launch(stream)
                stream.download(back, memory)
                assert back[0] != value
                stream.synchronize()
                assert back.tolist() == [value, value]
        assert library.executables == {}
    assert library.leaks == []
    assert library.calls.count("cudaGraphInstantiateWithFlags") == 1


def test_what_was_queued_before_a_capture_stays_queued() -> None:
    cuda = Cuda(FakeCudart())
    back = np.zeros(2, np.float32)
    with cuda.stream() as stream, cuda.memory(8) as memory, cuda.memory(8) as other:
        stream.upload(memory, np.ones(2, np.float32))
        with Graph(stream, lambda: stream.copy(other, memory)):
            stream.download(back, memory)
            stream.synchronize()
            assert back.tolist() == [1, 1]


def waits(stream: Stream) -> None:
    stream.synchronize()


def fails(stream: Stream) -> None:
    raise KeyError("not of CUDA")


@pytest.mark.parametrize(("work", "expected"), [(waits, CudaError), (fails, KeyError)])
def test_a_capture_that_fails_leaves_the_stream_as_it_was(work: Callable[[Stream], None], expected: type[Exception]) -> None:
    library = FakeCudart()
    cuda = Cuda(library)
    with cuda.stream() as stream, cuda.memory(8) as memory:

        def begin() -> None:
            stream.upload(memory, np.ones(2, np.float32))
            work(stream)

        with pytest.raises(expected) as caught:
            Graph(stream, begin)
        if isinstance(caught.value, CudaError):
            assert caught.value.code == UNSUPPORTED  # the first failure, not that the capture was lost by it
        assert not library.capturing and library.graphs == library.executables == {}
        upload_and_check(stream, memory)
    assert library.leaks == []


def upload_and_check(stream: Stream, memory: DeviceMemory) -> None:
    back = np.zeros(2, np.float32)
    stream.upload(memory, np.full(2, 7, np.float32))
    stream.download(back, memory)
    stream.synchronize()
    assert back.tolist() == [7, 7]


def test_a_capture_that_is_lost_without_a_word_is_told_at_its_end_and_cuda_forgets_it() -> None:
    library = FakeCudart()
    cuda = Cuda(library)

    def lose() -> None:
        library.capture_is_lost = True

    with cuda.stream() as stream, pytest.raises(CudaError, match="ending a capture failed") as caught:
        Graph(stream, lose)
    assert caught.value.code == INVALIDATED
    assert library.calls.count("cudaGetLastError") == 1
    assert library.leaks == []


def test_a_cuda_before_graphs_of_this_kind_does_all_the_rest() -> None:
    library = FakeCudart(runtime=11020)
    for name in SINCE_11_4:
        delattr(library, name)
    cuda = Cuda(library)
    with cuda.stream() as stream, cuda.memory(8) as memory:
        with pytest.raises(MissingBackend, match=r"CUDA 11\.4") as caught:
            Graph(stream, lambda: stream.upload(memory, np.ones(2, np.float32)))
        assert caught.value.exit_code == 3
        upload_and_check(stream, memory)
    assert library.leaks == []


# ---------------------------------------------------------------------------------------------------------- loading


def load_from(monkeypatch: pytest.MonkeyPatch, *libraries: FakeCudart) -> Cuda:
    monkeypatch.setattr(cuda_module, "libraries", lambda: iter(libraries))
    return load_cuda()


def test_the_newest_runtime_that_the_driver_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    newest, fits = FakeCudart(runtime=13000, driver=12020), FakeCudart(runtime=12080, driver=12020)
    assert load_from(monkeypatch, newest, fits).library is fits  # 12.8 on a driver for 12.2: one major version


def test_runtimes_that_are_all_too_new_are_refused_with_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingBackend, match=r"CUDA up to 12\.2, but only CUDA 13\.0 was found.*nvidia-cuda-runtime-cu12"
    ) as caught:
        load_from(monkeypatch, FakeCudart(runtime=13000, driver=12020))
    assert caught.value.exit_code == 3


def test_without_a_driver_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingBackend, match="no NVIDIA driver"):
        load_from(monkeypatch, FakeCudart(driver=0))


def test_without_a_runtime_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_library, "candidates", lambda: ["no-such-library.so.12"])
    with pytest.raises(MissingBackend, match=r"libcudart\.so\.13 or .*pip install nvidia-cuda-runtime") as caught:
        load_cuda()
    assert caught.value.exit_code == 3


def test_wheels_folders_and_the_named_file_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in (("cuda_runtime", "libcudart.so.12"), ("cu13", "libcudart.so.13")):
        (tmp_path / "nvidia" / folder / "lib").mkdir(parents=True)
        (tmp_path / "nvidia" / folder / "lib" / name).touch()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    candidates = cuda_library.candidates()
    assert candidates.index(str(tmp_path / "nvidia/cu13/lib/libcudart.so.13")) == candidates.index("libcudart.so.13") + 1
    assert str(tmp_path / "nvidia/cuda_runtime/lib/libcudart.so.12") in candidates
    monkeypatch.setenv("SLIMEXPORT_CUDART", "here.so")
    assert cuda_library.candidates() == ["here.so"]


def test_on_windows_the_names_are_those_of_dlls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia/cuda_runtime/bin").mkdir(parents=True)
    (tmp_path / "nvidia/cuda_runtime/bin/cudart64_12.dll").touch()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    candidates = cuda_library.candidates()
    assert candidates[0] == "cudart64_13.dll"
    assert str(tmp_path / "nvidia/cuda_runtime/bin/cudart64_12.dll") in candidates


def test_importing_loads_no_library() -> None:
    code = (
        "import ctypes\nctypes.CDLL = None\nimport slimexport.target.cuda.runtime, slimexport.target.cuda.graph, "
        "slimexport.target.tensorrt.engine, slimexport.target.tensorrt.engines, slimexport.target.cuda.device"
    )
    assert python(code, without=("torch", "onnx", "tensorrt", "onnxruntime")).returncode == 0


# ------------------------------------------------------------------------------------------------------- the device


def test_a_device_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(FakeCudart()))
    monkeypatch.setattr(device, "device_name", lambda: "NVIDIA H200")
    _, described = device.require_gpu()
    assert (described.gpu, described.compute_capability, described.sm) == ("NVIDIA H200", "9.0", "sm_90")
    assert (described.cuda, described.driver_cuda, described.memory_bytes) == ("12.4", "12.8", 4 << 20)


def test_a_device_without_a_name_is_called_by_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(FakeCudart()))
    monkeypatch.setattr(device, "driver_library", lambda: None)
    assert device.require_gpu()[1].gpu == "sm_90"


def test_the_drivers_own_version_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar\nGCC version:  gcc 12.2.0\n")
    monkeypatch.setattr(device, "DRIVER_FILES", (str(tmp_path / "none"), str(path)))
    assert device._driver_release() == "550.54.15"


def test_no_gpu_is_an_error_of_the_environment_and_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "load_cuda", lambda: Cuda(FakeCudart(devices=0)))
    with pytest.raises(MissingBackend, match=r"no GPU is visible here.* The ONNX files are written\.$") as caught:
        device.require_gpu("The ONNX files are written.")
    assert caught.value.exit_code == 3
