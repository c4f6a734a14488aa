"""onnxruntime's runners: real files on the CPU; on CUDA a made-up provider, and the real one's refusal where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from benchmarks.cells.cell import NotMeasured, OutOfMemory
from benchmarks.cells.inputs import cache_bytes
from benchmarks.runners import ort
from benchmarks.runners.ort import onnxruntime_errors, open_session
from slimexport.target.errors import MissingBackend
from slimexport.target.precision import TOLERANCES
from slimexport.target.proof.comparing import compare
from slimexport.target.reference import read_reference
from tests.support.bench_exports import IMAGE_SIZE, cpu_cell, opened
from tests.support.gpu_fakes import Images


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_logits_are_the_references(exported: Path, precision: str) -> None:
    reference = read_reference(exported)
    images = reference["images"]
    runner = opened(cpu_cell(exported, precision, len(images)), exported)
    comparison = compare(runner.logits(images), reference["logits_x0_25"])
    assert comparison.max_rel_error <= TOLERANCES[precision]
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
    assert [next(i for i, buffer in enumerate(runner.buffers) if buffer is array) for array in seen] == [0, 1, 2, 0, 1]
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
