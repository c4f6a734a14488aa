"""What the made-up devices cannot show: real graphs, real events, real libraries. Skipped where there is no GPU."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.ceilings.measuring import measure_ceilings
from benchmarks.cells.backends import ONNXRUNTIME_CUDA, TENSORRT
from benchmarks.cells.cell import Cell, Options
from benchmarks.runners.opening import open_runner
from slimexport import export
from slimexport.target.cuda.device import require_gpu
from slimexport.target.cuda.graph import Graph
from slimexport.target.manifest import read_manifest
from slimexport.target.precision import TOLERANCES
from slimexport.target.proof.comparing import compare
from slimexport.target.reference import read_reference
from slimexport.target.tensorrt.build_settings import BatchRange, BuildSettings
from slimexport.target.tensorrt.engines import build_engines
from tests.support.bench_helpers import cell
from tests.support.gpu_fakes import Images

IMAGE_SIZE = 32
pytestmark = pytest.mark.gpu
has_provider = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="onnxruntime has no CUDA provider"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "us_mobilenet_v1"
    export("random:us_mobilenet_v1", widths=[0.25], image_size=IMAGE_SIZE, output_dir=folder)
    if importlib.util.find_spec("tensorrt") is not None:
        build_engines(folder, settings=BuildSettings(batch=BatchRange(1, 2, 4)), timing_cache_folder=folder.parent)
    return folder


def a_cell(bundle: Path, form: str, backend: str) -> Cell:
    artifact = read_manifest(bundle).of_format(form)[0]
    return cell(artifact.name, file=artifact.file, backend=backend, batch=2, image_size=IMAGE_SIZE)


def computes_and_times(bundle: Path, cell_: Cell, options: Options) -> None:
    reference = read_reference(bundle)
    images, logits = reference["images"][:2], reference["logits_x0_25"][:2]
    with closing(open_runner(cell_, bundle, Images(4, IMAGE_SIZE), options)) as runner:
        for _ in range(2):
            assert compare(runner.logits(images), logits).max_rel_error <= TOLERANCES["fp32"]
            timings = [runner.run(index) for index in range(20)]
        for timing in timings[5:]:
            assert timing.device is not None and timing.enqueue is not None
            assert 0 < timing.device <= timing.wall
            assert 0 < timing.enqueue <= timing.wall
            assert (timing.upload is not None and timing.upload > 0) is options.transfers


@has_provider
@pytest.mark.parametrize("transfers", [False, True])
def test_onnxruntime_on_cuda(exported: Path, transfers: bool) -> None:
    computes_and_times(exported, a_cell(exported, "onnx", ONNXRUNTIME_CUDA), Options(transfers=transfers))


@has_provider
def test_tf32_differs_from_fp32_by_little(exported: Path) -> None:
    cell_ = a_cell(exported, "onnx", ONNXRUNTIME_CUDA)
    images = read_reference(exported)["images"][:2]
    logits = []
    for precision in ("fp32", "tf32"):
        with closing(open_runner(replace(cell_, precision=precision), exported, Images(2, IMAGE_SIZE), Options())) as runner:
            logits.append(runner.logits(images))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-2 * np.abs(logits[0]).max())


@pytest.mark.tensorrt
@pytest.mark.parametrize("transfers", [False, True])
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_tensorrt(exported: Path, cuda_graph: bool, transfers: bool) -> None:
    computes_and_times(exported, a_cell(exported, "trt", TENSORRT), Options(cuda_graph=cuda_graph, transfers=transfers))


def test_captured_work_is_done_at_launch_only() -> None:
    cuda, _ = require_gpu()
    back = np.zeros(4, np.float32)
    with cuda.stream() as stream, cuda.memory(16) as source, cuda.memory(16) as to:
        stream.upload(source, np.arange(4, dtype=np.float32))
        stream.upload(to, np.full(4, 9, np.float32))
        stream.synchronize()
        with Graph(stream, lambda: stream.copy(to, source)) as graph:
            stream.download(back, to)
            stream.synchronize()
            assert back.tolist() == [9, 9, 9, 9]
            graph.launch(stream)
            stream.download(back, to)
            stream.synchronize()
            assert back.tolist() == [0, 1, 2, 3]
    assert cuda.l2_cache_bytes() > 1 << 18


@pytest.mark.parametrize(
    "backend", [pytest.param(ONNXRUNTIME_CUDA, marks=has_provider), pytest.param(TENSORRT, marks=pytest.mark.tensorrt)]
)
def test_ceilings(backend: str) -> None:
    ceilings = measure_ceilings(backend, "fp32", Options(), seconds=0.1)
    assert ceilings.macs_per_s is not None and ceilings.macs_per_s > 1e11
    assert ceilings.bytes_per_s is not None and ceilings.bytes_per_s > 1e10
    assert ceilings.seconds_per_operator is None or 0 < ceilings.seconds_per_operator < 1e-3
