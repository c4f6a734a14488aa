"""Running ONNX models of any precision in onnxruntime on a CPU: files as users run them, and models that are being written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from slimexport.onnx_files.graph_writer import INPUT
from slimexport.onnx_files.typed import cast_twin
from slimexport.target.arrays import Array
from slimexport.target.proof.inside import Source
from slimexport.target.runners import OnnxRuntimeRunner, make_frugal, runs_on_cpu
from slimtrain.data.images import Images

TWIN = "onnxruntime-cpu (cast twin)"  # the backend of files that run as their cast twins


def onnx_runner(path: Path, precision: str, *, spinning: bool = True, frugal: bool = False) -> OnnxRuntimeRunner:
    """A runner of the ONNX file at `path`. Where onnxruntime's CPU has no kernels for its type, or wrong ones, the file runs
    as its cast twin, and the runner's `backend` says so. `spinning`, `frugal`: see `OnnxRuntimeRunner`."""
    if runs_on_cpu(precision):
        return OnnxRuntimeRunner(path, spinning=spinning, frugal=frugal)
    content = cast_twin(onnx.load(path)).SerializeToString()
    return OnnxRuntimeRunner(path, content, TWIN, spinning=spinning, frugal=frugal)


def source_in(path: Path, precision: str) -> Source:
    """What the file at `path`, or its cast twin, is cut out of, without running it."""
    own = runs_on_cpu(precision)
    content = path.read_bytes() if own else cast_twin(onnx.load(path)).SerializeToString()
    return Source(content, INPUT, lambda piece: OnnxRuntimeRunner(path, piece, spinning=False), single=not own)


def model_runner(model: onnx.ModelProto) -> OnnxRuntimeRunner:
    """A runner of a model that is not on a disk."""
    return OnnxRuntimeRunner(Path(model.graph.name), model.SerializeToString())


def run_batches(model: onnx.ModelProto, batches: Sequence[Images], *, as_written: bool = False) -> list[Array]:
    """The outputs, as logits [N, classes], of a model that is not on a disk, of all batches [n, C, H, W] after each other."""
    session = cpu_session(model, as_written=as_written)
    (image,) = session.get_inputs()
    parts = [session.run(None, {image.name: batch}) for batch in batches]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def cpu_session(model: onnx.ModelProto, *, as_written: bool = False, frugal: bool = False) -> Any:
    """An onnxruntime session of a model that is not on a disk. `as_written`: operator by operator, nothing is fused. `frugal`:
    it holds no memory that it has no values in."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if frugal:
        make_frugal(options)
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
