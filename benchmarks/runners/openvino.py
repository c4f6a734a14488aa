"""ONNX files in OpenVINO on the CPU, with the threads that are asked for, on the CPUs that the process is kept to."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells.cell import Array, Cell, Inputs, NotMeasured, Options, Timing
from benchmarks.cells.inputs import cache_bytes
from benchmarks.runners.failures import OF_THE_TARGET, reasons
from benchmarks.runners.images import check_images, input_settings
from slimexport.target.limits import Budget, FirstRuns
from slimexport.target.openvino import compile_file, hint_of, layers_by_number, reason, require_openvino
from slimexport.target.runners import Given, alone


def compile_settings(threads: int) -> dict[str, Any]:
    """As users have it, for one input after another and a stated number of threads, which stay where the process is kept:
    OpenVINO would choose CPUs itself."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": True,  # permits as many threads as logical CPUs; how many there are is said above
    }


def shared_tensor(array: Array) -> Any:
    """An array [contiguous float32] as OpenVINO takes it without a copy, as onnxruntime does. Buffers are read-only, and
    arrays that are, OpenVINO copies; it writes to no input. The array must outlive the tensor."""
    pointer = (ctypes.c_float * array.size).from_address(array.ctypes.data)
    return require_openvino().Tensor(np.ctypeslib.as_array(pointer).reshape(array.shape), shared_memory=True)


@contextmanager
def readable() -> Iterator[None]:
    """What OpenVINO raises where it runs, a RuntimeError, as a reason in one line."""
    with reasons(RuntimeError):
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError(reason(error)) from error


class OpenVINO:
    """An ONNX file on the CPU, with `options.threads` threads. Raises NotMeasured and OutOfMemory."""

    def __init__(self, cell: Cell, path: Path, inputs: Inputs, options: Options) -> None:
        with reasons(*OF_THE_TARGET):
            version = require_openvino().__version__
            self.first = FirstRuns(path.name, Budget(cell.macs, cell.activations, cell.size_bytes))
            settings = compile_settings(options.threads)
            self.compiled: Any = self.first.load(lambda: compile_file(path, cell.precision, settings, cell.batch))
        self.cell = cell
        self.outputs = [output.any_name for output in self.compiled.outputs]
        self.request: Any = self.compiled.create_infer_request()
        threads = self.compiled.get_property("INFERENCE_NUM_THREADS")
        if threads != options.threads:
            raise NotMeasured(f"OpenVINO {version} would use {threads} threads in place of {options.threads}.")
        cache = cache_bytes()
        with reasons():
            self.buffers = inputs.buffers(cell.batch, cache)
        self.feeds = [{0: shared_tensor(buffer)} for buffer in self.buffers]
        layers = layers_by_number(self.compiled)
        self.settings: Mapping[str, Any] = {
            "device": "cpu",
            "threads": threads,
            "streams": self.compiled.get_property("NUM_STREAMS"),
            "performance_hint": "LATENCY",
            "compiled_for": f"a batch of {cell.batch}",
            "precision_hint": hint_of(cell.precision),
            "layers_computed_in": ", ".join(f"{number} {name}" for name, number in layers.items()),
            "version": version,
            **input_settings(self.buffers, cache),
        }

    def run(self, index: int) -> Timing:
        # as users call it: inputs are read where they are, outputs are given as arrays of their own, as in onnxruntime
        infer, feed = self.request.infer, self.feeds[index % len(self.feeds)]
        with readable():
            started = time.perf_counter()
            infer(feed, share_inputs=True)
            ended = time.perf_counter()
        return Timing(wall=ended - started)

    def logits(self, images: Array) -> Given:
        batch, request = check_images(images, self.cell), self.request
        with reasons(*OF_THE_TARGET), readable():
            feed = {0: shared_tensor(batch)}
            given = self.first.run(len(batch), lambda: request.infer(feed, share_inputs=True), request.cancel)
            arrays = [np.asarray(given[index]) for index in range(len(self.outputs))]
        return alone(dict(zip(self.outputs, arrays, strict=True)))

    def close(self) -> None:
        """Free the network's memory; it cannot run again."""
        self.request = self.compiled = None
        self.feeds, self.buffers = [], []
