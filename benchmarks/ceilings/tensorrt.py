"""TensorRT's ceilings: engines of a matrix product and of a chain of tiny ones, built as a bundle's engines are built.

The ONNX parser reads the same tiny models that onnxruntime's ceilings run, with the builder flags of the precision.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from benchmarks.ceilings.copies import by_events, copy_on_gpu
from benchmarks.ceilings.feeds import chain_feed, chain_number, product_feed
from benchmarks.ceilings.probe import SIZES, Clocked, Copying, require_room
from benchmarks.cells.backends import CUDA
from benchmarks.cells.cell import Array, NotMeasured, Options
from benchmarks.onnx_models.tiny import PRODUCTS, chain_model, product_model
from slimexport.target.cuda.device import require_gpu
from slimexport.target.cuda.graph import Graph
from slimexport.target.cuda.runtime import Cuda, DeviceMemory
from slimexport.target.errors import MissingBackend
from slimexport.target.precision import PRECISIONS
from slimexport.target.tensorrt.api import (
    Emission,
    create,
    emission,
    logger,
    messages,
    network_flags,
    said,
)
from slimexport.target.tensorrt.build import configure, in_thread
from slimexport.target.tensorrt.build_settings import BuildSettings
from slimexport.target.tensorrt.libraries import require_tensorrt

LENGTHS = (16, 80)  # building an engine takes long for each operator


@contextmanager
def tensorrt_probe(precision: str, options: Options) -> Iterator[WithTensorRT]:
    """TensorRT on this machine's GPU."""
    row = PRECISIONS.get(precision)
    if row is None or row.calibrated or row.number not in PRODUCTS:
        raise NotMeasured(f"no product is measured in {precision}: what quantizes its inputs would be measured too")
    trt = require_tensorrt()
    cuda, device = require_gpu()
    yield WithTensorRT(trt, cuda, emission(trt, precision), options.cuda_graph, device.gpu)


def bind(context: Any, name: str, memory: DeviceMemory) -> None:
    """Give an engine's input or output its memory. NotMeasured where TensorRT does not take it."""
    if not context.set_tensor_address(name, memory.address):
        raise NotMeasured(f"TensorRT does not take an address for {name}")


class WithTensorRT:
    """Products, copies and chains on the GPU, in one precision, as CUDA graphs or launched each time."""

    def __init__(self, trt: Any, cuda: Cuda, building: Emission, cuda_graph: bool, gpu: str) -> None:
        self.trt, self.cuda, self.building, self.cuda_graph = trt, cuda, building, cuda_graph
        self.sizes, self.lengths = SIZES[CUDA], LENGTHS
        self.number = PRECISIONS[building.precision].number
        self.how: Mapping[str, Any] = {"library": f"TensorRT {trt.__version__}", "device": gpu, "cuda_graph": cuda_graph}

    @contextmanager
    def product(self, size: int) -> Iterator[Clocked]:
        feed = product_feed(self.number, size)
        require_room(3 * feed["a"].nbytes, self.cuda.memory_info()[0])
        with self._clocked(self._engine(product_model(self.number, size)), feed, "c") as clocked:
            yield clocked

    @contextmanager
    def chain(self, length: int) -> Iterator[Clocked]:
        number = chain_number(self.number)
        engine = self._engine(chain_model(length, number))
        if engine.num_layers < length:
            raise NotMeasured(
                f"TensorRT fuses {length} products into {engine.num_layers} layers, so one's cost cannot be told"
            )
        with self._clocked(engine, chain_feed(number), "y") as clocked:
            yield clocked

    def copy(self) -> AbstractContextManager[Copying]:
        return copy_on_gpu(self.cuda)

    def _engine(self, model: bytes) -> Any:
        """An engine of a tiny model."""
        trt = self.trt
        with messages(trt) as collected:
            builder = create("a builder", trt.Builder, logger(trt))
            network = create("a network", builder.create_network, network_flags(trt))
            parser = create("a parser of ONNX", trt.OnnxParser, network, logger(trt))
            config = create("a configuration", builder.create_builder_config)
            configure(trt, config, self.building, BuildSettings())
            plan = None
            if parser.parse(model):
                plan = in_thread(lambda: builder.build_serialized_network(network, config), threading.Event(), stops=False)
            if plan is None:
                why = said(collected) or "it gives no reason"
                raise NotMeasured(f"TensorRT {trt.__version__} builds no {self.building.precision} product ({why})")
            runtime = create("a runtime", trt.Runtime, logger(trt))
            return create("an engine", runtime.deserialize_cuda_engine, bytes(plan))

    @contextmanager
    def _clocked(self, engine: Any, feed: Mapping[str, Array], output: str) -> Iterator[Clocked]:
        """The engine's run on `feed`; its output is of the inputs' shape and type."""
        with ExitStack() as resources:
            stream = resources.enter_context(self.cuda.stream())
            context = create("an execution context", engine.create_execution_context)
            for name, values in feed.items():
                memory = resources.enter_context(self.cuda.memory(values.nbytes))
                stream.upload(memory, values)
                bind(context, name, memory)
            bind(context, output, resources.enter_context(self.cuda.memory(values.nbytes)))

            def enqueue() -> None:
                with messages(self.trt) as collected:
                    if not context.execute_async_v3(stream.address):
                        raise MissingBackend(f"TensorRT does not run it ({said(collected) or 'it gives no reason'})")

            launch: Callable[[], None] = enqueue
            if self.cuda_graph:
                enqueue()  # before a capture TensorRT prepares what may not be captured
                stream.synchronize()
                graph = resources.enter_context(Graph(stream, enqueue))
                launch = functools.partial(graph.launch, stream)
            with by_events(stream, launch) as clocked:
                yield clocked
