"""onnxruntime's ceilings: tiny models (`onnx_models.tiny`) in sessions like those that are measured, on the CPU or on CUDA."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from benchmarks.ceilings.copies import by_events, copy_on_cpu, copy_on_gpu
from benchmarks.ceilings.feeds import chain_feed, chain_number, product_feed
from benchmarks.ceilings.probe import SIZES, Clocked, Copying, require_room
from benchmarks.cells.backends import CPU, CUDA, ONNXRUNTIME_CPU
from benchmarks.cells.cell import Array, NotMeasured, Options
from benchmarks.onnx_models.tiny import PRODUCTS, chain_model, product_model
from benchmarks.runners.failures import reasons
from benchmarks.runners.on_gpu import Launch
from benchmarks.runners.ort import NO_TF32, load_onnxruntime, onnxruntime_errors, open_session, session_options
from benchmarks.runners.ort_cuda import open_on_stream, require_cuda_provider, strict_options, unsynchronized
from slimexport.target.cuda.device import require_gpu
from slimexport.target.cuda.runtime import Cuda
from slimexport.target.precision import PRECISIONS, row_of
from slimexport.target.runners import PROVIDERS

LENGTHS = (32, 288)


def number_of(precision: str) -> str:
    """What the products of a precision multiply. NotMeasured for those without a model, or without arrays to give to it."""
    row = PRECISIONS.get(precision)
    if row is None or row.number not in PRODUCTS:
        raise NotMeasured(f"there is no product in {precision} to give to onnxruntime")
    if not hasattr(np, row.number):
        raise NotMeasured(f"numpy has no {row.number} to give to onnxruntime")
    return row.number


@contextmanager
def cpu_probe(precision: str, options: Options) -> Iterator[OnCpu]:
    """onnxruntime on the CPU."""
    if row_of(precision).tf32:
        raise NotMeasured(NO_TF32)
    yield OnCpu(number_of(precision), options.threads)


class OnCpu:
    """Products, copies and chains with `threads` threads."""

    def __init__(self, number: str, threads: int) -> None:
        self.number, self.threads = number, threads
        self.sizes, self.lengths = SIZES[CPU], LENGTHS
        version = load_onnxruntime().__version__
        self.how: Mapping[str, Any] = {"library": f"onnxruntime {version}", "device": CPU, "threads": threads}

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        yield self._clocked(product_model(self.number), product_feed(self.number, size))

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        number = chain_number(self.number)
        yield self._clocked(chain_model(length, number), chain_feed(number))

    def copy(self) -> AbstractContextManager[Copying]:
        return copy_on_cpu(self.threads)

    def _clocked(self, model: bytes, feed: dict[str, Array]) -> Clocked:
        run = open_session(model, session_options(self.threads), PROVIDERS[ONNXRUNTIME_CPU]).run

        def clocked() -> float:
            with reasons(*onnxruntime_errors()):
                started = time.perf_counter()
                run(None, feed)
                return time.perf_counter() - started

        return clocked


@contextmanager
def cuda_probe(precision: str, options: Options) -> Iterator[OnCuda]:
    """onnxruntime on the GPU."""
    if row_of(precision).calibrated:
        raise NotMeasured("what onnxruntime makes of int8 products on CUDA is not known, so none is measured")
    cuda, device = require_gpu()
    require_cuda_provider()
    yield OnCuda(precision, options.threads, cuda, device.gpu)


class OnCuda:
    """Products, copies and chains on a stream of their own, timed by events."""

    def __init__(self, precision: str, threads: int, cuda: Cuda, gpu: str) -> None:
        self.precision, self.threads, self.cuda = precision, threads, cuda
        self.sizes, self.lengths = SIZES[CUDA], LENGTHS
        self.number = number_of(precision)
        self.how: Mapping[str, Any] = {"library": f"onnxruntime {load_onnxruntime().__version__}", "device": gpu}

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        require_room(3 * size**2 * np.dtype(self.number).itemsize, self.cuda.memory_info()[0])
        with self._clocked(product_model(self.number), product_feed(self.number, size), "c") as clocked:
            yield clocked

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        number = chain_number(self.number)
        with self._clocked(chain_model(length, number), chain_feed(number), "y") as clocked:
            yield clocked

    def copy(self) -> AbstractContextManager[Copying]:
        return copy_on_gpu(self.cuda)

    @contextmanager
    def _clocked(self, model: bytes, feed: Mapping[str, Array], output: str) -> Iterator[Clocked]:
        """The model's run on `feed`; its output is of the inputs' shape and type."""
        with reasons(*onnxruntime_errors()), ExitStack() as resources:
            stream = resources.enter_context(self.cuda.stream())
            session = open_on_stream(model, stream, self.precision, strict_options(self.threads))
            binding = session.io_binding()
            for name, values in feed.items():
                memory = resources.enter_context(self.cuda.memory(values.nbytes))
                stream.upload(memory, values)
                binding.bind_input(name, "cuda", 0, values.dtype.type, values.shape, memory.address)
            result = resources.enter_context(self.cuda.memory(values.nbytes))
            binding.bind_output(output, "cuda", 0, values.dtype.type, values.shape, result.address)
            launches: list[Launch] = [functools.partial(session.run_with_iobinding, binding, unsynchronized())]
            resources.callback(launches.clear)  # the session, which it holds, goes before its stream and memory
            del session, binding

            def launch() -> None:
                launches[0]()

            with by_events(stream, launch) as clocked:
                yield clocked
