"""ONNX files in onnxruntime on the CPU, and what its runner on CUDA (`ort_cuda`) shares with it."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Cell, Inputs, NotMeasured, Options, Timing
from benchmarks.cells.inputs import cache_bytes
from benchmarks.runners.failures import OF_THE_TARGET, reasons
from benchmarks.runners.images import check_images, input_settings
from slimexport.target.backends import CPU
from slimexport.target.errors import MissingBackend
from slimexport.target.limits import Budget, FirstRuns
from slimexport.target.precision import row_of
from slimexport.target.runners import (
    PROVIDERS,
    Given,
    alone,
    onnxruntime_package,
    require_onnxruntime,
    runs_on_cpu,
    tensor_names,
)
from slimtrain.base.files import library_name

NO_TF32 = "CPUs have no TF32, only GPUs do."


def load_onnxruntime() -> Any:
    """The onnxruntime module. NotMeasured where there is none."""
    try:
        return require_onnxruntime()
    except MissingBackend as error:
        if error.__cause__ is not None:  # it is there, but does not load: its own words say why
            raise NotMeasured(str(error)) from error
        raise NotMeasured(f"onnxruntime is not installed: pip install {onnxruntime_package()}.") from error


@functools.cache
def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises. Its dozen types have no base but Exception, and catching that would hide our own mistakes."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, ValueError, *own)


def session_options(threads: int) -> Any:
    """As users have them, but for a stated number of threads; errors come as exceptions, not as lines on the terminal."""
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def open_session(model: str | bytes, options: Any, providers: Sequence[Any]) -> Any:
    """A session on the first of `providers`. NotMeasured where onnxruntime would use another one in its place."""
    onnxruntime = load_onnxruntime()
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    with reasons(*onnxruntime_errors()):
        session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    provider = session.get_providers()[0]
    if provider != wanted:
        raise NotMeasured(
            f"onnxruntime could not load {wanted} and would use {provider} in its place. Install {onnxruntime_package()}, and "
            "the CUDA and cuDNN that it is built for."
        )
    return session


class OnnxRuntimeCpu:
    """An ONNX file on the CPU, with `options.threads` threads. Raises NotMeasured and OutOfMemory."""

    def __init__(self, cell: Cell, path: Path, inputs: Inputs, options: Options) -> None:
        version = load_onnxruntime().__version__
        if row_of(cell.precision).tf32:
            raise NotMeasured(NO_TF32)
        if not runs_on_cpu(cell.precision):
            raise NotMeasured(f"onnxruntime {version} runs {cell.precision} files wrongly on a CPU, or not at all.")
        self.cell = cell
        settings = session_options(options.threads)
        self.first = FirstRuns(path.name, Budget(cell.macs, cell.activations, cell.size_bytes))
        with reasons(*OF_THE_TARGET), library_name(path) as name:
            self.session: Any = self.first.load(lambda: open_session(name, settings, PROVIDERS[CPU]))
            self.input, self.outputs = tensor_names(self.session, path.name)
        cache = cache_bytes()
        with reasons():
            self.buffers = inputs.buffers(cell.batch, cache)
        self.settings: Mapping[str, Any] = {
            "device": "cpu",
            "threads": options.threads,
            "provider": self.session.get_providers()[0],
            "graph_optimization": settings.graph_optimization_level.name,
            "version": version,
            **input_settings(self.buffers, cache),
        }

    def run(self, index: int) -> Timing:
        # as users call it; measured here, a bound input and output would save 2 us of 42, and 1 us where every buffer must be
        # bound anew
        run, feed = self.session.run, {self.input: self.buffers[index % len(self.buffers)]}
        with reasons(*onnxruntime_errors()):
            started = time.perf_counter()
            run(self.outputs, feed)
            ended = time.perf_counter()
        return Timing(wall=ended - started)

    def logits(self, images: Array) -> Given:
        run, feed = self.session.run, {self.input: check_images(images, self.cell)}
        with reasons(*onnxruntime_errors(), *OF_THE_TARGET):
            given = self.first.run(len(images), lambda: run(self.outputs, feed))
        return alone(dict(zip(self.outputs, map(np.asarray, given), strict=True)))

    def close(self) -> None:
        """Free the session's memory; it cannot run again."""
        self.session, self.buffers = None, []
