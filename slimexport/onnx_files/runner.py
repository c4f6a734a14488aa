"""Running a file of any precision in onnxruntime on a CPU."""

from __future__ import annotations

from pathlib import Path

import onnx

from slimexport.onnx_files.typed import cast_twin
from slimexport.target.runners import OnnxRuntimeRunner, runs_on_cpu


def onnx_runner(path: Path, precision: str) -> OnnxRuntimeRunner:
    """A runner of the ONNX file at `path`. Where onnxruntime's CPU has no kernels for its type, or wrong ones, the file runs
    as its cast twin, and the runner's `backend` says so."""
    if runs_on_cpu(precision):
        return OnnxRuntimeRunner(path)
    return OnnxRuntimeRunner(path, cast_twin(onnx.load(path)).SerializeToString(), "onnxruntime-cpu (cast twin)")
