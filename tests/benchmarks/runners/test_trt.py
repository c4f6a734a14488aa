"""TensorRT's runner on a made-up board: what is queued and in which order, what graphs replay, what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.cell import NotMeasured, Options, OutOfMemory, Timing
from benchmarks.cells.inputs import RandomImages
from benchmarks.runners import trt
from benchmarks.runners.opening import open_runner
from benchmarks.runners.trt import TensorRT
from slimexport.target.errors import BundleError
from slimexport.target.reference import read_reference
from tests.support.code_lines import function_lines, lines_run
from tests.support.cuda_fake import L2_CACHE_BYTES, FakeCudart
from tests.support.gpu_fakes import Images, engine_bundle, engine_cell
from tests.support.trt_fake import VERSIONS, logits_of
from tests.support.trt_helpers import CLASSES, SIZE, Machine, machine


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return machine(monkeypatch)


@pytest.fixture
def bundle(board: Machine, tmp_path: Path) -> Path:
    folder = engine_bundle(tmp_path / "net")
    board.library.calls.clear()
    return folder


def opened(bundle: Path, batch: int = 2, images: Any = None, **options: Any) -> TensorRT:
    runner = open_runner(engine_cell(bundle, batch), bundle, images or Images(), Options(**options))
    assert isinstance(runner, TensorRT)
    return runner


def calls_of(board: Machine, runner: TensorRT, index: int) -> tuple[list[str], Timing]:
    """What one iteration asks of CUDA, without reading the events."""
    board.library.calls.clear()
    timing = runner.run(index)
    return [name.removeprefix("cuda") for name in board.library.calls if name != "cudaEventElapsedTime"], timing


def _only(by_name: Mapping[str, Any]) -> Any:
    (value,) = by_name.values()
    return value


def last_logits(runner: TensorRT, board: Machine) -> Any:
    """What lies in the output's memory."""
    content = board.library.memory[_only(runner.on_gpu.outputs).address]
    batch = _only(runner.on_gpu.shapes)[0]
    return np.frombuffer(content, np.float32, batch * CLASSES).reshape(batch, CLASSES)


@pytest.mark.parametrize("version", VERSIONS)
def test_logits_are_the_references_on_every_version(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = machine(monkeypatch, version)
    folder = engine_bundle(tmp_path / "net")
    reference = read_reference(folder)
    runner = opened(folder, batch=3)
    np.testing.assert_allclose(runner.logits(reference["images"]), reference["logits_x0_5"], rtol=1e-5, atol=1e-6)
    assert runner.settings["version"] == board.trt.__version__
    runner.close()
    assert board.library.leaks == []


def test_one_iteration_is_event_launch_event_wait(board: Machine, bundle: Path) -> None:
    runner = opened(bundle)
    calls, timing = calls_of(board, runner, 0)
    assert calls == ["EventRecord", "GraphLaunch", "EventRecord", "StreamSynchronize"]
    assert timing.device == pytest.approx(2e-3)  # the made-up clock moves 2 ms per event
    assert timing.enqueue is not None and 0 < timing.enqueue < timing.wall
    assert (timing.upload, timing.download) == (None, None)
    runner.close()


def test_without_graphs_work_is_queued_anew(board: Machine, bundle: Path) -> None:
    runner = opened(bundle, cuda_graph=False)
    assert "cudaStreamBeginCapture" not in board.library.calls
    calls, _ = calls_of(board, runner, 0)
    assert calls == ["EventRecord", "EventRecord", "StreamSynchronize"]
    assert runner.settings["cuda_graph"] is False
    runner.close()


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_every_iteration_reads_the_next_buffer(board: Machine, bundle: Path, cuda_graph: bool) -> None:
    images = Images()
    runner = opened(bundle, images=images, cuda_graph=cuda_graph)
    expected = [logits_of(buffer, CLASSES) for buffer in images.buffers(2, 0)]
    for index in (0, 1, 2, 3, 4, 5, 6, 12, 3):
        runner.run(index)
        np.testing.assert_allclose(last_logits(runner, board), expected[index % 5], rtol=1e-5, atol=1e-6)
    assert len({id(launch) for launch in runner.launches}) == (5 if cuda_graph else 1)
    runner.close()
    assert board.library.leaks == []


def test_a_graph_is_captured_for_each_buffer_after_a_plain_run(
    board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[bool] = []
    real = board.trt.IExecutionContext.execute_async_v3

    def execute(self: Any, stream: int) -> bool:
        captures.append(stream in board.library.capturing)
        done: bool = real(self, stream)
        return done

    monkeypatch.setattr(board.trt.IExecutionContext, "execute_async_v3", execute)
    runner = opened(bundle)
    assert captures == [False, True] * 5
    calls = [name for name in board.library.calls if "Capture" in name or name == "cudaStreamSynchronize"]
    assert calls.count("cudaStreamBeginCapture") == calls.count("cudaStreamEndCapture") == 5
    for place, name in enumerate(calls):
        if name == "cudaStreamBeginCapture":
            assert calls[place - 1] == "cudaStreamSynchronize"
    assert board.library.calls.count("cudaGraphDestroy") == 5  # what was captured is not kept beside what runs
    runner.close()


def test_no_more_graphs_are_captured_than_there_is_time_for(
    board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector's graph takes long, and of small images there are hundreds of buffers; those without a graph are not read."""
    seconds = iter(range(0, 100, 3))
    monkeypatch.setattr(trt, "CLOCK", lambda: next(seconds))
    images = Images()
    runner = opened(bundle, images=images, transfers=True)
    assert len(runner.launches) == 3  # 5 s are over after the second
    assert runner.settings["input_buffers"] == 3 and runner.settings["transfers"] is True
    assert runner.settings["input_bytes"] == 3 * images.buffers(2, 0)[0].nbytes
    expected = [logits_of(buffer, CLASSES) for buffer in images.buffers(2, 0)]
    for index in (0, 1, 2, 3, 4):
        runner.run(index)
        np.testing.assert_allclose(last_logits(runner, board), expected[index % 3], rtol=1e-5, atol=1e-6)
    runner.close()
    assert board.library.leaks == []


def test_two_graphs_are_captured_however_long_they_take(board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 60))
    monkeypatch.setattr(trt, "CLOCK", lambda: next(seconds))
    runner = opened(bundle)
    assert len(runner.launches) == 2
    runner.close()


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_checking_an_output_leaves_the_inputs_random(board: Machine, bundle: Path, cuda_graph: bool) -> None:
    images = Images()
    runner = opened(bundle, images=images, cuda_graph=cuda_graph)
    probes = np.ones((2, 3, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(runner.logits(probes), logits_of(probes, CLASSES), rtol=1e-5)
    runner.run(3)
    runner.run(0)
    np.testing.assert_allclose(last_logits(runner, board), logits_of(images.buffers(2, 0)[0], CLASSES), rtol=1e-5, atol=1e-6)
    runner.close()


def test_transfers_have_columns_of_their_own(board: Machine, bundle: Path) -> None:
    images = Images()
    runner = opened(bundle, images=images, transfers=True)
    calls, timing = calls_of(board, runner, 1)
    begin, end = ["EventRecord", "MemcpyAsync", "EventRecord"], ["EventRecord", "MemcpyAsync", "EventRecord"]
    assert calls == [*begin, "GraphLaunch", *end, "StreamSynchronize"]
    assert timing.upload == timing.device == timing.download == pytest.approx(2e-3)
    assert runner.settings["transfers"] is True
    downloaded = _only(runner.on_gpu.host_outputs)
    np.testing.assert_allclose(downloaded, logits_of(images.buffers(2, 0)[1], CLASSES), rtol=1e-5, atol=1e-6)
    assert len(board.library.host) == 7  # five inputs, the output, and what the engine itself stages, page-locked
    runner.close()
    assert board.library.leaks == []


def test_uploads_come_from_page_locked_memory(board: Machine, bundle: Path) -> None:
    runner = opened(bundle, transfers=True)
    locked = (*runner.on_gpu.host_inputs, *runner.on_gpu.host_outputs.values())
    assert {array.ctypes.data for array in locked} < set(board.library.host)
    runner.close()


def test_the_settings_say_how_it_ran(bundle: Path) -> None:
    runner = opened(bundle)
    nbytes = 2 * 3 * SIZE * SIZE * 4
    expected = {
        "device": "NVIDIA Test GPU",
        "version": "10.3.0",
        "cuda": "12.4",
        "cuda_graph": True,
        "transfers": False,
        "profile": [1, 4, 6],
        "context_bytes": 12345,
        "input_buffers": 5,
        "input_bytes": 5 * nbytes,
        "cache_bytes": L2_CACHE_BYTES,
    }
    assert runner.settings == expected
    json.dumps(runner.settings)
    runner.close()


def test_buffers_exceed_twice_the_cache(bundle: Path) -> None:
    runner = opened(bundle, images=RandomImages(SIZE))
    assert runner.settings["input_bytes"] > 2 * L2_CACHE_BYTES
    runner.close()


def test_buffers_leave_room_for_others_but_are_two_at_least(bundle: Path) -> None:
    many = opened(bundle, images=Images(1000))
    nbytes = 2 * 3 * SIZE * SIZE * 4
    assert many.settings["input_buffers"] == min(256, (3 << 20) // 16 // nbytes) == 256
    many.close()
    large = opened(bundle, batch=6, images=Images(1000, SIZE))
    assert large.settings["input_buffers"] == (3 << 20) // 16 // (3 * nbytes) == 170
    large.close()


def test_two_buffers_are_kept_on_a_full_device(board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimexport.target.cuda.runtime.Cuda.memory_info", lambda self: (1000, 4000))
    runner = opened(bundle)
    assert runner.settings["input_buffers"] == 2
    runner.close()


@pytest.mark.parametrize("batch", [7, 32])
def test_a_batch_outside_of_the_profile_is_a_row_with_the_range(board: Machine, bundle: Path, batch: int) -> None:
    with pytest.raises(NotMeasured, match=rf"\.plan takes 1 to 6 images at once, not {batch}\. Build it with a --batch"):
        opened(bundle, batch)
    assert board.library.leaks == []


def test_an_engine_of_another_gpu_is_refused_by_its_own_message(
    board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, library=FakeCudart(capability=(8, 6)))
    with pytest.raises(NotMeasured, match=r"was built with TensorRT 10\.3\.0 for sm_90; this machine has 10\.3\.0 and sm_86"):
        opened(bundle)


def test_an_engine_of_another_tensorrt_is_refused(board: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "11.4.0")
    with pytest.raises(NotMeasured, match=r"this machine has 11\.4\.0.*rebuild"):
        opened(bundle)


def test_without_a_gpu_that_is_the_reason(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, library=FakeCudart(devices=0))
    with pytest.raises(NotMeasured, match="no GPU is visible here") as caught:
        opened(bundle)
    assert caught.value.exit_code == 3


def test_images_of_another_size_are_refused(board: Machine, bundle: Path) -> None:
    with pytest.raises(NotMeasured, match=r"takes images \[3, 4, 4\], expected \[3, 8, 8\]"):
        open_runner(replace(engine_cell(bundle), image_size=8), bundle, Images(), Options())
    assert board.library.leaks == []


def test_a_damaged_plan_is_an_error_of_the_bundle(bundle: Path) -> None:
    cell = engine_cell(bundle)
    (bundle / cell.file).write_bytes(b"something else")
    with pytest.raises(BundleError, match=r"SHA-256 is .*the manifest|SHA-256 is .*manifest\.json says"):
        open_runner(cell, bundle, Images(), Options())


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost", "cudaGraphInstantiateWithFlags", "cudaGraphLaunch"])
def test_a_full_device_is_told_as_such(board: Machine, bundle: Path, function: str) -> None:
    board.library.failing[function] = 2

    def open_and_run() -> None:
        with closing(opened(bundle, transfers=True)) as runner:
            runner.run(0)

    with pytest.raises(OutOfMemory, match="cudaErrorMemoryAllocation"):
        open_and_run()
    assert board.library.leaks == []


def test_other_failures_of_cuda_are_reasons_too(board: Machine, bundle: Path) -> None:
    runner = opened(bundle)
    board.library.failing["cudaStreamSynchronize"] = 700
    with pytest.raises(NotMeasured, match="cudaErrorIllegalAddress") as caught:
        runner.run(0)
    assert not isinstance(caught.value, OutOfMemory)
    board.library.failing.clear()
    runner.close()


def test_tensorrt_without_memory_for_a_context_is_a_reason(board: Machine, bundle: Path) -> None:
    board.behaviour.has_context = False
    with pytest.raises(NotMeasured, match="cannot prepare to run it"):
        opened(bundle)
    assert board.library.leaks == []


def test_work_that_cannot_be_captured_is_not_measured_without_a_graph(board: Machine, bundle: Path) -> None:
    board.library.failing["cudaStreamEndCapture"] = 901
    with pytest.raises(
        NotMeasured, match=r"cannot be captured as a CUDA graph \(CUDA: ending a capture failed.*without graphs"
    ):
        opened(bundle)
    assert not board.library.capturing
    assert board.library.leaks == []
    runner = opened(bundle, cuda_graph=False)
    runner.run(0)
    runner.close()


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_an_engine_that_does_not_run_says_why(board: Machine, bundle: Path, cuda_graph: bool) -> None:
    runner = opened(bundle, cuda_graph=False)
    board.behaviour.runs = False
    with pytest.raises(NotMeasured, match="TensorRT does not run it"):
        runner.run(0)
    runner.close()
    with pytest.raises(NotMeasured, match="TensorRT does not run it"):
        opened(bundle, cuda_graph=cuda_graph).run(0)


def test_no_version_of_tensorrt_is_asked_for_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every line of the runner, on stand-ins that refuse such names."""

    def refused(message: str, bundle: Path, batch: int = 2, **options: Any) -> None:
        with pytest.raises((NotMeasured, OutOfMemory), match=message), closing(opened(bundle, batch, **options)) as runner:
            runner.run(0)

    with lines_run(trt) as seen:
        for version in VERSIONS:
            board = machine(monkeypatch, version)
            bundle = engine_bundle(tmp_path / version)
            for cuda_graph in (True, False):
                with closing(opened(bundle, cuda_graph=cuda_graph)) as runner:
                    runner.run(0)
                    runner.logits(np.ones((2, 3, SIZE, SIZE), np.float32))
            with monkeypatch.context() as patch:
                patch.setattr(trt, "CAPTURE_S", -1.0)
                opened(bundle).close()
            refused("at once, not 7", bundle, 7)
            with pytest.raises(NotMeasured, match="expected"):
                open_runner(replace(engine_cell(bundle), image_size=8), bundle, Images(), Options())
            board.behaviour.runs = False
            refused("does not run it", bundle, cuda_graph=False)
            board.behaviour.runs = True
            for code, message in ((901, "cannot be captured"), (2, "cudaErrorMemoryAllocation")):
                board.library.failing["cudaGraphInstantiateWithFlags"] = code
                refused(message, bundle)
            board.library.failing.clear()
            with monkeypatch.context() as patch:
                real, asked = board.trt.IExecutionContext.set_tensor_address, iter(range(100))
                patch.setattr(
                    board.trt.IExecutionContext,
                    "set_tensor_address",
                    lambda *words, r=real, a=asked: next(a) < 2 and r(*words),
                )
                refused("does not take another address", bundle)
            assert board.library.leaks == []
    left_out = function_lines(trt) - seen[trt.__name__]
    assert not left_out, f"no version runs the lines {sorted(left_out)}"


def test_closing_twice_does_nothing(board: Machine, bundle: Path) -> None:
    runner = opened(bundle)
    runner.close()
    calls = list(board.library.calls)
    runner.close()
    assert board.library.calls == calls
