"""A small exported network, and its cells in onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cells.backends import ONNXRUNTIME_CPU
from benchmarks.cells.cell import Cell, Options
from benchmarks.runners.opening import open_runner
from benchmarks.runners.ort import OnnxRuntimeCpu
from slimexport.target.manifest import read_manifest
from tests.support.bench_helpers import cell
from tests.support.gpu_fakes import Images

IMAGE_SIZE = 32


def cpu_cell(bundle: Path, precision: str = "fp32", batch: int = 2, **changes: Any) -> Cell:
    artifact = next(entry for entry in read_manifest(bundle).artifacts if entry.precision == precision)
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
    runner = open_runner(cell, bundle, images or Images(size=IMAGE_SIZE), Options(**options))
    assert isinstance(runner, OnnxRuntimeCpu)
    return runner
