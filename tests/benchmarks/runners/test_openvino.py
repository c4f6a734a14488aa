"""OpenVINO's runner: what is right, what it is told and says of itself, and that it is as fair as onnxruntime's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.cells.backends import OPENVINO
from benchmarks.cells.cell import Cell, NotMeasured, Options, OutOfMemory
from benchmarks.cells.inputs import RandomImages, assumed_cache
from benchmarks.cells.records import read_records
from benchmarks.cli import main
from benchmarks.runners import openvino as runners_openvino
from benchmarks.runners.opening import open_runner
from benchmarks.runners.openvino import OpenVINO, shared_tensor
from slimexport.target.errors import MissingBackend
from slimexport.target.proof.comparing import compare
from slimexport.target.reference import read_reference
from tests.support.bench_exports import IMAGE_SIZE, cpu_cell
from tests.support.gpu_fakes import Images

openvino = pytest.importorskip("openvino")


def own_cell(bundle: Path, precision: str = "fp32", batch: int = 2) -> Cell:
    return replace(cpu_cell(bundle, precision, batch), backend=OPENVINO)


def opened(bundle: Path, precision: str = "fp32", batch: int = 2, images: Any = None, **options: Any) -> OpenVINO:
    runner = open_runner(own_cell(bundle, precision, batch), bundle, images or Images(size=IMAGE_SIZE), Options(**options))
    assert isinstance(runner, OpenVINO)
    return runner


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.2)])
def test_logits_are_the_references(exported: Path, precision: str, tolerance: float) -> None:
    """An untrained network bears float16 badly; that fp32 is not computed in bfloat16 is what the first row says."""
    reference = read_reference(exported)
    images = reference["images"]
    runner = opened(exported, precision, len(images))
    assert compare(runner.logits(images), reference["logits_x0_25"]).max_rel_error <= tolerance
    runner.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_asked_for_and_what_computes_is_stated(exported: Path, threads: int) -> None:
    runner = opened(exported, threads=threads)
    expected = {
        **{"device": "cpu", "threads": threads, "streams": 1, "performance_hint": "LATENCY", "precision_hint": "f32"},
        **{"layers_computed_in": "28 f32", "version": openvino.__version__, "input_buffers": 5},
        "compiled_for": "a batch of 2",
    }
    assert {key: runner.settings[key] for key in expected} == expected
    assert runner.compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert list(runner.compiled.inputs[0].shape) == [2, 3, IMAGE_SIZE, IMAGE_SIZE]
    assert runner.compiled.get_property("ENABLE_CPU_PINNING") is False  # `measure.threads` keeps them to their CPUs
    runner.close()


def test_threads_that_openvino_would_not_use_are_no_figure(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runners_openvino.compile_settings
    monkeypatch.setattr(runners_openvino, "compile_settings", lambda threads: real(1))
    with pytest.raises(NotMeasured, match=r"would use 1 threads in place of 2"):
        opened(exported, threads=2)


def test_buffers_rotate_and_are_read_where_they_are(exported: Path) -> None:
    """They are read-only, which OpenVINO copies unless it is not told; onnxruntime copies no input."""
    with assumed_cache(1 << 16):
        runner = opened(exported, images=RandomImages(IMAGE_SIZE, seed=3), batch=4)
    before = [buffer.copy() for buffer in runner.buffers]
    assert not runner.buffers[0].flags.writeable
    for index in (0, 1, 2, len(runner.buffers) + 1):
        assert runner.run(index).wall > 0
        buffer = runner.buffers[index % len(runner.buffers)]
        assert runner.request.get_input_tensor().data.ctypes.data == buffer.ctypes.data
    assert all(np.array_equal(buffer, copy) for buffer, copy in zip(runner.buffers, before, strict=True))
    runner.close()


def test_a_shared_tensor_is_the_array() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    array.setflags(write=False)
    tensor = shared_tensor(array)
    assert tensor.data.ctypes.data == array.ctypes.data and np.array_equal(tensor.data, array)


def test_results_of_one_run_are_not_the_nexts(exported: Path) -> None:
    runner = opened(exported)
    drawn = np.random.default_rng(0).normal(size=(2, 2, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)
    first = runner.logits(drawn[0])
    kept = first.copy()
    assert not np.array_equal(runner.logits(drawn[1]), kept) and np.array_equal(first, kept)
    runner.close()


@pytest.mark.parametrize(
    ("said", "kind"),
    [("Exception from src/a.cpp:1:\nbad_alloc", OutOfMemory), ("Check 'a' failed:\nshapes differ", NotMeasured)],
)
def test_what_openvino_raises_is_a_reason_in_one_line(exported: Path, said: str, kind: type[NotMeasured]) -> None:
    runner = opened(exported)

    def fail(feed: Any, share_inputs: bool) -> None:
        raise RuntimeError(said)

    runner.request = SimpleNamespace(infer=fail, cancel=lambda: None)
    for call in (lambda: runner.run(0), lambda: runner.logits(np.zeros((2, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32))):
        with pytest.raises(NotMeasured) as caught:
            call()
        assert type(caught.value) is kind and str(caught.value) == said.splitlines()[-1]


def test_a_closed_runner_does_not_run(exported: Path) -> None:
    runner = opened(exported)
    runner.close()
    with pytest.raises(AttributeError):
        runner.run(0)


def test_without_openvino_a_row_says_what_installs_it(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingBackend("openvino is not installed: pip install 'slimmable-deploy[openvino]'.")

    monkeypatch.setattr(runners_openvino, "require_openvino", missing)
    with pytest.raises(NotMeasured, match=r"^openvino is not installed: pip install") as caught:
        opened(exported)
    assert caught.value.exit_code == 3


def test_it_is_measured_and_chosen_from_the_command_line(exported: Path, tmp_path: Path) -> None:
    words = ["--backend", "openvino", "--latency-ms", "1000", "--precision", "fp32", "--duration", "0.02", "--warmup", "0"]
    words += ["--repeats", "2", "--threads", "1", "--cache-mib", "0.01", "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(["choose", str(exported), *words])
    assert ended.value.code == 0
    recorded = read_records(tmp_path / "out")
    (result,) = recorded.results
    assert (result.status, result.cell.backend, result.settings["threads"]) == ("measured", "openvino", 1)
    ceilings = recorded.run["ceilings"]["openvino fp32"]
    assert ceilings["macs_per_s"] > 0 and ceilings["how"]["library"].startswith("OpenVINO ")
