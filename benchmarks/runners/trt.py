"""TensorRT plans: the network's work captured as CUDA graphs, one for each input buffer, and queued with one call.

A plan that cannot be captured is not measured rather than measured without: beside widths that were, its launches would
count as the width's own cost.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cells.cell import Array, Cell, Inputs, NotMeasured, Options, Timing
from benchmarks.runners.artifacts import find_artifact
from benchmarks.runners.failures import OF_THE_TARGET, first_line, is_out_of_memory, reasons
from benchmarks.runners.on_gpu import Launch, OnGpu
from slimexport.target.cuda.graph import Graph
from slimexport.target.cuda.runtime import DeviceMemory
from slimexport.target.errors import MissingBackend
from slimexport.target.runners import Given
from slimexport.target.tensorrt.engine import TensorRTRunner

CAPTURE_S = 5.0  # of a cell: a graph of a detector has hundreds of kernels, and small images need hundreds of graphs
LEAST_BUFFERS = 2
CLOCK = time.monotonic


class TensorRT:
    """A plan of a bundle on this machine's GPU. Raises NotMeasured and OutOfMemory, BundleError without a manifest."""

    def __init__(self, cell: Cell, path: Path, inputs: Inputs, options: Options) -> None:
        artifact = find_artifact(path.parent, path.name)
        with reasons(*OF_THE_TARGET), ExitStack() as resources:
            self.plan = resources.enter_context(TensorRTRunner(path, artifact))
            self._prepare(cell)
            tensors = self.plan.tensors
            self.on_gpu = OnGpu(
                self.plan.stream,
                cell,
                inputs,
                tensors.outputs,
                options.transfers,
                resources,
                self.plan.outputs,
                tensors.numbers,
            )
            if options.cuda_graph:
                self.launches = self._captured(resources)
            else:
                self.launches = [self._enqueue] * len(self.on_gpu.inputs)
            self.rebinds = not options.cuda_graph
            self.settings: Mapping[str, Any] = {
                "device": self.plan.device.gpu,
                "version": self.plan.trt.__version__,
                "cuda": self.plan.device.cuda,
                "cuda_graph": options.cuda_graph,
                "profile": [tensors.min_batch, tensors.opt_batch, tensors.max_batch],
                "context_bytes": self.plan.device_memory_bytes(),
                **self.on_gpu.settings,
            }
            self.resources = resources.pop_all()

    def _prepare(self, cell: Cell) -> None:
        """Set the batch. NotMeasured where the engine takes no such images."""
        tensors = self.plan.tensors
        if not tensors.min_batch <= cell.batch <= tensors.max_batch:
            raise NotMeasured(
                f"{cell.file} takes {tensors.min_batch} to {tensors.max_batch} images at once, not {cell.batch}. Build it "
                f"with a --batch that spans {cell.batch}."
            )
        if tensors.image_shape != cell.image_shape:
            raise NotMeasured(
                f"{cell.file} takes images {list(tensors.image_shape)}, expected {list(cell.image_shape)}. Build it again."
            )
        self.plan.set_batch(cell.batch)

    def _bind(self, memory: DeviceMemory) -> None:
        context = self.plan.context
        if not context.set_tensor_address(self.plan.tensors.input, memory.address):
            raise MissingBackend(f"{self.plan.name}: TensorRT does not take another address for its input.")

    def _enqueue(self) -> None:
        context = self.plan.context
        if not context.execute_async_v3(self.plan.stream.address):
            self.plan.enqueue()  # fails again, with TensorRT's words

    def _captured(self, resources: ExitStack) -> list[Launch]:
        """A graph for each input buffer, or for as many as CAPTURE_S has time for; only these rotate then, and settings say
        how many they are."""
        began, launches = CLOCK(), list[Launch]()
        for memory in self.on_gpu.inputs:
            if len(launches) >= LEAST_BUFFERS and CLOCK() - began > CAPTURE_S:
                break
            launches.append(self._capture(memory, resources))
        self.on_gpu.keep(len(launches))
        return launches

    def _capture(self, memory: DeviceMemory, resources: ExitStack) -> Launch:
        """A graph that runs the engine on `memory`, as a function that launches it."""
        self._bind(memory)
        self.plan.enqueue()  # after a new shape TensorRT prepares what may not be captured
        self.plan.stream.synchronize()
        try:
            graph = resources.enter_context(Graph(self.plan.stream, self.plan.enqueue))
        except MissingBackend as error:
            if is_out_of_memory(error):
                raise
            raise NotMeasured(
                f"{self.plan.name}: cannot be captured as a CUDA graph ({first_line(error)}). Measure all without graphs."
            ) from error
        return functools.partial(graph.launch, self.plan.stream)

    def _launch(self, place: int) -> Launch:
        """What runs buffer `place`, which plain launches are told of now, outside of the measured time."""
        if self.rebinds:
            self._bind(self.on_gpu.inputs[place])
        return self.launches[place]

    def run(self, index: int) -> Timing:
        with reasons(*OF_THE_TARGET):
            return self.on_gpu.iteration(index, self._launch(self.on_gpu.place(index)))

    def logits(self, images: Array) -> Given:
        with reasons(*OF_THE_TARGET):
            return self.on_gpu.logits(images, self._launch(0))

    def close(self) -> None:
        """Free everything on the device; nothing happens the second time."""
        self.resources.close()
